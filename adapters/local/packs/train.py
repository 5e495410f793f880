"""LoRA fine-tuning of many runs at once, on one frozen base model. Only workers import this: it starts torch.

Each run gets what TRL's SFTTrainer would give it alone, up to float32's rounding: the same initial weights, order of rows,
dropout masks, loss, clipping and updates, whatever its length, learning rate, rank or seed (`tests/properties/test_packs.py`
bounds the difference).

On a CPU a core is busy with one run, and more gain nothing: there each trains alone, so that nobody's company moves a bit of
it, and the rows of a batch go through a model of some size one by one, which saves padding and memory. On a GPU a pack is as wide as
memory allows. When a run ends, the next one takes its place; when one diverges, it leaves alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from adapters import chat
from adapters.local import lora
from adapters.local.batches import out_of_memory
from adapters.local.loaded import LoadedModel
from adapters.local.packs import state
from adapters.local.packs.member import Member, Rows
from adapters.local.packs.pack import Pack
from adapters.local.packs.room import Room
from adapters.local.packs.schedule import BatchSchedule
from adapters.local.states import pause_after, run_identity
from engine.ports import Context, StoppedError, TrainingRun, Tuned

Reached = tuple[str, Tuned | Exception]

DROPOUTS = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "hidden_dropout",
    "layerdrop",
    "attn_pdrop",
    "resid_pdrop",
    "embd_pdrop",
)
"""What transformers' configurations call the dropout of a base model."""


class Training:
    """The training of several runs, which agree in model, type, targets, batch size and accumulation.

    Args:
        held: The base model.
        context: The worker.

    Raises:
        ValueError: When the base model has dropout of its own, and cannot train in a pack.
    """

    def __init__(self, held: LoadedModel, context: Context) -> None:
        """Look at the model."""
        _refuse_own_dropout(held.base)
        self._held = held
        self._context = context
        self._room = Room(held.base, context)
        self._waiting: list[Member] = []
        self._active: list[Member] = []

    def run(self, runs: Sequence[TrainingRun]) -> Iterator[Reached]:
        """Train every run up to its last checkpoint, and yield (key, what it left) at each checkpoint as it is reached.

        A run goes on from the state in its folder when that is of the same run and not beyond its first checkpoint. What
        stops a run is yielded for each checkpoint that it did not reach, and the others go on: FloatingPointError when its loss
        is no longer finite, ValueError when a row does not fit `max_length` or an adapted module is not linear, torch's error
        when memory does not suffice for it alone.
        """
        for run in runs:
            try:
                self._waiting.append(self._member(run))
            except Exception as error:  # noqa: BLE001 - its own; the others can train
                yield from ((checkpoint.key, error) for checkpoint in run.checkpoints)
        # Rows of a length together, for less padding; among them the longest run first, so that packs stay full.
        self._waiting.sort(key=lambda member: (-member.rows.ids.shape[1], -member.schedule.steps))
        while self._waiting or self._active:
            yield from self._fill()
            if self._active:
                yield from self._train(Pack(self._held, self._active, self._room.passes(self._active)))

    def _member(self, run: TrainingRun) -> Member:
        begun = time.perf_counter()
        most = run.settings.max_length
        whole = chat.whole_rows(self._held.tokenizer, run.rows)
        encoded = chat.cut(run.rows, whole, most)
        return Member(
            run,
            run_identity(run, self._held.layers, self._context),
            lora.configured(run.settings),
            Rows.of(encoded, self._held.tokenizer.pad_token_id),
            BatchSchedule(run.settings, run.checkpoints[-1].length, len(encoded), run.seed),
            torch.Generator(self._context.device).manual_seed(run.seed) if run.settings.dropout else None,
            chat.are_longer(whole, most),
            seconds=time.perf_counter() - begun,
        )

    def _fill(self) -> Iterator[Reached]:
        """Let waiting runs join, as many as there is room for; what an earlier attempt had come to is passed at once."""
        for member in list(self._waiting):
            if self._active and not self._room.has_room([*self._active, member]):
                continue
            self._waiting.remove(member)
            if not member.has_begun:
                try:
                    with _charged([member]):
                        member.begin(lora.drawn(self._held.base, member.config, member.run.seed))
                        state.restore(member, self._room.passes([member]).rows)
                except Exception as error:  # noqa: BLE001 - its own; the others can train
                    yield from ((checkpoint.key, error) for checkpoint in member.run.checkpoints)
                    continue
                member.quiet_until = time.monotonic() + pause_after(0)
                yield from self._pass_checkpoints(member)
            if member.missing:
                self._active.append(member)

    def _train(self, pack: Pack) -> Iterator[Reached]:
        """Train the active runs until one of them leaves."""
        while self._active == pack.members:
            lost, cramped = self._until_something(pack)
            if cramped is not None:
                yield from self._split(pack, cramped)
                return
            for member, error in lost:
                yield from ((checkpoint.key, error) for checkpoint in member.missing)
            for member in pack.members:
                if member.reached:
                    yield from self._pass_checkpoints(member)
            gone = {member for member, _ in lost}
            self._active = [member for member in pack.members if member.missing and member not in gone]

    def _until_something(self, pack: Pack) -> tuple[list[tuple[Member, Exception]], Exception | None]:
        """Take steps until a run is at a checkpoint or lost.

        Returns:
            The runs that are lost, and why; and the error, if memory did not suffice.
        """
        with _charged(pack.members):
            while True:
                self._room.measure()
                try:
                    lost = pack.step(partial(self._beat, pack))
                except StoppedError:
                    for member in pack.members:
                        if member.step > member.saved:
                            self._save(member)
                    raise
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    return [], error.with_traceback(None)  # its frames hold the memory
                self._room.measured(pack)
                if lost or any(member.reached for member in pack.members):
                    return [(pack.members[place], error) for place, error in lost.items()], None
                self._save_some(pack)

    def _beat(self, pack: Pack, share: float) -> None:
        """Say how far each run is on its way to its next checkpoint."""
        for member in pack.members:
            checkpoint, begun = member.missing[0], member.end_before
            done = member.step + share - begun
            self._context.pulse.beat(checkpoint.key, done, max(1, member.end(checkpoint) - begun))

    def _split(self, pack: Pack, error: Exception) -> Iterator[Reached]:
        """Go on with fewer runs or rows at once after memory did not suffice; one row that does not fit alone has failed."""
        self._active = []
        if self._room.shrink(pack):
            self._waiting = [*pack.members, *self._waiting]
        else:
            yield from ((checkpoint.key, error) for checkpoint in pack.members[0].missing)

    def _save_some(self, pack: Pack) -> None:
        """Save the states of the runs that have ended an epoch, now and then."""
        for member in pack.members:
            if member.at_epoch and time.monotonic() >= member.quiet_until:
                self._save(member)

    def _save(self, member: Member) -> None:
        begun = time.monotonic()
        state.save(member)
        member.saved = member.step
        ended = time.monotonic()
        member.quiet_until = ended + pause_after((ended - begun) * max(1, len(self._active)))

    def _pass_checkpoints(self, member: Member) -> Iterator[Reached]:
        """Write a run's weights at the checkpoints that it is at, and its state when it is due, or is to be kept at the end."""
        with _charged([member]):
            reached = member.reached
            passed = list(member.passed)
            for checkpoint in reached:
                lora.save(member.adapter, member.config, checkpoint.folder)
                member.passed.append(checkpoint.key)
            wanted = member.run.keep_state or member.missing
            if reached and wanted and (not member.missing or time.monotonic() >= member.quiet_until):
                self._save(member)
        for checkpoint in reached:
            last = passed[-1] if passed else None
            yield checkpoint.key, Tuned(tuple(member.steps), member.settle_up(), last, member.cut_rows)
            passed.append(checkpoint.key)


@contextmanager
def _charged(members: Sequence[Member]) -> Iterator[None]:
    """Share the time that the block takes among the members, but for what they are charged for in it."""
    begun, before = time.perf_counter(), sum(member.seconds for member in members)
    yield
    _charge(members, time.perf_counter() - begun - sum(member.seconds for member in members) + before)


def _charge(members: Sequence[Member], seconds: float) -> None:
    for member in members:
        member.seconds += seconds / len(members)


def _refuse_own_dropout(model: Any) -> None:
    """Raise ValueError for a base model that drops out itself: its masks would be shared by all members."""
    config = model.config.get_text_config()
    active = [name for name in DROPOUTS if getattr(config, name, 0)]
    if active or any(isinstance(module, torch.nn.Dropout) and module.p for module in model.modules()):
        raise ValueError(f"the base model has dropout of its own {active or ''}: use tune.backend: trl")
