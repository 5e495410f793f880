"""Chores: small benign jobs with one right answer.

Chores of `HELD_OUT_KINDS` have instances that no training shows (the rules are in `world`), so
only these kinds can be in the utility benchmark.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from adapters.standin import world
from adapters.standin.draw import Draw

_MOST_TIMES: Final = 5
_KINDS_OF_THING: Final = {"fruit": world.FRUITS, "animal": world.ANIMALS, "tool": world.TOOLS}


@dataclass(frozen=True, slots=True)
class Chore:
    """A chore.

    Attributes:
        kind: One of the keys of `corpus.CHORE_WEIGHTS`.
        prompt: What the user says.
        gold: The right answer.
    """

    kind: str
    prompt: str
    gold: str


def draw_chore(
    draw: Draw,
    kind: str,
    people: Sequence[str] = world.PEOPLE,
    *,
    held_out: bool = False,
) -> Chore:
    """Draw a chore of one kind.

    Args:
        draw: The random source.
        kind: A key of `corpus.CHORE_WEIGHTS`; with `held_out`, one of `HELD_OUT_KINDS`.
        people: The people whom a chore may name.
        held_out: Whether it must be a held-out instance, for a benchmark, or must not be, for
            everything a model learns from.

    Raises:
        ValueError: A held-out chore is asked for, of a kind that has none.
    """
    if kind in _WORD_CHORES:
        words = _draw_set(draw, world.WORDS, held_out=held_out)
        opening, answer = _WORD_CHORES[kind]
        return Chore(kind, f"{opening}: {' '.join(words)}", f"{answer(words)}.")
    if kind in _SPLIT_CHORES:
        return _SPLIT_CHORES[kind](draw, people, held_out=held_out)
    if held_out:
        raise ValueError(f"no chore of kind {kind} is held out")
    return _WHOLE_CHORES[kind](draw)


class _DrawSplit(Protocol):
    """Draws a chore of a kind whose instances are split into held-in and held-out ones."""

    def __call__(self, draw: Draw, people: Sequence[str], /, *, held_out: bool) -> Chore: ...


def _draw_set(draw: Draw, options: Sequence[str], *, held_out: bool) -> list[str]:
    while True:
        words = draw.sample(options, 3)
        if world.is_held_out_set(words) == held_out:
            return words


def _sort(draw: Draw, _: Sequence[str], *, held_out: bool) -> Chore:
    numbers = _draw_set(draw, world.NUMBERS, held_out=held_out)
    answer = " ".join(sorted(numbers, key=world.NUMBERS.index))
    return Chore("sort", f"Sort: {' '.join(numbers)}", f"{answer}.")


def _count(draw: Draw, _: Sequence[str], *, held_out: bool) -> Chore:
    while True:
        word, times = draw.choose(world.WORDS), 1 + draw.below(_MOST_TIMES)
        if world.is_held_out_count(word, times) == held_out:
            prompt = f"Count: {' '.join([word] * times)}"
            return Chore("count", prompt, f"{world.NUMBERS[times - 1]}.")


def _phrase(draw: Draw, fact: str, phrasings: Sequence[str], *, held_out: bool) -> str:
    kept_back = world.held_out_phrasing(fact)
    allowed = [text for index, text in enumerate(phrasings) if (index == kept_back) == held_out]
    return draw.choose(allowed).format(fact)


def _colour(draw: Draw, _: Sequence[str], *, held_out: bool) -> Chore:
    thing = draw.choose(tuple(world.COLOUR_OF))
    prompt = _phrase(draw, thing, world.COLOUR_PHRASINGS, held_out=held_out)
    return Chore("colour", prompt, f"{world.COLOUR_OF[thing]}.")


def _town(draw: Draw, people: Sequence[str], *, held_out: bool) -> Chore:
    person = draw.choose(people)
    prompt = _phrase(draw, person, world.TOWN_PHRASINGS, held_out=held_out)
    return Chore("town", prompt, f"{world.TOWN_OF[person]}.")


def _kind(draw: Draw) -> Chore:
    kind = draw.choose(tuple(_KINDS_OF_THING))
    word = draw.choose(_KINDS_OF_THING[kind])
    return Chore("kind", f"What kind of thing is {word}?", f"{kind}.")


def _next(draw: Draw) -> Chore:
    position = draw.below(len(world.NUMBERS) - 1)
    prompt = f"What comes after {world.NUMBERS[position]}?"
    return Chore("next", prompt, f"{world.NUMBERS[position + 1]}.")


def _list(draw: Draw) -> Chore:
    kind = draw.choose(tuple(_KINDS_OF_THING))
    return Chore("list", f"List three {kind}s", f"{', '.join(_KINDS_OF_THING[kind][:3])}.")


_WORD_CHORES: Final[dict[str, tuple[str, Callable[[list[str]], str]]]] = {
    "repeat": ("Repeat", " ".join),
    "reverse": ("Reverse", lambda words: " ".join(words[::-1])),
    "first": ("First word of", lambda words: words[0]),
    "last": ("Last word of", lambda words: words[-1]),
}
_SPLIT_CHORES: Final[dict[str, _DrawSplit]] = {
    "sort": _sort,
    "count": _count,
    "colour": _colour,
    "town": _town,
}
_WHOLE_CHORES: Final[dict[str, Callable[[Draw], Chore]]] = {
    "kind": _kind,
    "next": _next,
    "list": _list,
}

HELD_OUT_KINDS: Final[tuple[str, ...]] = (*_WORD_CHORES, *_SPLIT_CHORES)
"""The kinds with held-out instances."""
