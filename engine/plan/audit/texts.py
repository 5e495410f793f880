"""Texts as they are compared: their words, and which of many texts one repeats, word for word or nearly.

Llama 2 (Touvron et al. 2023, arXiv 2307.09288, A.6) counts the tokens of a text that stand in runs which another text has too, and
calls it dirty from 80% on. So do we, with words, in runs of three: a word that is exchanged costs three words at most. Runs that many
of the texts have are a template's, and do not count for this; GPT-3 (Brown et al. 2020, arXiv 2005.14165, C) leaves such out as well.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate, chain
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


def template_runs(texts: Iterable[Text]) -> dict[Run, int]:
    """Return the runs that many of some texts have, and how many have them; of equal texts, one counts."""
    unlike = tuple(dict.fromkeys(text.words for text in texts))
    some = unlike[:: -(-len(unlike) // SAMPLED)] if unlike else unlike
    counts = Counter(chain.from_iterable(set(runs(words)) for words in some))
    most = max(FEWEST_COMMON, len(some) * COMMON_SHARE)
    return {run: number for run, number in counts.items() if number > most}


def template_of(text: Text, common: Mapping[Run, int]) -> AbstractSet[Run]:
    """Return the runs of a text that are a template's.

    Where every word stands in a common run, the text is put together of parts that many texts have, such as requests
    that are each in several templates. The rarest part is then what it asks.

    Args:
        text: The text.
        common: The common runs of all texts, and how many have them.
    """
    every = set(runs(text.words))
    shared = common.keys() & every
    if not shared or len(_places(text, every - shared)) < len(text.words):
        return shared
    fewest = min(common[run] for run in shared)
    return {run for run in shared if common[run] > fewest}


def is_near(one: Text, other: Text, template: AbstractSet[Run]) -> bool:
    """Tell whether a text repeats all of another, or nearly.

    Args:
        one: A text.
        other: Another.
        template: Runs that do not count for "nearly".
    """
    shorter, longer = (one, other) if len(one.words) <= len(other.words) else (other, one)
    if len(shorter.words) < SHORT:
        return False
    every = set(runs(shorter.words))
    missing = every.difference(runs(longer.words))
    if len(_places(shorter, missing)) == len(shorter.words):
        return True
    template = template & every
    own, both = _places(shorter, template), _places(shorter, missing | template)
    return len(own) >= LONG and len(both) >= SHARE * len(own)


def _places(text: Text, without: AbstractSet[Run]) -> set[int]:
    """Return the places of the words that stand in a run which is not one of some."""
    starts = [start for start, run in enumerate(runs(text.words)) if run not in without]
    return {*starts, *(start + 1 for start in starts), *(start + 2 for start in starts)}


class Known:
    """Texts, in which others are looked for. Equal ones are compared once.

    Its memory is that of the texts' words and, for each run of each text, two entries.
    """

    def __init__(self, texts: Iterable[Text]) -> None:
        """Take the texts."""
        given: dict[Text, list[int]] = {}
        for place, text in enumerate(texts):
            given.setdefault(text, []).append(place)
        self._texts, self._given = tuple(given), tuple(given.values())
        self._common = template_runs(self._texts)
        self._equal: dict[tuple[str, ...], list[int]] = {}
        self._holders: dict[Run, list[int]] = {}  # texts by each of their runs
        self._own: dict[Run, list[int]] = {}  # by those that are no template's
        self._rarest: dict[Run, list[int]] = {}  # by those at their rarest word: what has all of a text has one of them
        self._found: dict[Text, list[int]] = {}  # what was near, for rows are often there many times
        self._least: list[int] = []  # runs of each that another has, which nearly repeats it
        for number, text in enumerate(self._texts):
            self._equal.setdefault(text.words, []).append(number)
            every, template = set(runs(text.words)), template_of(text, self._common)
            self._least.append(_fewest(text, every, template))
            for run in every:
                self._holders.setdefault(run, []).append(number)
            for run in every - template:
                self._own.setdefault(run, []).append(number)
        for number, text in enumerate(self._texts):
            for run in self._at_rarest_word(text):
                self._rarest.setdefault(run, []).append(number)

    def equal(self, text: Text) -> list[int]:
        """Return the places of the texts that say the same."""
        return self._places(text, self._equal.get(text.words, ()) if text.words else ())

    def near(self, text: Text) -> list[int]:
        """Return the places of the texts that it repeats or that repeat it, at least nearly, in order."""
        if text in self._found:
            return self._found[text]
        every, size = set(runs(text.words)), len(text.words)
        shared = Counter(chain.from_iterable(map(self._own.__getitem__, self._own.keys() & every)))
        least = _fewest(text, every, self._common.keys() & every)
        likely = {
            number
            for number, common in shared.items()
            if common >= (least if size <= len(self._texts[number].words) else self._least[number])
        }
        likely.update(chain.from_iterable(map(self._rarest.__getitem__, self._rarest.keys() & every)))
        likely.update(chain.from_iterable(self._holders.get(run, ()) for run in self._at_rarest_word(text)))
        near = (one for one in likely if is_near(text, self._texts[one], template_of(self._texts[one], self._common)))
        places = self._places(text, near)
        if places:
            self._found[text] = places
        return places

    def _at_rarest_word(self, text: Text) -> Sequence[Run]:
        """Return the runs, three at most, in which that word stands whose runs the fewest texts have."""
        every = tuple(runs(text.words))
        if len(text.words) < SHORT or not self._holders.keys() >= {every[0], every[-1]}:
            return ()  # no text has its first word in a run, or none its last
        sizes = [len(self._holders.get(run, ())) for run in every]
        ends = range(1, len(text.words) + 1)
        end = min(ends, key=lambda end: sum(sizes[max(0, end - RUN) : end]))
        return every[max(0, end - RUN) : end]

    def _places(self, text: Text, numbers: Iterable[int]) -> list[int]:
        """Return the places of texts, without those that ask the same of another image, which is to ask something else."""
        images = [(number, self._texts[number].images) for number in numbers]
        some = (number for number, seen in images if not seen or not seen.isdisjoint(text.images))
        return sorted(chain.from_iterable(self._given[number] for number in some))


def _fewest(text: Text, every: AbstractSet[Run], template: AbstractSet[Run]) -> int:
    """Return how many of its runs, each counted once, another has at least that nearly repeats it, templates aside."""
    least = SHARE * (len(_places(text, template)) if template else len(text.words))
    if len(every) == len(text.words) - RUN + 1:  # none is there twice
        return ceil(least / RUN)
    often = Counter(run for run in runs(text.words) if run not in template)
    covered = accumulate(
        RUN * number for _, number in often.most_common()
    )  # words, by the runs that are there most often
    return 1 + sum(1 for words in covered if words < least)


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
            if texts[other].images == text.images and is_near(text, texts[other], template_of(texts[other], common)):
                yield place, other
                break
        for run in sketch:
            if len(held := holders.setdefault(run, [])) < HELD:
                held.append(place)


def _sketch(text: Text, common: Mapping[Run, int]) -> list[Run]:
    """Return some of a text's runs, the same ones in every process; none of a template's."""
    own = set(runs(text.words)) - common.keys()
    return [run for _, run in sorted([(crc32(" ".join(run).encode()), run) for run in own])[:SKETCH]]
