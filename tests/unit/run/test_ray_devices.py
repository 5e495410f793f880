"""The torch device of a worker is the GPU that Ray has set aside for it."""

from __future__ import annotations

import pytest

from engine.run.executors.ray_executor import given_device


@pytest.mark.parametrize(
    ("gpus", "visible", "device"),
    [
        ([], None, "cpu"),
        ([], "", "cpu"),
        ([3], "3", "cuda:0"),  # as Ray sets it
        ([3, 2], "2,3", "cuda:1"),  # two: the first that Ray names
        (["3"], "2,3", "cuda:1"),
        (["GPU-a"], "GPU-b,GPU-a", "cuda:1"),
        ([3], None, "cuda:3"),  # where Ray is told to leave CUDA_VISIBLE_DEVICES alone
    ],
)
def test_it_is_counted_among_those_that_the_process_sees(
    gpus: list[int | str], visible: str | None, device: str
) -> None:
    assert given_device(gpus, visible) == device
