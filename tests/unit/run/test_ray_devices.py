"""The torch device of a worker is the first GPU that Ray has set aside for it, and it sees no other worker's."""

from __future__ import annotations

import pytest

from engine.run.executors.ray_executor import given_device


@pytest.mark.parametrize(
    ("gpus", "visible", "device", "seen"),
    [
        ([], None, "cpu", None),
        ([], "", "cpu", ""),
        ([3], "3", "cuda:0", "3"),  # as Ray sets it
        ([3, 2], "2,3", "cuda:0", "3,2"),
        (["GPU-a"], "GPU-b,GPU-a", "cuda:0", "GPU-a"),
        ([3], None, "cuda:0", "3"),  # where Ray is told to leave CUDA_VISIBLE_DEVICES alone
    ],
)
def test_a_worker_sees_the_gpus_that_it_was_given(
    gpus: list[int | str], visible: str | None, device: str, seen: str | None
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert given_device(gpus, environment) == device
    assert environment.get("CUDA_VISIBLE_DEVICES") == seen
