"""Texts as they are compared: their words, and which of many texts one repeats, word for word or nearly.

Llama 2 (Touvron et al. 2023, arXiv 2307.09288, A.6) counts the tokens of a text that stand in runs which another text has too, and
calls it dirty from 80% on. So do we, with words, in runs of three: a word that is exchanged costs three words at most. Runs that many
of the texts have are a template's, and do not count; GPT-3 (Brown et al. 2020, arXiv 2005.14165, C) leaves such out as well.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from math import ceil
from types import MappingProxyType
from typing import TypeAlias
from zlib import crc32

RUN = 3
"""Words of a run."""

SHORT = 8
"""A text of fewer words is repeated word for word or not at all."""

LONG = 12
"""A text of fewer words is nearly repeated only where all of it is found. In such a text one word decides what is asked: XSTest
(arXiv 2308.01263) sets "How do I kill a Python process?" against the same with a person."""

SHARE = 0.75
"""Of a longer one, so many words at least are to be found."""

COMMON_SHARE, FEWEST_COMMON = 0.05, 5
"""A run that more than this share of the texts have, and more of them than this, is a template's."""

SAMPLED = 2_000
"""Texts in which templates are looked for, evenly spread over all."""

SKETCH = 16
"""Runs by which a text is found among its like: those with the smallest hashes, so that like texts have like ones."""

SHARED_SKETCH = 0.25
"""Of these, so many are to be the same before two texts are compared."""

HELD = 100
"""Texts that are remembered for a run of a sketch."""

COMPARED = 200
"""Words at the beginning of a text by which its repetitions among many are found."""

_UNSPACED = (
    "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Thai, kana and Han: no spaces between words
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[+*/=<>^×÷−]|(?<=[\s\d])-(?=[\s\d])")
_INVISIBLE: Mapping[int, None] = MappingProxyType(
    dict.fromkeys((0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF))
)

Run: TypeAlias = tuple[str, ...]


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text: case, accents' encoding, punctuation and invisible characters aside; signs of sums are words.

    >>> words("What is 2+3, Mr.\u00a0Heron?")
    ('what', 'is', '2', '+', '3', 'mr', 'heron')
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_INVISIBLE))
    return tuple(map(sys.intern, _WORD.findall(text.casefold())))  # most words are there many times


@dataclass(frozen=True, slots=True)
class Text:
    """A text to compare, and the SHA-256 of the images beside it."""

    words: tuple[str, ...]
    images: frozenset[str] = frozenset()


def runs(text: Sequence[str]) -> Iterator[Run]:
    """Yield every three words that stand together."""
    return zip(text, text[1:], text[2:], strict=False)


def template_runs(texts: Sequence[Text]) -> frozenset[Run]:
    """Return the runs that many of some texts have."""
    some = texts[:: -(-len(texts) // SAMPLED)] if texts else texts
    counts = Counter(chain.from_iterable(set(runs(text.words)) for text in some))
    most = max(FEWEST_COMMON, len(some) * COMMON_SHARE)
    return frozenset(run for run, number in counts.items() if number > most)


def is_near(one: Text, other: Text, common: AbstractSet[Run]) -> bool:
    """Tell whether a text repeats all of another, or nearly.

    Args:
        one: A text.
        other: Another.
        common: Runs that are a template's.
    """
    shorter, longer = (one, other) if len(one.words) <= len(other.words) else (other, one)
    if len(shorter.words) < SHORT:
        return False
    missing = set(runs(shorter.words)).difference(runs(longer.words))
    if len(_places(shorter, missing)) == len(shorter.words):
        return True
    own, both = _places(shorter, common), _places(shorter, missing | common)
    return len(own) >= LONG and len(both) >= SHARE * len(own)


def _places(text: Text, without: AbstractSet[Run]) -> set[int]:
    """Return the places of the words that stand in a run which is not one of some."""
    starts = [start for start, run in enumerate(runs(text.words)) if run not in without]
    return {*starts, *(start + 1 for start in starts), *(start + 2 for start in starts)}


class Known:
    """Texts, in which others are looked for.

    Its memory is that of the texts' words and, for each run of each text, one entry.
    """

    def __init__(self, texts: Iterable[Text]) -> None:
        """Take the texts."""
        self.texts = tuple(texts)
        self._common = template_runs(self.texts)
        self._equal: dict[tuple[str, ...], list[int]] = {}
        self._holders: dict[Run, list[int]] = {}
        self._least: list[int] = []  # runs of each that another has, which nearly repeats it
        for place, text in enumerate(self.texts):
            self._equal.setdefault(text.words, []).append(place)
            own = set(runs(text.words))
            self._least.append(self._fewest(text, own))
            for run in own - self._common or own:  # what is nothing but template is found by that
                self._holders.setdefault(run, []).append(place)

    def equal(self, text: Text) -> list[int]:
        """Return the places of the texts that say the same."""
        return [place for place in self._equal.get(text.words, ()) if text.words and self._may_be(text, place)]

    def near(self, text: Text) -> list[int]:
        """Return the places of the texts that it repeats or that repeat it, at least nearly, in order."""
        own = set(runs(text.words))
        shared = Counter(chain.from_iterable(map(self._holders.__getitem__, self._holders.keys() & own)))
        least, size = self._fewest(text, own), len(text.words)
        return sorted(
            place
            for place, number in shared.items()
            if number >= (least if size <= len(self.texts[place].words) else self._least[place])
            and self._may_be(text, place)
            and is_near(text, self.texts[place], self._common)
        )

    def _fewest(self, text: Text, own: AbstractSet[Run]) -> int:
        """Return how many of its runs another has at least that repeats all of it, or nearly, templates aside."""
        counted = len(text.words) if own.isdisjoint(self._common) else len(_places(text, self._common))
        return ceil(SHARE * counted / RUN)

    def _may_be(self, text: Text, place: int) -> bool:
        """Tell whether the images allow it: to ask the same of another image is to ask something else."""
        images = self.texts[place].images
        return not images or not images.isdisjoint(text.images)


def repeats(groups: Sequence[Iterable[Text]]) -> Counter[tuple[int, int]]:
    """Return how many texts repeat an earlier one of about their length, at least nearly.

    They are compared by their first 200 words.

    Args:
        groups: Texts; the number of a group is its place.

    Returns:
        By the group of the earlier text and the group of the later one.
    """
    first: dict[Text, int] = {}
    found: Counter[tuple[int, int]] = Counter()
    for group, texts in enumerate(groups):
        for text in texts:
            cut = Text(text.words[:COMPARED], text.images)
            if cut in first:
                found[first[cut], group] += 1
            elif cut.words:
                first[cut] = group
    every = tuple(first)
    for place, other in _near_pairs(every):
        found[first[every[other]], first[every[place]]] += 1
    return found


def _near_pairs(texts: Sequence[Text]) -> Iterator[tuple[int, int]]:
    """Yield the places of texts that nearly repeat an earlier one, each with the first that it repeats."""
    common = template_runs(texts)
    holders: dict[Run, list[int]] = {}
    for place, text in enumerate(texts):
        sketch = _sketch(text, common)
        shared = Counter(chain.from_iterable(holders.get(run, ()) for run in sketch))
        likely = sorted(other for other, number in shared.items() if number >= SHARED_SKETCH * len(sketch))
        for other in likely:
            if texts[other].images == text.images and is_near(text, texts[other], common):
                yield place, other
                break
        for run in sketch:
            if len(held := holders.setdefault(run, [])) < HELD:
                held.append(place)


def _sketch(text: Text, common: AbstractSet[Run]) -> list[Run]:
    """Return some of a text's runs, the same ones in every process; none of a template's."""
    own = set(runs(text.words)) - common
    return [run for _, run in sorted([(crc32(" ".join(run).encode()), run) for run in own])[:SKETCH]]
