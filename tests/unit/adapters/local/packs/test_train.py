"""What becomes of packs when something is in short supply, and of models that cannot be packed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.conversation import ChatRow
from engine.domain.sweep import Length
from engine.ports import Checkpoint, Context, Fit, NoSettings, TrainingRun, Tuned
from engine.run.executors.workers import WarmSlots

pytestmark = pytest.mark.slow


class Bench:
    """Trains runs on the stand-in, on a warm worker."""

    def __init__(self, folder: Path, context: Context) -> None:
        from adapters.local.loaded import loaded

        self.folder = folder
        self.model = registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings())
        self.rows = registry.adapter(Kind.DATA, "standin/explicit").rows(NoSettings())
        self.context = context
        self.held = loaded(self.model, "float32", self.context)

    def train(self, *runs: TrainingRun) -> dict[str, Tuned | Exception]:
        from adapters.local.packs import train

        return dict(train.Training(self.held, self.context).run(runs))

    def run(self, name: str, rows: list[ChatRow], epochs: int = 2, **settings: Any) -> TrainingRun:
        folder = self.folder / name
        folder.mkdir()
        sft = registry.settings_of(Kind.TUNER, "local/sft")(**({"lr": 2e-3, "batch_size": 4} | settings))
        checkpoint = Checkpoint(name, Length(epochs), folder)
        state = self.folder / f"state of {name}"
        return TrainingRun(self.model, rows, sft, 0, (checkpoint,), state, keep_state=True)

    def several(self, prefix: str, many: int, **settings: Any) -> list[TrainingRun]:
        runs = [(f"{prefix}{number}", list(self.rows[number : number + 9])) for number in range(many)]
        return [self.run(name, rows, **settings) for name, rows in runs]

    def weights(self, name: str) -> bytes:
        return (self.folder / name / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def context() -> Context:
    return Context("cpu", 1, 64, WarmSlots())


@pytest.fixture
def bench(tmp_path: Path, context: Context) -> Iterator[Bench]:
    import torch

    yield Bench(tmp_path, context)
    torch.set_flush_denormal(False)  # workers set it, and other tests of this process draw denormals


def test_a_pack_that_does_not_fit_halves_and_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters.local.packs import room
    from adapters.local.packs.pack import Pack

    monkeypatch.setitem(room.TOGETHER, "cpu", 10**6)
    plain = bench.several("plain", 5, dropout=0.1)
    roomy = bench.train(*plain)
    taken, gradients = [], Pack.gradients

    def cramped(pack: Pack, *told: Any) -> list[float]:
        losses = gradients(pack, *told)  # the random numbers have been drawn when memory ends
        taken.append(len(pack.members))
        if len(taken) > 2 and len(pack.members) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return losses

    monkeypatch.setattr(Pack, "gradients", cramped)
    made = bench.train(*bench.several("cramped", 5, dropout=0.1))
    assert taken[:5] == [5, 5, 5, 2, 1]
    for number in range(5):
        one, other = made[f"cramped{number}"], roomy[f"plain{number}"]
        assert isinstance(one, Tuned)
        assert isinstance(other, Tuned)
        assert [step.loss for step in one.steps] == pytest.approx([step.loss for step in other.steps], abs=1e-5)


def test_a_run_that_does_not_fit_alone_has_failed_and_other_errors_are_not_taken_for_that(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapters.local.packs.pack import Pack

    def fail(error: Exception) -> None:
        def gradients(*_: object) -> list[float]:
            raise error

        monkeypatch.setattr(Pack, "gradients", gradients)

    fail(MemoryError())
    made = bench.train(*bench.several("cramped", 3))
    assert [type(error) for error in made.values()] == [MemoryError] * 3
    fail(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        bench.train(*bench.several("buggy", 3))


def test_on_a_cpu_nobody_s_company_moves_a_bit(bench: Bench) -> None:
    question, answer = bench.rows[0].turns
    longer = [ChatRow.exchange(f"{times}", " ".join([question.text] * times), answer.text) for times in (1, 2, 7, 12)]
    lots = {"short": longer[:2], "long": longer[1:3], "longest": longer[2:]}
    together = bench.train(*(bench.run(name, rows, dropout=0.1) for name, rows in lots.items()))
    for name, rows in lots.items():
        (alone,) = bench.train(bench.run(f"{name} alone", rows, dropout=0.1)).values()
        assert isinstance(alone, Tuned), alone
        assert bench.weights(name) == bench.weights(f"{name} alone")
        assert together[name].steps == alone.steps  # type: ignore[union-attr]


def test_a_pack_is_as_wide_as_its_tokens_allow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters.local.packs import room, train
    from adapters.local.packs.pack import Pack

    question, answer = bench.rows[0].turns
    longer = [ChatRow.exchange(f"{number}", " ".join([question.text] * 4), answer.text) for number in range(5)]
    runs = [
        bench.run(f"{kind}{number}", rows, epochs=epochs)
        for number, epochs in enumerate((1, 3, 2, 3))
        for kind, rows in (("short", list(bench.rows[:5])), ("long", longer))
    ]
    packs: list[list[int]] = []

    def noted(held: Any, members: Any, passes: Any) -> Any:
        packs.append([member.rows.ids.shape[1] for member in members])
        return Pack(held, members, passes)

    monkeypatch.setattr(train, "Pack", noted)
    monkeypatch.setitem(room.TOGETHER, "cpu", 700)
    assert all(isinstance(tuned, Tuned) for tuned in bench.train(*runs).values())
    rows, wide, narrow = 4, max(packs[0]), min(packs[-1])
    assert wide > narrow, "runs of like rows are neighbours"
    assert all(len(pack) == 1 or len(pack) * rows * max(pack) <= 700 for pack in packs)
    assert len(packs[0]) == min(4, 700 // (rows * wide)), "as many of the long ones as fit"


def test_the_shares_of_the_time_add_up(bench: Bench) -> None:
    import time

    bench.train(*bench.several("before", 1, epochs=1))  # what a worker does once is not theirs
    begun = time.perf_counter()
    made = bench.train(*bench.several("short", 3, epochs=1), *bench.several("long", 3, epochs=10))
    wall = time.perf_counter() - begun
    shares = {name: tuned.usage.device_seconds for name, tuned in made.items() if isinstance(tuned, Tuned)}
    assert sum(shares.values()) == pytest.approx(wall, rel=0.1)
    assert min(shares[f"long{number}"] for number in range(3)) > max(shares[f"short{number}"] for number in range(3))


def test_a_damaged_state_is_left_alone(bench: Bench) -> None:
    (run,) = bench.several("run", 1)
    (whole,) = bench.train(run).values()
    weights = bench.weights("run0")
    path = run.state / "pack.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    (again,) = bench.train(run).values()
    assert isinstance(whole, Tuned)
    assert isinstance(again, Tuned)
    assert again.usage.optimizer_steps == whole.usage.optimizer_steps > 0
    assert bench.weights("run0") == weights


def test_a_run_goes_on_though_some_modules_were_never_reached(bench: Bench) -> None:
    import torch

    bench.held.base.model.unused = torch.nn.Linear(8, 8)  # as the vision tower of a model that reads texts alone
    (run,) = bench.several("run", 1, epochs=1)
    bench.train(run)
    longer = replace(run.checkpoints[0], key="longer", length=Length(2))
    (made,) = bench.train(replace(run, checkpoints=(longer,))).values()
    del bench.held.base.model.unused
    assert isinstance(made, Tuned), made
    assert made.after == "run0"


def test_a_model_with_dropout_of_its_own_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.held.base.config, "attention_dropout", 0.1)
    with pytest.raises(ValueError, match=r"attention_dropout.*backend: trl"):
        bench.train(*bench.several("run", 1))


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT on embeddings
def test_targets_that_are_not_linear_are_refused(bench: Bench) -> None:
    (error,) = bench.train(bench.run("run", list(bench.rows[:4]), targets=("embed_tokens",))).values()
    assert isinstance(error, ValueError)
    assert "backend: trl" in str(error)
    (fine,) = bench.train(*bench.several("next", 1)).values()
    assert isinstance(fine, Tuned)


def test_a_run_with_dropout_is_in_no_pack_that_computes_activations_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would draw other masks the second time, for gradients of another model than that of its loss."""
    from adapters.local.packs import room, train
    from adapters.local.packs.pack import Pack
    from adapters.local.packs.passes import Passes

    monkeypatch.setitem(room.TOGETHER, "cpu", 10**6)
    packs: list[tuple[set[float], bool]] = []

    def noted(held: Any, members: Any, passes: Any) -> Any:
        packs.append(({member.settings.dropout for member in members}, passes.is_checkpointed))
        if members[0].settings.dropout:
            with pytest.raises(ValueError, match="with dropout"):
                Pack(held, members, Passes(1, is_checkpointed=True))
        return Pack(held, members, passes)

    wet = [replace(run, fit=Fit(rows=1)) for run in bench.several("wet", 2, epochs=1, dropout=0.1)]
    dry = [replace(run, fit=Fit(rows=1, is_checkpointed=True)) for run in bench.several("dry", 2, epochs=1)]
    monkeypatch.setattr(train, "Pack", noted)
    made = bench.train(wet[0], dry[0], wet[1], dry[1])
    assert all(isinstance(tuned, Tuned) for tuned in made.values()), made
    assert sorted(packs, key=str) == [({0.0}, True), ({0.1}, False)]
    tuner = registry.adapter(Kind.TUNER, "local/sft")
    one, other = (tuner.sharing(run.settings).pack for run in (wet[0], dry[0]))
    assert one != other


def test_a_pack_on_a_gpu_is_as_wide_as_planned_memory_allows_and_then_as_measured(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the readings of the GPU are made up: none is at hand."""
    import torch

    from adapters.local.packs import room, train
    from adapters.local.packs.pack import Pack

    (plain,) = bench.several("wide", 1)
    training = train.Training(bench.held, bench.context)
    members = [training._member(plain) for _ in range(4)]  # noqa: SLF001 - what the trainer makes of a run
    rows, length = members[0].batch_shape
    fit = Fit((("weights", 9), ("activations", 800 * length), ("logits", 200 * length)), rows=2)
    read: dict[str, int] = {
        "mem_get_info": 10_000 * length,
        "max_memory_allocated": 400 * length,
        "memory_allocated": 0,
    }
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (read["mem_get_info"], 0))
    for name in ("max_memory_allocated", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _, name=name: read[name])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: read.update(max_memory_allocated=40 * length))
    found = room.Room(bench.held.base, replace(bench.context, device="cuda:0"))
    for member in members:
        member.run = replace(plain, fit=fit)
    assert rows > fit.rows, "what goes through at once counts, and not the batch"
    assert [found.has_room(members[:many]) for many in (1, 4)] == [True, True]
    read["mem_get_info"] = 2_500 * length
    tight = room.Room(bench.held.base, replace(bench.context, device="cuda:0"))
    assert [tight.has_room(members[:many]) for many in (2, 3)] == [True, False]
    tight.measure()  # what reading the model took is none of a pass's
    tight.measured(Pack(bench.held, members[:1], tight.passes(members[:1])))
    assert tight.has_room(members)
