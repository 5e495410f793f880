"""How many runs to train at once: as many as still gain and as fit, found by measuring the real steps. Only hosts import this."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

FIRST_WIDTH = 4
"""Where the search begins: wide enough to gain on any device, narrow enough to fit almost anywhere."""

STEPS = 3
"""Steps at one width of which the quickest tells its speed, after a first one that warms caches."""

GAIN = 1.03
"""A width must be this much quicker than the one before for a wider one to be tried."""

SHARE_OF_FREE = 0.5
"""A wider pack may take this share of the free memory: other hosts live there, too."""


class Capacity:
    """The width of packs on one host, for one base model and type; kept warm between calls.

    It doubles while that makes training quicker and memory allows, then stays at the quickest width. Nothing is computed
    for the measurement alone.

    Attributes:
        width: Runs to train at once, >= 1.

    Args:
        device: `cpu` or `cuda:0`.
    """

    def __init__(self, device: str) -> None:
        """Begin narrow."""
        self.width = FIRST_WIDTH
        self._device = device
        self._settled = False
        self._speeds: dict[int, float] = {}
        self._sample: list[float] = []
        self._before = 0

    def begin(self) -> None:
        """Note the memory in use before a pack is made."""
        self._sample = []
        if self._device != "cpu":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._before = self._in_use()

    def measure(self, width: int, tokens: int, seconds: float) -> None:
        """Take note of a step, and change `width` when enough is known.

        Args:
            width: Runs that took it.
            tokens: Tokens of their rows.
            seconds: Wall time.
        """
        if self._settled or width != self.width:
            return
        self._sample.append(tokens / seconds)
        if len(self._sample) <= STEPS:
            return
        self._speeds[width] = max(self._sample[1:])  # whatever else the machine does can only slow a step down
        self._settled = not self._gains() or not self._doubles()
        self.width = max(self._speeds, key=lambda tried: self._speeds[tried]) if self._settled else 2 * width

    def too_wide(self, width: int) -> None:
        """Take note that a pack of `width` runs did not fit: halve it, and try no wider one."""
        self._settled = True
        self.width = max(1, min(self.width, width) // 2)

    def _gains(self) -> bool:
        narrower = self._speeds.get(self.width // 2)
        return narrower is None or self._speeds[self.width] > GAIN * narrower

    def _doubles(self) -> bool:
        """Tell whether memory for twice the width is there, judging by what this one took."""
        free, taken = self._free(), max(0, self._peak() - self._before)
        return free is None or 2 * taken < SHARE_OF_FREE * (free + taken)

    def _in_use(self) -> int:
        """Bytes in use: on a GPU by tensors, on a CPU the most that the process ever had."""
        return _most_resident() if self._device == "cpu" else torch.cuda.memory_allocated(self._device)

    def _peak(self) -> int:
        return _most_resident() if self._device == "cpu" else torch.cuda.max_memory_allocated(self._device)

    def _free(self) -> int | None:
        """Bytes that could still be had, or None where the system does not say."""
        if self._device != "cpu":
            return torch.cuda.mem_get_info(self._device)[0]
        try:
            lines = Path("/proc/meminfo").read_text().splitlines()
        except OSError:
            return None
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)


def _most_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
