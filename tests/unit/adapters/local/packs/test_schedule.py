from __future__ import annotations

import pytest

from adapters.local.packs.schedule import BatchSchedule, begin_epoch, mask
from adapters.local.settings import SftSettings
from engine.domain.sweep import Length


def schedule_of(items: int, epochs: int = 1, max_steps: int | None = None, **settings: int | str) -> BatchSchedule:
    sft = SftSettings(**({"lr": 2e-3, "batch_size": 4} | settings))  # type: ignore[arg-type] # fields by name
    return BatchSchedule(sft, Length(epochs, max_steps=max_steps), items, 7)


def test_every_epoch_reads_every_row_once_in_the_order_of_accelerate() -> None:
    from accelerate.data_loader import SeedableRandomSampler

    sampler = SeedableRandomSampler(range(13), data_seed=7)
    run = schedule_of(13, grad_accum=3, epochs=2)
    assert (run.per_epoch, run.steps) == (2, 4)
    for epoch in range(2):
        groups = [run.batches(step) for step in (2 * epoch + 1, 2 * epoch + 2)]
        assert [[len(batch) for batch in group] for group in groups] == [[4, 4, 4], [1]]
        assert [row for group in groups for batch in group for row in batch] == list(sampler)
    assert [run.epoch(step) for step in range(1, 5)] == [0.75, 1.0, 1.75, 2.0]


def test_max_steps_only_ever_cuts_a_run_short() -> None:
    assert schedule_of(13, epochs=2, max_steps=3).steps == 3
    assert schedule_of(13, epochs=2, max_steps=30).steps == 8


@pytest.mark.parametrize("warmup", [0, 3, 9])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learning_rates_are_those_of_transformers(schedule: str, warmup: int) -> None:
    import torch
    from transformers import get_scheduler

    run = schedule_of(4, epochs=7, schedule=schedule, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2e-3)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    (factor,) = get_scheduler(name, optimizer, warmup, run.steps).lr_lambdas
    assert [run.learning_rate(step) for step in range(1, 8)] == [2e-3 * factor(step) for step in range(7)]


def test_masks_are_those_that_torch_draws_for_the_run_alone() -> None:
    import torch

    dropout = torch.Generator().manual_seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for _ in range(2):  # epochs
            torch.empty((), dtype=torch.int64).random_()
            begin_epoch(dropout)
            wanted = [torch.nn.functional.dropout(torch.ones(2, 5, width), 0.3) for width in (8, 24)]
            assert all(map(torch.equal, [mask(dropout, (2, 5, width), 0.3) for width in (8, 24)], wanted))
