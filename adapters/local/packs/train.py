"""LoRA fine-tuning of many runs at once, on one frozen base model. Only hosts import this: it starts torch.

Each run gets what TRL's SFTTrainer would give it alone, up to float32's rounding: the same initial weights, order of rows,
dropout masks, loss, clipping and updates, whatever its length, learning rate, rank or seed (`tests/properties/test_packs.py`
bounds the difference). On a CPU a run's weights are the same bits in any company, also after an interruption.

The pack is as wide as measured speed and memory have shown to be good (`capacity.py`). When a run ends, the next one takes
its place; when one diverges, it leaves alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from adapters.local import chat, lora
from adapters.local.checkpoints import run_identity
from adapters.local.loaded import LoadedModel
from adapters.local.lora import Adapter
from adapters.local.memory import out_of_memory
from adapters.local.packs import state
from adapters.local.packs.capacity import Capacity
from adapters.local.packs.member import Member, Rows
from adapters.local.packs.order import Course, Dice
from adapters.local.packs.pack import Pack
from engine.domain.conversation import ChatRow
from engine.ports import Context, TrainingRun, Tuned

Reached = tuple[str, Tuned | Exception]

SAVE_AT_MOST_EVERY = 2.0
"""Seconds between two states of a run, but for its last."""

SAVING_SHARE = 0.05
"""States may take about this share of the time; those of a large model take long to write."""

DRAWINGS = 16
"""Initial weights that a host keeps, for other runs with the same seed and shape."""

ENCODINGS = 20_000
"""Rows that a host keeps as tokens."""

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


def train(trajectories: Sequence[TrainingRun], held: LoadedModel, context: Context) -> Iterator[Reached]:
    """Train every run up to its last cut, and yield (key, what it left) at each cut as it is reached.

    A run goes on from the state in its folder when that is of the same run and not beyond its first cut. What stops a run
    is yielded for each cut that it did not reach, and the others go on: FloatingPointError when its loss is no longer
    finite, ValueError when a row does not fit `max_length`, torch's error when memory does not suffice for it alone.

    Args:
        trajectories: The runs; they agree in model, type, targets, batch size and accumulation.
        held: The base model.
        context: The host.

    Raises:
        ValueError: When the base model cannot train in a pack: it has dropout of its own, or adapts other modules than
            linear ones.
    """
    yield from _Training(held, context).run(trajectories)


class _Training:
    """One call of `train`.

    Args:
        held: The base model.
        context: The host.
    """

    def __init__(self, held: LoadedModel, context: Context) -> None:
        """Look at the model, and recall what width is good for it."""
        _refuse_own_dropout(held.base)
        self._held = held
        self._context = context
        kind = f"{held.base.name_or_path} {held.base.dtype} {context.device}"
        self._capacity = context.warm.get("capacity", kind, partial(Capacity, context.device))
        self._drawings: dict[str, tuple[Any, Adapter]] = context.warm.get("drawings", kind, dict)
        self._encodings: dict[tuple[ChatRow, int], dict[str, list[int]]] = context.warm.get("encodings", kind, dict)
        self._waiting: list[Member] = []
        self._active: list[Member] = []

    def run(self, trajectories: Sequence[TrainingRun]) -> Iterator[Reached]:
        """Train, as `train` says."""
        yield from self._prepare(trajectories)
        for member in list(self._waiting):
            yield from self._pass_cuts(member)  # where an earlier attempt had come to
        self._waiting = [member for member in self._waiting if member.missing]
        # Rows of a length together, for less padding; among them the longest run first, so that packs stay full.
        self._waiting.sort(key=lambda member: (-member.rows.ids.shape[1], -member.left))
        while self._waiting or self._active:
            begun = time.perf_counter()
            self._fill()
            pack = Pack(self._held, self._active)
            _charge(self._active, time.perf_counter() - begun)
            yield from self._train(pack)

    def _prepare(self, trajectories: Sequence[TrainingRun]) -> Iterator[Reached]:
        begun = time.perf_counter()
        failed: list[tuple[TrainingRun, Exception]] = []
        for trajectory in trajectories:
            try:
                self._waiting.append(self._member(trajectory))
            except Exception as error:  # noqa: BLE001 - its own; the others can train
                failed.append((trajectory, error))
        _charge(self._waiting, time.perf_counter() - begun)
        for trajectory, why in failed:
            yield from ((cut.key, why) for cut in trajectory.checkpoints)

    def _member(self, trajectory: TrainingRun) -> Member:
        settings = trajectory.settings
        encoded = self._encoded(trajectory.rows, settings.max_length)
        course = Course(settings, trajectory.checkpoints[-1].length, len(encoded), trajectory.seed)
        config, adapter = self._drawn(trajectory)
        member = Member(
            trajectory,
            run_identity(trajectory, self._context),
            config,
            Rows.of(encoded, self._held.tokenizer.pad_token_id),
            course,
            course.rates(),
            adapter,
            Dice(trajectory.seed, self._context.device) if settings.dropout else None,
        )
        state.restore(member, self._context.device)
        member.quiet_until = time.monotonic() + SAVE_AT_MOST_EVERY
        return member

    def _encoded(self, rows: Sequence[ChatRow], max_length: int) -> list[dict[str, list[int]]]:
        """Return the rows as tokens; many runs read the same ones, so the host keeps what it has encoded."""
        fresh = [row for row in dict.fromkeys(rows) if (row, max_length) not in self._encodings]
        if len(self._encodings) + len(fresh) > ENCODINGS:
            self._encodings.clear()
            fresh = list(dict.fromkeys(rows))
        encoded = chat.training_rows(self._held.tokenizer, fresh, max_length)
        self._encodings.update(((row, max_length), tokens) for row, tokens in zip(fresh, encoded, strict=True))
        return [self._encodings[row, max_length] for row in rows]

    def _drawn(self, trajectory: TrainingRun) -> tuple[Any, Adapter]:
        """Return a run's `peft.LoraConfig` and its initial weights; runs that agree in both share them."""
        config = lora.configured(trajectory.settings)
        key = f"{trajectory.seed} {config.r} {config.lora_alpha} {config.lora_dropout} {config.target_modules}"
        if key not in self._drawings:
            if len(self._drawings) == DRAWINGS:
                self._drawings.pop(next(iter(self._drawings)))
            self._drawings[key] = config, lora.drawn(self._held.base, config, trajectory.seed)
        return self._drawings[key]

    def _fill(self) -> None:
        """Let waiting runs join, as many as there is room for, and put equal ranks side by side."""
        if not self._active:
            self._active.append(self._waiting.pop(0))
        room = max(0, self._capacity.width - len(self._active))
        joining = self._fitting()[:room]
        self._waiting = [member for member in self._waiting if member not in joining]
        self._active = sorted([*self._active, *joining], key=lambda member: member.config.r)
        self._capacity.begin()

    def _fitting(self) -> list[Member]:
        """Return the waiting runs that could train with the active ones, in order."""
        return [member for member in self._waiting if member.floor == self._active[0].floor]

    def _train(self, pack: Pack) -> Iterator[Reached]:
        """Train the active runs until another pack should be made."""
        while True:
            lost, cramped = self._until_something(pack)
            if cramped is not None:
                yield from self._split(pack, cramped)
                return
            for member, error in lost:
                yield from ((cut.key, error) for cut in member.missing)
            for member in pack.members:
                if member.cuts_here:
                    pack.settle(member)
                    yield from self._pass_cuts(member)
            gone = {member for member, _ in lost}
            self._active = [member for member in pack.members if member.missing and member not in gone]
            room = len(self._active) < self._capacity.width
            if len(self._active) < len(pack.members) or (room and self._fitting()):
                break
        for member in self._active:
            pack.settle(member)

    def _until_something(self, pack: Pack) -> tuple[list[tuple[Member, Exception]], Exception | None]:
        """Take steps until a run is at a cut or lost, or the pack should have another width.

        Returns:
            The runs that are lost, and why; and the error, if memory did not suffice.
        """
        width = self._capacity.width
        with pack.attached(), _charged(pack.members):
            while True:
                begun = time.perf_counter()
                try:
                    tokens, lost = pack.step()
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    return [], error.with_traceback(None)  # its frames hold the memory
                self._capacity.measure(len(pack.members), tokens, time.perf_counter() - begun)
                if lost or any(member.cuts_here for member in pack.members):
                    return [(pack.members[place], error) for place, error in lost.items()], None
                self._save_some(pack)
                if self._capacity.width != width:
                    return [], None

    def _split(self, pack: Pack, error: Exception) -> Iterator[Reached]:
        """Go on with half of the runs after memory did not suffice; one that does not fit alone has failed."""
        for member in pack.members:
            pack.settle(member)
        self._active = []
        if len(pack.members) == 1:
            yield from ((cut.key, error) for cut in pack.members[0].missing)
            return
        self._waiting = [*pack.members, *self._waiting]
        self._capacity.too_wide(len(pack.members))
        if self._context.device != "cpu":
            torch.cuda.empty_cache()

    def _save_some(self, pack: Pack) -> None:
        """Save the states of the runs that have ended an epoch, now and then."""
        for member in pack.members:
            if member.at_epoch and time.monotonic() >= member.quiet_until:
                pack.settle(member)
                self._save(member)

    def _save(self, member: Member) -> None:
        begun = time.monotonic()
        state.save(member)
        ended = time.monotonic()
        pause = max(SAVE_AT_MOST_EVERY, (ended - begun) * max(1, len(self._active)) / SAVING_SHARE)
        member.quiet_until = ended + pause

    def _pass_cuts(self, member: Member) -> Iterator[Reached]:
        """Write a run's weights at the cuts that it is at, and its state when it is due, or is to be kept at the end."""
        with _charged([member]):
            reached = member.cuts_here
            passed = list(member.passed)
            for cut in reached:
                lora.save(member.adapter, member.config, cut.folder)
                member.passed.append(cut.key)
            wanted = member.run.keep_state or member.missing
            if reached and wanted and (not member.missing or time.monotonic() >= member.quiet_until):
                self._save(member)
        for cut in reached:
            yield cut.key, Tuned(tuple(member.steps), member.settle_up(), passed[-1] if passed else None)
            passed.append(cut.key)


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
