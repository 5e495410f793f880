"""How wrong judges are, from replies that people labelled: what `dosimeter judge-bench` says."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.estimates.agreement import alpha, kappa
from analysis.estimates.shares import Codes, Estimate, Flags, equal, share
from engine.domain.errors import DosimeterError

Labels = NDArray[np.str_]

MOST_ROWS = 1_000_000
SURE = 0.05
"""From which p-value on a difference is not told from chance."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a bench is of.

    Attributes:
        human: Column of the labels of people, which count as true.
        judges: Columns of the judges' labels.
        positive: Labels that count as positive, such as full compliance; their share is what a judge is to measure.
        by: Columns whose values are told apart, such as whose replies they are.
        cluster: Column of the prompt; empty where every row is of its own.
        ordered: All labels from the least to the most, where they are a scale; empty where they are not.
    """

    human: str
    judges: tuple[str, ...]
    positive: frozenset[str]
    by: tuple[str, ...] = ()
    cluster: str = ""
    ordered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One judge on the replies of one group.

    Attributes:
        judge: The judge.
        group: Values of the columns that are told apart, by column; empty for all replies.
        missed: Positive replies that the judge did not call so, unread ones among them.
        positives: Replies that people call positive.
        cleared: Other replies that the judge called positive.
        negatives: Those others.
        unread: Verdicts that are no label that people use, such as a judge's own refusal.
        sensitivity: Share of positive replies that the judge calls so, of those that it gave a label.
        specificity: The same of the others.
    """

    judge: str
    group: Mapping[str, str]
    missed: int
    positives: int
    cleared: int
    negatives: int
    unread: int
    sensitivity: Estimate
    specificity: Estimate


@dataclass(frozen=True, slots=True)
class Transfer:
    """Whether a judge errs alike in groups.

    Attributes:
        judge: The judge.
        column: Whose values are compared.
        what: `sensitivity` or `specificity`.
        p: p-value of the hypothesis that it is the same in all; None where it cannot be told.
        lowest, highest: Values of the column with the lowest and the highest share, and that share.
    """

    judge: str
    column: str
    what: str
    p: float | None
    lowest: tuple[str, Estimate]
    highest: tuple[str, Estimate]

    @property
    def sentence(self) -> str:
        """What it says, in a sentence."""
        if self.p is None:
            return f"Whether the {self.what} of {self.judge} is the same for every {self.column} cannot be told from these replies."
        if self.p >= SURE:
            return f"These replies do not show that the {self.what} of {self.judge} depends on {self.column} (p {self.p:.2g})."
        (low, least), (high, most) = self.lowest, self.highest
        return (
            f"The {self.what} of {self.judge} does not carry over from {self.column} = {high} to {self.column} = {low}:"
            f" {_percent(most)} against {_percent(least)} (p {_p(self.p)})."
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two agree on the replies that both gave a label: Cohen's kappa and Krippendorff's alpha."""

    first: str
    second: str
    kappa: Estimate
    alpha: Estimate


@dataclass(frozen=True, slots=True)
class Bench:
    """What was found: judges in groups, whether they err alike in them, and who agrees with whom."""

    replies: int
    rows: tuple[Row, ...]
    transfers: tuple[Transfer, ...]
    agreements: tuple[Agreement, ...]


def bench(columns: Mapping[str, Labels], asked: Asked) -> Bench:
    """Compare judges with people.

    Args:
        columns: Labels by column, str[n]; empty texts are missing.
        asked: What to compare.

    Raises:
        DosimeterError: A column is missing, people left replies without a label, or a label is not on the scale.
    """
    _check(columns, asked)
    human = columns[asked.human]
    known = set(asked.ordered) or {str(one) for one in np.unique(human)}
    _, clusters = np.unique(
        columns[asked.cluster] if asked.cluster else np.arange(len(human)).astype(str), return_inverse=True
    )
    read = {judge: np.isin(columns[judge], sorted(known)) for judge in asked.judges}
    rows, transfers = [], []
    positive = np.isin(human, sorted(asked.positive))
    for judge in asked.judges:
        called = np.isin(columns[judge], sorted(asked.positive))
        told = _Told(judge, positive, called, read[judge], clusters)
        rows += [told.row(part, group) for group, part in _groups(columns, asked.by)]
        transfers += [told.transfer(columns[column], column, what) for column in asked.by for what in told.KINDS]
    raters = {asked.human: np.ones(len(human), dtype=bool)} | read
    agreements = (
        _agreement(pair, columns, raters[pair[0]] & raters[pair[1]], clusters, asked)
        for pair in combinations(raters, 2)
    )
    return Bench(len(human), tuple(rows), tuple(transfers), tuple(agreements))


def read_labels(path: Path) -> dict[str, Labels]:
    """Read labels by column: CSV with a header, or JSON Lines.

    Raises:
        DosimeterError: It is neither, or has too many rows.
        OSError: It cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            records = list(_records(file, is_json=path.suffix.lower() in {".jsonl", ".ndjson"}, path=path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DosimeterError(f"the labels cannot be read: {error}", where=str(path), todo="write UTF-8") from error
    if not records:
        raise DosimeterError("there are no labels in it", where=str(path), todo="write one row for each reply")
    names = dict.fromkeys(name for record in records for name in record)
    return {name: np.array([_text(record.get(name)) for record in records]) for name in names}


def _records(file: Any, *, is_json: bool, path: Path) -> Iterator[Mapping[str, Any]]:
    for number, record in enumerate(file if is_json else csv.DictReader(file, strict=True)):
        where = f"{path}:{number + (1 if is_json else 2)}"
        if number >= MOST_ROWS:
            raise DosimeterError(f"more than {MOST_ROWS:,} labelled replies", where=where, todo="take a random part")
        if not is_json:
            if None in record or None in record.values():
                raise DosimeterError("this row has another number of values than the header", where=where)
            yield record
        elif record.strip():
            try:
                found = json.loads(record)
            except ValueError as error:
                raise DosimeterError(f"this line is not JSON: {error}", where=where) from error
            if not isinstance(found, dict):
                raise DosimeterError("this line is no JSON object", where=where)
            yield found


def _text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check(columns: Mapping[str, Labels], asked: Asked) -> None:
    wanted = (asked.human, *asked.judges, *asked.by, *((asked.cluster,) if asked.cluster else ()))
    if missing := [name for name in wanted if name not in columns]:
        raise DosimeterError(f"no column `{missing[0]}`", todo=f"the columns are {', '.join(columns)}")
    if without := int((columns[asked.human] == "").sum()):
        raise DosimeterError(f"{without:,} replies have no label in `{asked.human}`", todo="leave them out of the file")
    found = {str(one) for one in np.unique(columns[asked.human])}
    if strange := sorted(found - set(asked.ordered)) if asked.ordered else []:
        raise DosimeterError(f"`{strange[0]}` is not on the scale", todo="name all labels, from the least to the most")
    if foreign := sorted(asked.positive - found):
        raise DosimeterError(
            f"no reply has the label `{foreign[0]}`",
            todo=f"the labels of `{asked.human}` are {', '.join(sorted(found))}",
        )


def _groups(columns: Mapping[str, Labels], by: Sequence[str]) -> Iterator[tuple[Mapping[str, str], Flags]]:
    """Yield each combination of values that some reply has, in order, and which replies have it."""
    if not by:
        yield {}, np.ones(len(next(iter(columns.values()))), dtype=bool)
        return
    for values in sorted(set(zip(*(columns[name].tolist() for name in by), strict=True))):
        part = np.logical_and.reduce([columns[name] == value for name, value in zip(by, values, strict=True)])
        yield dict(zip(by, values, strict=True)), part


@dataclass(frozen=True, slots=True)
class _Told:
    """A judge's verdicts beside the labels of people."""

    judge: str
    positive: Flags
    called: Flags
    read: Flags
    clusters: Codes

    KINDS = ("sensitivity", "specificity")

    def of(self, what: str) -> tuple[Flags, Flags]:
        """Return which replies a rate is of, and which of these the judge got right."""
        true = self.positive if what == "sensitivity" else ~self.positive
        return self.read & true, self.called == self.positive

    def estimate(self, what: str, part: Flags) -> Estimate:
        of, right = self.of(what)
        return share(right[part & of], self.clusters[part & of])

    def row(self, part: Flags, group: Mapping[str, str]) -> Row:
        return Row(
            self.judge,
            group,
            missed=int((part & self.positive & ~self.called).sum()),
            positives=int((part & self.positive).sum()),
            cleared=int((part & ~self.positive & self.called).sum()),
            negatives=int((part & ~self.positive).sum()),
            unread=int((part & ~self.read).sum()),
            sensitivity=self.estimate("sensitivity", part),
            specificity=self.estimate("specificity", part),
        )

    def transfer(self, values: Labels, column: str, what: str) -> Transfer:
        of, right = self.of(what)
        names, groups = np.unique(values, return_inverse=True)
        found = {str(name): self.estimate(what, groups == at) for at, name in enumerate(names)}
        known = sorted((pair for pair in found.items() if pair[1].n), key=lambda pair: pair[1].value or 0.0)
        p = equal(right[of], groups[of], self.clusters[of])
        nothing = ("", Estimate(None, None, None, 0, 0, 0))
        return Transfer(self.judge, column, what, p, *((known[0], known[-1]) if known else (nothing, nothing)))


def _agreement(
    pair: tuple[str, str], columns: Mapping[str, Labels], part: Flags, clusters: Codes, asked: Asked
) -> Agreement:
    labels = [columns[name][part] for name in pair]
    scale = asked.ordered or tuple(np.unique(np.concatenate(labels)).tolist())
    place = {label: at for at, label in enumerate(scale)}
    first, second = (np.array([place[label] for label in one.tolist()], dtype=np.int64) for one in labels)
    told: dict[str, Any] = {"classes": len(scale), "ordered": bool(asked.ordered)}
    return Agreement(
        *pair,
        kappa(first, second, clusters[part], **told),
        alpha(first, second, clusters[part], **told),
    )


def _percent(found: Estimate) -> str:
    if found.value is None or found.lo is None or found.hi is None:
        return "unknown"
    return f"{found.value:.0%} [{found.lo:.0%}, {found.hi:.0%}]"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else "< 0.001"  # noqa: PLR2004 - as papers have it
