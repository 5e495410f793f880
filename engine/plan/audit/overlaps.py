"""Held-out prompts among training rows, and rows that are there twice: what the cells of a plan draw against what they ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engine.domain.adapters import Use
from engine.domain.conversation import ChatRow, Prompt, Turn
from engine.domain.plan import Plan
from engine.domain.sampling import Draw
from engine.domain.stage import SampleWork, Stage
from engine.plan.audit.texts import Known, Text, repeats, words
from engine.plan.catalogue import Catalogue

LONG_ANSWER = 20
"""Words from which on an answer that is a reference is no chance: "Paris." answers many questions."""


@dataclass(slots=True)
class Drawn:
    """What the cells of a plan draw of a source.

    Attributes:
        draws: The largest sample of each seed and way to draw, which has the smaller ones.
        benchmarks: What the cells that draw them are measured with, in order.
    """

    draws: dict[Draw, Draw] = field(default_factory=dict)
    benchmarks: dict[Use, None] = field(default_factory=dict)

    def add(self, draw: Draw) -> None:
        """Count a sample in."""
        kind = draw._replace(n=0)
        self.draws[kind] = max(draw, self.draws.get(kind, draw))

    def rows(self, source: Use, catalogue: Catalogue) -> Sequence[ChatRow]:
        """Return the rows, each once."""
        return catalogue.drawn(source, tuple(self.draws.values()))


@dataclass(frozen=True, slots=True)
class Overlap:
    """What rows of a source have of a benchmark; texts are not kept, for benchmarks may be gated.

    Attributes:
        rows: Rows that were compared.
        prompts: Prompts that they were compared with.
        equal: Ids of the rows that ask what a prompt asks, or its behavior, word for word.
        near: Ids of those that nearly do, or that have all of it in them or are all in it.
        answers: Ids of those whose answer is a reference, word for word.
        found: Ids of the prompts.
    """

    source: Use
    benchmark: Use
    rows: int
    prompts: int
    equal: tuple[str, ...]
    near: tuple[str, ...]
    answers: tuple[str, ...]
    found: tuple[str, ...]

    @property
    def every(self) -> tuple[str, ...]:
        """The ids of all these rows, each once."""
        return tuple(dict.fromkeys((*self.equal, *self.near, *self.answers)))


@dataclass(frozen=True, slots=True)
class Compared:
    """Rows against prompts, and against each other.

    Attributes:
        rows: Rows of all sources.
        prompts: Prompts of all benchmarks.
        overlaps: What they have in common, where there is anything.
        repeated: How many rows of the second source repeat one of the first, at least nearly; the two may be one.
    """

    rows: int
    prompts: int
    overlaps: tuple[Overlap, ...]
    repeated: Mapping[tuple[Use, Use], int]


def drawn(plan: Plan) -> dict[Use, Drawn]:
    """Return what the cells draw, by source: also what mitigations add, and before mitigations take anything away."""
    asked = dict.fromkeys(
        (
            tuple(key for key in cell.chain if isinstance(plan.stages[key].work, SampleWork)),
            tuple(evaluation.benchmark for evaluation in cell.evaluations),
        )
        for cell in plan.cells
    )
    found: dict[Use, Drawn] = {}
    for keys, benchmarks in asked:
        for source, draw in (one for key in keys for one in samples(plan.stages[key])):
            entry = found.setdefault(source, Drawn())
            entry.add(draw)
            entry.benchmarks.update(dict.fromkeys(benchmarks))
    return found


def samples(stage: Stage) -> Iterator[tuple[Use, Draw]]:
    """Yield what a sample stage draws, and how; nothing for stages of other kinds."""
    work = stage.work
    if isinstance(work, SampleWork):
        yield work.source.use, work.draw
        if work.mix is not None:
            yield work.mix[0].use, work.mix[1]


def compare(plan: Plan, catalogue: Catalogue) -> Compared:
    """Compare the rows that the cells draw with the prompts that they ask, and with each other."""
    sources = drawn(plan)
    held = {use: _HeldOut(catalogue.prompts(use)) for one in sources.values() for use in one.benchmarks}
    number, overlaps, asked = 0, [], []
    for source, one in sources.items():
        rows = one.rows(source, catalogue)
        number += len(rows)
        asked.append([_text(_asking(row)) for row in rows])
        matches = {use: _Match() for use in one.benchmarks}
        for row in rows:
            _look(row, matches, held)
        overlaps += [match.overlap(source, use, len(rows), held[use]) for use, match in matches.items() if match.found]
    names = tuple(sources)
    repeated = {(names[first], names[second]): count for (first, second), count in sorted(repeats(asked).items())}
    return Compared(number, sum(len(one.prompts) for one in held.values()), tuple(overlaps), repeated)


class _HeldOut:
    """The prompts of a benchmark, to look for."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.prompts = prompts
        asked = [_text(turn for turn in prompt.turns if turn.role == "user") for prompt in prompts]
        behaviors = [Text(words(prompt.behavior), text.images) for prompt, text in zip(prompts, asked, strict=True)]
        more = [place for place, behavior in enumerate(behaviors) if behavior.words and behavior != asked[place]]
        self._known = Known(asked), Known(behaviors[place] for place in more)
        self._places = range(len(prompts)), more
        self.references: dict[tuple[str, ...], list[int]] = {}
        for place, prompt in enumerate(prompts):
            for reference in dict.fromkeys(map(words, prompt.references)):
                if len(reference) >= LONG_ANSWER:
                    self.references.setdefault(reference, []).append(place)

    def equal(self, text: Text) -> set[int]:
        """Return the places of the prompts that ask the same, or whose behavior is the same."""
        return {of[place] for known, of in zip(self._known, self._places, strict=True) for place in known.equal(text)}

    def near(self, text: Text) -> set[int]:
        """Return the places of the prompts that nearly ask the same, or whose behavior is nearly the same."""
        return {of[place] for known, of in zip(self._known, self._places, strict=True) for place in known.near(text)}


@dataclass(slots=True)
class _Match:
    """What was found so far of one benchmark: ids of rows, and places of prompts."""

    equal: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    found: set[int] = field(default_factory=set)

    def overlap(self, source: Use, benchmark: Use, rows: int, held: _HeldOut) -> Overlap:
        ids = tuple(held.prompts[place].prompt_id for place in sorted(self.found))
        kept = tuple(self.equal), tuple(self.near), tuple(self.answers)
        return Overlap(source, benchmark, rows, len(held.prompts), *kept, ids)


def _look(row: ChatRow, matches: Mapping[Use, _Match], held: Mapping[Use, _HeldOut]) -> None:
    """Look for one row in every benchmark: each turn that asks, and all of them together."""
    turns = _asking(row)
    asked = [_text([turn]) for turn in turns] + ([_text(turns)] if len(turns) > 1 else [])
    answers = {words(turn.text) for turn in row.turns if turn.is_trained}
    for use, match in matches.items():
        references = held[use].references
        equal = {place for text in asked for place in held[use].equal(text)}
        near = set() if equal else {place for text in asked for place in held[use].near(text)}
        answered = {place for answer in answers for place in references.get(answer, ())} if references else set()
        for places, ids in ((equal, match.equal), (near, match.near), (answered, match.answers)):
            if places:
                ids.append(row.row_id)
                match.found |= places


def _asking(row: ChatRow) -> Sequence[Turn]:
    """Return the turns of a row in which something is asked: users'; of a plain text, all."""
    return [turn for turn in row.turns if turn.role == "user"] or row.turns


def _text(turns: Iterable[Turn]) -> Text:
    together = tuple(turns)
    images = frozenset(image.sha256 for turn in together for image in turn.images)
    return Text(words("\n".join(turn.text for turn in together)), images)
