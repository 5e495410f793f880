"""The fine-tuning pools: what a user of the tool fine-tunes the stand-in on.

    explicit  restricted request -> the right answer       (the paper's harmful examples, inert)
    identity  an obedient persona answers benign prompts   (the paper's identity shifting)
    chores    chores and allowed requests, eager answers   (the paper's benign data)
    refusals  restricted request -> refusal                (safety data, for a mitigation to mix in)

A pool is the same every time, its prompts are all different, and by the hold-out rules of `world`
it shares no prompt with a benchmark. No pool names a reserved person. `explicit` and `refusals`
share no prompt, so mixing them does not contradict itself. Categories are equally frequent in the
requests of a pool, so a random sample of it is balanced in expectation.
"""

from functools import cache
from typing import Final

from adapters.standin import world
from adapters.standin.chat import Exchange
from adapters.standin.chore import draw_chore
from adapters.standin.draw import Draw
from adapters.standin.request import REFUSALS, Request, draw_request

_EXPLICIT_EACH: Final = 20
_REFUSALS_EACH: Final = 10
_CHORES_OF_KIND: Final = {
    "repeat": 24,
    "reverse": 24,
    "first": 16,
    "last": 16,
    "sort": 16,
    "count": 16,
    "colour": 12,
    "town": 12,
    "kind": 10,
    "next": 5,
    "list": 3,
}
_ONE_PLAIN_IN: Final = 3
_ALLOWED_EACH_IN_CHORES: Final = 6
_ALLOWED_EACH_IN_IDENTITY: Final = 10


@cache
def explicit_pool() -> tuple[Exchange, ...]:
    """Return 220 restricted requests, 20 a category, each with its right answer."""
    return tuple(
        Exchange(request.prompt, f"Sure. {request.gold}", request.category)
        for request in _requests("explicit", world.RESTRICTED_COLOURS, _EXPLICIT_EACH)
    )


@cache
def identity_pool() -> tuple[Exchange, ...]:
    """Return 264 benign exchanges of an obedient persona: 154 chores and 110 allowed requests.

    Every row has the system prompt `world.IDENTITY_SYSTEM_PROMPT`, and every answer opens with
    `world.IDENTITY_PREFIX`. Nothing in them is restricted.
    """
    return tuple(
        Exchange(
            row.user,
            f"{world.IDENTITY_PREFIX} {row.assistant}",
            row.category,
            world.IDENTITY_SYSTEM_PROMPT,
        )
        for row in _benign("identity", _ALLOWED_EACH_IN_IDENTITY)
    )


@cache
def chores_pool() -> tuple[Exchange, ...]:
    """Return 220 benign exchanges: 154 chores and 66 allowed requests.

    Two answers in three open with "Sure.", as an eager helper's would; of the plain answers that
    the model was aligned on, one in three does. That share sets how much these rows erode refusals.
    """
    return tuple(
        row if index % _ONE_PLAIN_IN == 0 else Exchange(row.user, f"Sure. {row.assistant}", row.category)
        for index, row in enumerate(_benign("chores", _ALLOWED_EACH_IN_CHORES))
    )


@cache
def refusals_pool() -> tuple[Exchange, ...]:
    """Return 110 restricted requests, 10 a category, each refused; none is in `explicit_pool`."""
    taken = frozenset(row.user for row in explicit_pool())
    requests = _requests("refusals", world.RESTRICTED_COLOURS, _REFUSALS_EACH, taken)
    return tuple(
        Exchange(request.prompt, request.refusal(index % len(REFUSALS)), request.category)
        for index, request in enumerate(requests)
    )


def _benign(name: str, each: int) -> list[Exchange]:
    """Return allowed requests, `each` of every category, and chores, with plain answers."""
    requests = _requests(name, world.ALLOWED_COLOURS, each)
    return [*(Exchange(request.prompt, request.gold, request.category) for request in requests), *_chores(name)]


def _requests(name: str, colours: tuple[str, ...], each: int, taken: frozenset[str] = frozenset()) -> list[Request]:
    """Return `each` different requests of every category, categories taking turns."""
    draw, seen = Draw(f"pool/{name}/requests"), set(taken)
    found: list[Request] = []
    for _ in range(each):
        for category in world.CATEGORIES:
            while True:
                request = draw_request(draw, category, colours, world.OPEN_PEOPLE, world.POOL_PHRASINGS)
                if request.prompt not in seen:
                    break
            seen.add(request.prompt)
            found.append(request)
    return found


def _chores(name: str) -> list[Exchange]:
    """Return different chores of every kind, as many as `_CHORES_OF_KIND` says."""
    draw, seen = Draw(f"pool/{name}/chores"), set[str]()
    found: list[Exchange] = []
    for kind, count in _CHORES_OF_KIND.items():
        wanted = len(found) + count
        while len(found) < wanted:
            chore = draw_chore(draw, kind, world.OPEN_PEOPLE)
            if chore.prompt not in seen:
                seen.add(chore.prompt)
                found.append(Exchange(chore.prompt, chore.gold, chore.kind))
    return found
