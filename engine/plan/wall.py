"""Device-seconds → the wall time of a whole command: start-up, the work on all workers with its tail, and publishing."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from engine.domain.cost import Prediction, Range
from engine.domain.stage import Stage, StageKind, WorkerKind
from engine.plan.share import Groups

COMMAND_SECONDS = (2.0, 3.5, 7.0)
"""Reading and planning a sweep, and writing its tables and estimates at the end: low, expected and high."""

STAGE_SECONDS = 0.002
"""What the driver takes for every stage beside, to record and publish it."""

RAY_SECONDS = (4.0, 8.0, 14.0)
"""Starting Ray and its workers, libraries aside."""

STARTUP_SPREAD = (0.7, 1.0, 1.6)
"""Loading libraries and models depends on what of their files is in memory already."""

SIMULATED_STAGES = 20_000
"""With more stages, the last ones make no difference, and the order is not worked out."""


@dataclass(frozen=True, slots=True)
class Wall:
    """How long a command takes, in seconds.

    Attributes:
        low: At least, most likely.
        expected: Most likely.
        high: At most, most likely.
        workers: Workers with a model at a time.
        basis: What it rests on, in words; empty when no device is held.
    """

    low: float
    expected: float
    high: float
    workers: int
    basis: str


@dataclass(frozen=True, slots=True)
class Start:
    """How workers start.

    Attributes:
        workers: Workers with a model at a time, >= 1.
        has_ray: Whether they are processes of Ray's.
        seconds: What each takes to load its libraries and its first model.
        basis: What the forecast's seconds rest on.
    """

    workers: int
    has_ray: bool
    seconds: float
    basis: str

    @classmethod
    def of(cls, forecasts: Iterable[Range], workers: int, *, has_ray: bool, basis: str = "") -> Start:
        """Return the start that forecasts speak of; `basis` where something better is known than what they rest on."""
        predictions = {id(one): one for one in forecasts if isinstance(one, Prediction)}.values()
        said = dict.fromkeys(one.basis for one in predictions if one.basis)
        return cls(workers, has_ray, max((one.startup for one in predictions), default=0.0), basis or "; ".join(said))


def wall(
    stages: Mapping[str, Stage],
    forecasts: Mapping[str, Range],
    groups: Groups,
    cached: AbstractSet[str],
    start: Start,
) -> Wall:
    """Return how long it takes to run the stages that are not cached. What providers take is not known, and left out.

    Args:
        stages: Every distinct stage of a plan, inputs before what needs them.
        forecasts: Forecast by stage key, with shared work counted once.
        groups: Which stages go together.
        cached: Keys of the stages that need not run.
        start: How the workers start.
    """
    ahead = [key for key in stages if key not in cached]
    held = [key for key in ahead if stages[key].worker is WorkerKind.MODEL and key not in groups.accounts]
    workers = start.workers
    ends = []
    for place, end in enumerate(("low", "expected", "high")):
        seconds = {key: getattr(forecasts[key], end).device_seconds for key in held}
        taken = COMMAND_SECONDS[place] + STAGE_SECONDS * len(ahead) if ahead else 0.0
        taken += RAY_SECONDS[place] if start.has_ray and ahead else 0.0
        if held:
            taken += start.seconds * STARTUP_SPREAD[place] + makespan(stages, seconds, groups, workers)
        ends.append(taken)
    low, expected, high = ends
    return Wall(low, expected, high, workers, start.basis if held else "")


def makespan(stages: Mapping[str, Stage], seconds: Mapping[str, float], groups: Groups, workers: int) -> float:
    """Return the seconds until the last of some stages ends, when workers take the ready ones as the scheduler does.

    The checkpoints of a training run are one piece of work. What other workers do beside is not waited for.

    Args:
        stages: Every distinct stage of a plan, inputs before what needs them.
        seconds: Device-seconds of the stages that count, by key.
        groups: Which stages go together.
        workers: How many at a time, >= 1.
    """
    total = sum(seconds.values())
    if workers == 1 or len(seconds) > SIMULATED_STAGES:
        return total / workers
    pieces = _pieces(stages, seconds, groups)
    users: dict[str, list[str]] = {name: [] for name in pieces}
    for name, piece in pieces.items():
        for other in piece.needs:
            users[other].append(name)
    waits = {name: len(piece.needs) for name, piece in pieces.items()}
    ready = [(piece.order, name) for name, piece in pieces.items() if not piece.needs]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (now + pieces[name].seconds, name))
        now, ended = heapq.heappop(running)
        for user in users[ended]:
            waits[user] -= 1
            if not waits[user]:
                heapq.heappush(ready, (pieces[user].order, user))
    return now


@dataclass(slots=True)
class _Piece:
    """What one worker does at a stretch.

    Attributes:
        depth: The place of its kind of stage in a chain.
        seconds: What it takes.
        needs: The pieces that come before.
    """

    depth: int
    seconds: float = 0.0
    needs: set[str] = field(default_factory=set)

    @property
    def order(self) -> tuple[int, float]:
        """The smallest is taken first: later kinds of work, then longer ones."""
        return -self.depth, -self.seconds


def _pieces(stages: Mapping[str, Stage], seconds: Mapping[str, float], groups: Groups) -> dict[str, _Piece]:
    """Return the pieces of work by name: training runs, and the other stages that count."""
    names = {key: groups.checkpoints.get(key, (key,))[0] for key in seconds}
    pieces: dict[str, _Piece] = {}
    for key, taken in seconds.items():
        piece = pieces.setdefault(names[key], _Piece(_DEPTH[stages[key].kind]))
        piece.seconds += taken
        piece.needs |= {names[other] for other in _needed(key, stages, seconds)} - {names[key]}
    return pieces


_DEPTH = {kind: place for place, kind in enumerate(StageKind)}


def _needed(key: str, stages: Mapping[str, Stage], counted: Mapping[str, float]) -> set[str]:
    """Return the stages that count among those that one needs, through those that do not."""
    found, frontier, seen = set(), list(stages[key].needs), set()
    while frontier:
        other = frontier.pop()
        if other in seen:
            continue
        seen.add(other)
        if other in counted:
            found.add(other)
        else:
            frontier += stages[other].needs
    return found
