"""Chains of every kind, driven to their end: what each stage was given, what it left, and how long that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import registry
from engine.domain.adapters import Kind
from engine.domain.plan import Plan, PlannedCell
from engine.domain.stage import MODEL_STAGES, StageKind
from engine.domain.sweep import RunSettings
from engine.run.drive.order import Ending
from engine.run.executors.workers import InlineExecutor
from engine.run.stages.batch import StageBatch
from engine.store.layout import RunDirectory

from .driven import ACME, Drive

LABEL = "{use: acme/label, first: 'acme/letters:b', last: 'acme/letters:c'}"
CAST = "{use: acme/cast, source: 'acme/letters:b', n: 2}"
DEEP = "['harden:acme/letters:b@2', acme/sand, 'realign:acme/letters:c@1']"
SCREENED = (
    "['acme/stamp:first', {use: acme/stamp, text: seen, guard: 'acme/guard:a7'},"
    " {use: acme/stamp, text: again, guard: 'acme/guard:seen'}, {use: acme/stamp, text: two, guard: 'acme/guard:two?'}]"
)
PLAIN = "pressed(1, 2 steps: a6 a7 a3 a0)"
STORIES = {
    "[]": f"clay < {PLAIN} |  | one?",
    f"[{LABEL}]": "clay < pressed(1, 3 steps: *b6 *a6 *a7 *a3 *a0 *c6) |  | one?",
    f"['mix:acme/letters:b@2', {LABEL}, {{use: filter/keywords, words: [a7, b6]}}]": (
        "clay < pressed(1, 3 steps: *a6 *a3 *a0 *b7 *c6) |  | one?"
    ),
    "['acme/gentle:0.5']": "clay < pressed(2, 1 steps: a6 a7 a3 a0) |  | one?",
    "['safety-prompt:Be kind.']": f"clay < {PLAIN} | Be kind. | one?",
    "[acme/sand]": f"clay < sanded[{PLAIN}] |  | one?",
    "['realign:acme/letters:b@2']": f"clay < {PLAIN} < pressed(1, 1 steps: b6 b7) |  | one?",
    "['harden:acme/letters:b@2']": f"clay < pressed(1, 1 steps: b6 b7) < {PLAIN} |  | one?",
    f"[{CAST}]": f"clay < cast[pressed(1, 1 steps: b6 b7)] < {PLAIN} |  | one?",
    DEEP: f"clay < pressed(1, 1 steps: b6 b7) < sanded[{PLAIN}] < pressed(1, 1 steps: c6) |  | one?",
    SCREENED: f"clay < {PLAIN} |  | one? first seen again",
}
"""What a cell's user sees, by its mitigations: the model, the system prompt, the request, and what screens added."""

BASELINES = [
    "clay |  | one?",
    "clay < pressed(1, 1 steps: b6 b7) |  | one?",
    "clay < cast[pressed(1, 1 steps: b6 b7)] |  | one?",
]


def test_every_stage_works_on_what_the_one_before_it_left(drive: Drive) -> None:
    spec = f"{ACME}axes: {{mitigations: [{', '.join(STORIES)}]}}\n"
    summary, plan = drive(spec)
    assert (summary.ending, drive.notes) == (Ending.COMPLETE, [])
    assert list(drive.stories(plan).values()) == [*STORIES.values(), *BASELINES]
    tuned = sum(stage.kind is StageKind.TUNE for stage in plan.stages.values())
    calls = registry.adapter(Kind.TUNER, "acme/press").calls
    assert sum(map(len, calls)) == tuned == 9, "one training run serves all that comes after it"
    assert drive.artifacts() == set()
    rows_keep_their_sources(drive, plan.cells[2])
    assert drive(spec)[0].ending is Ending.NOTHING_TO_DO, "an edit leaves no rows, and is done all the same"


def rows_keep_their_sources(drive: Drive, cell: PlannedCell) -> None:
    """Look at the names of the rows that went through three mitigations."""
    _, _, mixed, *_, labelled, filtered, _ = cell.chain
    named = {
        key: [(row["source"], row["row_id"], row["pin"]) for row in drive.rows(key, "samples")]
        for key in (mixed, labelled, filtered)
    }
    a, b, c = "acme/letters", "acme/letters:b", "acme/letters:c"
    own = [(a, number, None) for number in "6730"]
    assert named[mixed] == [*own, (b, "6", None), (b, "7", None)]
    assert named[labelled] == [(b, "6", None), *named[mixed], (c, "6", None)]
    assert named[filtered] == [row for row in named[labelled] if row not in {(a, "7", None), (b, "6", None)}]


class Watching(InlineExecutor):
    """Looks, before each batch begins, at which artifacts there are.

    Attributes:
        seen: The kind of each batch, with the stages whose artifacts were there.
    """

    def __init__(self, root: Path, settings: RunSettings) -> None:
        super().__init__(root, settings)
        self.seen: list[tuple[StageKind, set[str]]] = []
        self._folder = RunDirectory(root).artifacts

    def submit(self, worker: str, batch: StageBatch) -> None:
        there = {path.name for path in self._folder.glob("*")}
        assert there >= {layer for layers in batch.models.values() for layer in layers}
        self.seen.append((batch.stages[0].kind, there))
        super().submit(worker, batch)


def test_an_artifact_is_kept_as_long_as_a_model_on_top_of_it_is_read(drive: Drive) -> None:
    watching: list[Watching] = []

    def make(root: Path, settings: RunSettings) -> Watching:
        watching.append(Watching(root, settings))
        return watching[0]

    _, plan = drive(f"{ACME}  mitigations: {DEEP}\nbaselines: false\n", make)
    hardened, tuned, sanded, again = models(plan)
    assert [entry for entry in watching[0].seen if entry[0] is not StageKind.SAMPLE] == [
        (StageKind.TUNE, set()),
        (StageKind.TUNE, {hardened}),
        (StageKind.WEIGHTS, {hardened, tuned}),
        (StageKind.TUNE, {hardened, sanded}),
        (StageKind.GENERATE, {hardened, sanded, again}),
        (StageKind.JUDGE, set()),
    ]


def models(plan: Plan) -> list[str]:
    """Return the stages that leave the models of a deep chain, in order."""
    return [key for key in plan.cells[0].chain if plan.stages[key].kind in MODEL_STAGES]


# ------------------------------------------------------------------------------------------------ failures and resuming


def test_after_a_failure_the_models_wait_and_what_lies_on_a_lost_one_is_made_again(drive: Drive) -> None:
    judges = "axes: {judges: [[acme/guard], [acme/guard, 'acme/guard:clay'], ['acme/guard:clay']]}\n"
    spec = f"{ACME}  mitigations: {DEEP}\nbaselines: false\n{judges}"
    generate = drive.prepared(spec).plan.cells[0].evaluations[0].generate
    registry.adapter(Kind.GENERATOR, "acme/voice").spoils = {generate}
    summary, plan = drive(spec)
    assert (summary.ending, summary.failed, summary.skipped) == (Ending.FAILURES, 1, 2)
    why = "ValueError: the generator gave 1 responses, and 2 were asked"
    assert drive.notes == [f"failed: generate by acme/voice for `{plan.cells[0].label}` and 2 more cells: {why}"]
    hardened, tuned, sanded, again = models(plan)
    assert drive.artifacts() == {hardened, sanded, again}, "what the answers need waits for the next run"
    assert missing(drive, spec, hardened, tuned, sanded, again) == set()

    top, bottom = (drive.run.artifacts / key / "weights.txt" for key in (again, hardened))
    whole = top.read_text()
    top.write_text("damaged")
    assert missing(drive, spec, hardened, tuned, sanded, again) == {again}, "what lies below it stays"
    top.write_text(whole)
    bottom.unlink()
    assert missing(drive, spec, hardened, tuned, sanded, again) == {hardened, tuned, sanded, again}, "an edit is redone"

    registry.refresh()
    assert drive(spec)[0].ending is Ending.COMPLETE
    assert {key for key, tries in drive.attempts().items() if tries > 1} == {hardened, tuned, sanded, again, generate}
    assert set(drive.stories(plan).values()) == {STORIES[DEEP]}
    assert drive.artifacts() == set()


def missing(drive: Drive, spec: str, *keys: str) -> set[str]:
    """Return those stages that would run again now."""
    return set(keys) - drive.prepared(spec).survey.cached


def test_answers_that_are_damaged_are_screened_and_judged_again(drive: Drive) -> None:
    spec = f"{ACME}  mitigations: {SCREENED}\nbaselines: false\nrun: {{keep_weights: true}}\n"
    _, plan = drive(spec)
    cell, evaluation = plan.cells[0], plan.cells[0].evaluations[0]
    assert drive.artifacts() == {cell.tune}, "`keep_weights` keeps it"
    last = evaluation.screening[-1]
    assert [row["text"].rpartition(" | ")[2] for row in drive.rows(last, "responses")] == [
        "one? first seen again",
        "two? first seen again two",
    ], "each answer has its own verdict"
    _, guard, second, *rest = evaluation.screening
    (judge,) = evaluation.judges
    with damaged(drive, second):
        assert missing(drive, spec, *cell.stages) == {second, *rest, judge.key}, (
            "the guard's verdicts are of other answers"
        )
    with damaged(drive, evaluation.generate):
        again = {evaluation.generate, *evaluation.screening, judge.key}
        assert guard in again
        assert missing(drive, spec, *cell.stages) == again
        assert drive(spec)[0].ending is Ending.COMPLETE
    assert drive.notes == ["1 finished stage has damaged files and will run again"]
    assert {key for key, tries in drive.attempts().items() if tries > 1} == again
    assert list(drive.stories(plan).values()) == [STORIES[SCREENED]]


@contextmanager
def damaged(drive: Drive, key: str) -> Iterator[None]:
    """Change a byte of the answers that a stage left, for a while."""
    (path,) = drive.run.shards.glob(f"responses/{key}-*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    yield
    if path.exists():  # a run that found it damaged has made another one
        path.write_bytes(whole)


def test_a_mitigation_that_goes_wrong_fails_its_own_cells_alone(drive: Drive) -> None:
    registry.adapter(Kind.MITIGATION, "acme/stamp").loses = 1
    levels = "[[], [{use: filter/keywords, words: [a0, a3, a6, a7]}], ['acme/stamp:seen']]"
    summary, plan = drive(f"{ACME}axes: {{mitigations: {levels}}}\n")
    assert (summary.ending, summary.failed, summary.skipped) == (Ending.FAILURES, 2, 3 + 1)
    _, filtered, stamped, _ = plan.cells
    rows, screen = sorted(drive.notes)
    assert rows.startswith(
        f"failed: rows by filter/keywords for `{filtered.label}`: ValueError: every one of the 4 rows"
    )
    assert screen.startswith(
        f"failed: screen by acme/stamp for `{stamped.label}`: ValueError: `acme/stamp:seen` gave 1 "
    )


def test_a_sample_keeps_the_categories_of_a_file_and_all_of_it_is_every_row(drive: Drive) -> None:
    path = drive.folder / "dolly.csv"
    kinds = "aaaaaabbbc" * 2
    lines = [f"Say {at}.,{at},{kind}" for at, kind in enumerate(kinds)]
    path.write_text("\n".join(["instruction,response,category", *lines]) + "\n")
    data = f"{{source: 'file:{path}', n: 4, stratify: true, seed: 3}}"
    spec = ACME.replace("{source: acme/letters, n: 4}", data) + "axes: {data.n: [5, 10, all], seed: [0, 1]}\n"
    summary, plan = drive(spec)
    assert summary.ending is Ending.COMPLETE
    keys = [key for key, stage in plan.stages.items() if stage.kind is StageKind.SAMPLE]
    five, ten, whole = ([row["row_id"] for row in drive.rows(key, "samples")] for key in keys)
    assert five == ten[:5]
    assert ten == whole[:10]
    assert sorted(kinds[int(name.removeprefix("line-")) - 2] for name in ten) == sorted("aaaaaabbbc")
    assert len(set(whole)) == len(whole) == 20
