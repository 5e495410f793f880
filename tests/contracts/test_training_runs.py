"""When a longer training run passes through a shorter one, bit for bit, and when it does not; and going on from a state.

Every case compares weights on disk by their hash. TRL trains one run at a time, packs train many: both keep the promise.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.sweep import Length
from engine.ports import Checkpoint, Context, Fit, NoSettings, StoppedError, TrainingRun, Tuned
from engine.run.executors.workers import WarmSlots

pytestmark = pytest.mark.slow

Steps = dict[str, int]
BACKENDS = ("trl", "packed")
ROWS = 13  # batches of 10 and 3; of 4, 4, 4 and 1, in groups of 3 and 1
FULL = "all weights"  # which TRL trains, whatever the backend
EXACT: Mapping[str, dict[str, Any]] = {
    "constant": {},
    "dropout, ragged accumulation, absolute warm-up": {
        "batch_size": 4,
        "grad_accum": 3,
        "dropout": 0.1,
        "warmup_steps": 4,
    },
    "a rate that falls after each epoch, the last batch left out": {
        "schedule": "step",
        "drop_last": True,
        "batch_size": 6,
    },
    FULL: {"method": "full", "lr": 1e-3, "precision": "mixed"},
}
LENGTHS: tuple[Steps, ...] = ({"epochs": 2, "max_steps": 3}, {"epochs": 3})  # 3 and 6 steps: one within an epoch


class Stops:
    """A pulse that stops a worker once so much of a stage is done.

    Attributes:
        beats: What it was told: (key, done, of).
    """

    def __init__(self, at: float) -> None:
        self._at, self._is_stopping = at, False
        self.beats: list[tuple[str, float, float]] = []

    @property
    def told(self) -> list[float]:
        return [done for _, done, _ in self.beats]

    def beat(self, key: str, done: float, of: float) -> None:
        self.beats.append((key, done, of))
        self._is_stopping |= done >= self._at
        if self._is_stopping:
            raise StoppedError


class Bench:
    """Trains runs on the stand-in, on one warm worker."""

    def __init__(self, folder: Path) -> None:
        self.tuner = registry.adapter(Kind.TUNER, "local/sft")
        self.model = registry.adapter(Kind.MODEL, "standin/aligned").locate(NoSettings())
        self.rows = registry.adapter(Kind.DATA, "standin/explicit").rows(NoSettings())[:ROWS]
        self.context = Context("cpu", 1, 64, WarmSlots())
        self._fresh = (folder / str(number) for number in count())
        self._alone: dict[str, tuple[str, Tuned]] = {}

    def folder(self) -> Path:
        return next(self._fresh)

    def run(self, *lengths: Steps, state: Path | None = None, **settings: Any) -> TrainingRun:
        checkpoints = []
        for length in lengths:
            folder = self.folder()
            folder.mkdir()
            key = "-".join(f"{name}{value}" for name, value in length.items())
            checkpoints.append(Checkpoint(key, Length(**length), folder))
        place = state or self.folder()
        return TrainingRun(
            self.model, self.rows, sft(**settings), 0, tuple(checkpoints), place, keep_state=state is not None
        )

    def tune(self, *lengths: Steps, state: Path | None = None, **settings: Any) -> list[tuple[str, Tuned]]:
        """Return the hash of the weights at every checkpoint, and what is said of them."""
        run = self.run(*lengths, state=state, **settings)
        made = dict(self.tuner.fine_tune([run], self.context))
        for tuned in made.values():
            if isinstance(tuned, Exception):
                raise tuned
        assert list(made) == [checkpoint.key for checkpoint in run.checkpoints]
        return [(weights(checkpoint.folder), made[checkpoint.key]) for checkpoint in run.checkpoints]

    def alone(self, length: Steps, **settings: Any) -> tuple[str, Tuned]:
        """Return the same of a run of its own that nothing disturbs."""
        key = f"{length} {settings}"
        if key not in self._alone:
            (self._alone[key],) = self.tune(length, **settings)
        return self._alone[key]

    @contextmanager
    def power_cut(self, backend: str, after_steps: int) -> Iterator[None]:
        """Let an optimizer step fail."""
        import torch

        from adapters.local.packs.member import Member

        owner, name = (torch.optim.AdamW, "step") if backend == "trl" else (Member, "update")
        whole, steps = getattr(owner, name), count()

        def step(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == after_steps:
                message = "power cut"
                raise RuntimeError(message)
            return whole(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, step)
            yield


def weights(folder: Path) -> str:
    files = sorted(folder.rglob("*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    import torch

    yield Bench(tmp_path_factory.mktemp("bench"))
    torch.set_flush_denormal(False)  # workers set it, and other tests of this process draw denormals


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sft(**settings: Any) -> Any:
    return registry.settings_of(Kind.TUNER, "local/sft")(**({"lr": 2e-3} | settings))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have states saved at the end of every epoch, however short."""
    from adapters.local import states

    monkeypatch.setattr(states, "SAVE_AT_MOST_EVERY", 0.0)
    monkeypatch.setattr(states, "SAVING_SHARE", 1e9)


@pytest.mark.parametrize(
    ("backend", "case", "done"),
    [
        *product(BACKENDS, list(EXACT)[1:2], (1, 3)),
        ("trl", FULL, 3),
        ("trl", "constant", 6),
    ],
)
def test_a_run_that_is_to_stop_keeps_its_last_step_and_goes_on_from_there(
    bench: Bench, backend: str, case: str, done: int
) -> None:
    """Within an epoch, at the end of one, and at the very end."""
    settings, state = {"backend": backend} | EXACT[case], bench.folder()
    pulse, run = Stops(done), bench.run({"epochs": 3}, state=state, **settings)
    ((_, stopped),) = bench.tuner.fine_tune([run], replace(bench.context, pulse=pulse))
    assert isinstance(stopped, StoppedError)
    assert pulse.told == sorted(pulse.told)
    assert pulse.told[-1] == done
    pulse, run = Stops(7), bench.run({"epochs": 3}, state=state, **settings)
    ((_, made),) = bench.tuner.fine_tune([run], replace(bench.context, pulse=pulse))
    assert isinstance(made, Tuned), made
    assert [step for step in pulse.told if step < done] in ([], [0]), "no step is taken again"
    wanted, undisturbed = bench.alone({"epochs": 3}, **settings)
    assert weights(run.checkpoints[0].folder) == wanted
    assert (made.steps, made.usage.optimizer_steps) == (undisturbed.steps, 6)


@pytest.mark.parametrize(("patience", "kept"), [(5.0, 2), (0.0, 1)])
def test_a_run_that_is_to_stop_within_a_step_ends_it_if_it_is_short(
    bench: Bench, patience: float, kept: int, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second step has three parts. One that is cut off does not count, and the state before it is there."""
    from adapters.local import solo

    del often
    monkeypatch.setattr(solo, "PATIENCE", patience)

    def tune(state: Path, pulse: Stops) -> tuple[str, Tuned | Exception]:
        run = replace(bench.run({"epochs": 2}, state=state, backend="trl", dropout=0.1), fit=Fit(rows=1))
        ((_, made),) = bench.tuner.fine_tune([run], replace(bench.context, pulse=pulse))
        return weights(run.checkpoints[0].folder), made

    pulse, state = Stops(1.5), bench.folder()
    assert isinstance(tune(state, pulse)[1], StoppedError)
    assert pulse.told[-1] == pytest.approx(1 + 2 / 3 if patience == 0 else 2)
    assert [path.name for path in state.glob("at-*")] == [f"at-{kept}"]
    again = Stops(9)
    found, made = tune(state, again)
    assert isinstance(made, Tuned), made
    assert [step for step in again.told if step < kept] in ([], [0]), "no step is taken again"
    assert found == tune(bench.folder(), Stops(9))[0]


def test_two_processes_take_the_steps_of_one_and_stop_together(bench: Bench) -> None:
    """As full tuning over two GPUs does; on a CPU each process has the whole model. The last batch and group are ragged."""
    from safetensors.torch import load_file

    settings: dict[str, Any] = {"method": "full", "lr": 1e-3, "batch_size": 4, "grad_accum": 3}
    run, alone = bench.run({"epochs": 2}, {"epochs": 5}, **settings), bench.run({"epochs": 2}, **settings)
    pulse = Stops(5)  # steps after the first checkpoint, which has four
    made = dict(bench.tuner.fine_tune([run], replace(bench.context, devices=2, pulse=pulse)))
    assert isinstance(made["epochs5"], StoppedError), made
    assert len(list(run.state.glob("at-9"))) == 1
    ((_, wanted),) = bench.tuner.fine_tune([alone], bench.context)
    assert made["epochs2"].usage.train_tokens == wanted.usage.train_tokens
    losses = [[step.loss for step in tuned.steps] for tuned in (made["epochs2"], wanted)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    found, same = (load_file(one.checkpoints[0].folder / "model.safetensors") for one in (run, alone))
    assert found.keys() == same.keys()
    assert max((found[name] - same[name]).abs().max().item() for name in same) < 1e-5


def test_moments_of_eight_bits_train_as_those_of_thirty_two_do_but_for_rounding(bench: Bench) -> None:
    settings: dict[str, Any] = {"method": "full", "lr": 1e-3}
    (_, eight), (_, whole) = (
        bench.alone({"epochs": 2}, **settings, optimizer=name) for name in ("adamw_8bit", "adamw")
    )
    losses = [[step.loss for step in made.steps] for made in (eight, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]
    assert losses[0][-1] < losses[0][0]


def test_what_was_to_stop_begins_no_other_run_and_goes_on_from_a_checkpoint(bench: Bench) -> None:
    settings: dict[str, Any] = {"backend": "trl", "dropout": 0.1}
    state, pulse = bench.folder(), Stops(3)
    runs = [
        bench.run({"epochs": 1}, {"epochs": 3}, state=state, **settings),
        bench.run({"epochs": 2}, rank=4, **settings),
    ]
    made = dict(bench.tuner.fine_tune(runs, replace(bench.context, pulse=pulse)))
    assert isinstance(made["epochs1"], Tuned)
    assert isinstance(made["epochs3"], StoppedError)
    assert isinstance(made["epochs2"], StoppedError)
    assert pulse.beats[1:] == [
        *(("epochs1", step, 2) for step in (1, 2)),
        *(("epochs3", step, 4) for step in (1, 2, 3)),
        ("epochs2", 0, 1),
    ]
    ((hashed, rest),) = bench.tune({"epochs": 3}, state=state, **settings)
    assert hashed == bench.alone({"epochs": 3}, **settings)[0]
    assert (rest.after, rest.usage.optimizer_steps) == ("epochs1", 4)


@pytest.mark.parametrize(("backend", "case"), [pair for pair in product(BACKENDS, EXACT) if pair != ("packed", FULL)])
def test_a_longer_run_passes_exactly_through_the_shorter_ones(bench: Bench, backend: str, case: str) -> None:
    settings = {"backend": backend} | EXACT[case]
    together = bench.tune(*LENGTHS, **settings)
    alone = [bench.alone(length, **settings) for length in LENGTHS]
    assert [hashed for hashed, _ in together] == [hashed for hashed, _ in alone]
    assert len({hashed for hashed, _ in together}) == len(LENGTHS)
    assert [made.steps for _, made in together] == [made.steps for _, made in alone]
    assert [made.after for _, made in together] == [None, "epochs2-max_steps3"]
    assert [made.usage.optimizer_steps for _, made in together] == [3, 3]
    assert sum(made.usage.train_tokens for _, made in together) == alone[-1][1].usage.train_tokens
    assert bench.tuner.sharing(sft(**settings)).prefix_blocked == ""


def test_a_schedule_that_knows_the_end_is_not_shared_since_that_would_change_the_weights(
    bench: Bench, backend: str
) -> None:
    settings = {"backend": backend, "schedule": "linear"}
    assert bench.tuner.sharing(sft(**settings)).prefix_blocked == "schedule"
    assert bench.tuner.sharing(sft(backend=backend, schedule="cosine")).prefix_blocked == "schedule"
    prefix, whole = bench.tune({"epochs": 1}, {"epochs": 2}, **settings)
    assert prefix[0] != bench.alone({"epochs": 1}, **settings)[0]
    assert whole[0] == bench.alone({"epochs": 2}, **settings)[0]


def test_a_longer_run_goes_on_from_the_state_of_a_shorter_one(bench: Bench, backend: str) -> None:
    settings = {"backend": backend, "dropout": 0.1}
    state = bench.folder()
    ((short, _),) = bench.tune({"epochs": 1}, state=state, **settings)
    assert state.stat().st_mode & 0o077 == 0, "it is its owner's alone"
    files = [path for path in state.rglob("*") if path.is_file()]
    assert files
    assert all(path.stat().st_mode & 0o177 == 0 for path in files)
    ((found, made),) = bench.tune({"epochs": 3}, state=state, **settings)
    wanted, undisturbed = bench.alone({"epochs": 3}, **settings)
    assert found == wanted
    assert made.steps == undisturbed.steps
    assert (made.after, made.usage.optimizer_steps) == ("epochs1", 4)
    ((again, made),) = bench.tune(
        {"epochs": 3}, state=state, **settings
    )  # its record was lost: it is made from the state
    assert (again, made.after, made.usage.optimizer_steps) == (wanted, "epochs1", 4)
    assert made.steps == undisturbed.steps
    ((again, made),) = bench.tune({"epochs": 1}, state=state, **settings)  # the state is beyond it
    assert (again, made.after, made.usage.optimizer_steps) == (short, None, 2)


def test_the_state_of_another_run_is_not_gone_on_from(bench: Bench, backend: str) -> None:
    settings, state = {"backend": backend}, bench.folder()
    bench.tune({"epochs": 1}, state=state, **settings)
    others: tuple[dict[str, Any], ...] = ({"schedule": "linear"}, {"rank": 4})
    for other in others:
        aside = bench.folder()
        shutil.copytree(state, aside)
        ((_, made),) = bench.tune({"epochs": 1}, state=aside, **settings, **other)
        assert (made.after, made.usage.optimizer_steps) == (None, 2), other


def test_with_dropout_the_state_of_another_cut_of_the_batch_is_not_gone_on_from(bench: Bench, backend: str) -> None:
    """Masks are drawn for each part of a batch: they would change midway."""
    for dropout, after in ((0.1, None), (0.0, "epochs1")):
        settings, state = {"backend": backend, "dropout": dropout}, bench.folder()
        bench.tune({"epochs": 1}, state=state, **settings)
        run = bench.run({"epochs": 2}, state=state, **settings)
        ((_, made),) = bench.tuner.fine_tune([replace(run, fit=Fit(rows=4))], bench.context)
        assert isinstance(made, Tuned), made
        assert made.after == after


def test_a_linear_run_goes_on_after_a_crash_but_not_to_another_length(bench: Bench, backend: str) -> None:
    settings, state = {"backend": backend, "schedule": "linear"}, bench.folder()
    ((wanted, _),) = bench.tune({"epochs": 1}, state=state, **settings)
    ((found, made),) = bench.tune({"epochs": 1}, state=state, **settings)
    assert (found, made.usage.optimizer_steps) == (wanted, 2), "its record was lost, and what it took was taken"
    ((_, made),) = bench.tune({"epochs": 2}, state=state, **settings)
    assert (made.after, made.usage.optimizer_steps) == (None, 4)


def test_a_run_that_was_cut_off_between_checkpoints_goes_on_as_if_nothing_had_happened(
    bench: Bench, backend: str, often: None
) -> None:
    del often
    settings = {"backend": backend, "dropout": 0.1}
    wanted, undisturbed = bench.alone({"epochs": 3}, **settings)
    broken = bench.run({"epochs": 1}, {"epochs": 3}, **settings)
    with bench.power_cut(backend, after_steps=5):
        (first, _), (second, error) = bench.tuner.fine_tune([broken], bench.context)
    assert (first, second, str(error)) == ("epochs1", "epochs3", "power cut")
    assert weights(broken.checkpoints[0].folder) == bench.alone({"epochs": 1}, **settings)[0]
    with bench.power_cut(backend, after_steps=2):  # it has two steps to go
        ((found, made),) = bench.tune({"epochs": 3}, state=broken.state, **settings)
    assert found == wanted
    assert made.steps == undisturbed.steps
    assert (made.after, made.usage.optimizer_steps) == ("epochs1", 4), "all since the checkpoint that was recorded"


def test_two_names_for_one_length_are_one_checkpoint_with_two_keys(bench: Bench, backend: str) -> None:
    lengths, state = ({"epochs": 1}, {"epochs": 9, "max_steps": 2}, {"epochs": 2}), bench.folder()
    first, second, third = bench.tune(*lengths, state=state, backend=backend)
    assert first[0] == second[0] != third[0]
    assert [made.usage.optimizer_steps for _, made in (first, second, third)] == [2, 0, 2]
    assert second[1].steps == first[1].steps
    assert third[0] == bench.alone({"epochs": 2}, backend=backend)[0]


def test_a_run_that_fails_leaves_the_others_alone(bench: Bench, backend: str) -> None:
    settings = {"backend": backend}
    sound = bench.run({"epochs": 2}, **settings)
    sick = bench.run({"epochs": 1}, {"epochs": 4}, lr=0.9, weight_decay=1e30, **settings)
    unfit = bench.run({"epochs": 3}, max_length=8, **settings)
    made = dict(bench.tuner.fine_tune([sick, unfit, sound], bench.context))
    assert weights(sound.checkpoints[0].folder) == bench.alone({"epochs": 2}, **settings)[0]
    assert isinstance(made["epochs4"], FloatingPointError)
    assert "lower learning rate" in str(made["epochs4"])
    assert isinstance(made["epochs3"], ValueError)
    assert isinstance(made["epochs2"], Tuned)
