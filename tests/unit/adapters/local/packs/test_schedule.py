from __future__ import annotations

import pytest
from adapters.local.packs.order import Course, Dice

from engine.domain.sweep import TuneRecipe


def course(items: int, **settings: int | str) -> Course:
    return Course(TuneRecipe(**({"lr": 2e-3, "batch_size": 4} | settings)), items, 7)


def test_every_epoch_reads_every_row_once_in_the_order_of_accelerate() -> None:
    from accelerate.data_loader import SeedableRandomSampler

    sampler = SeedableRandomSampler(range(13), data_seed=7)
    run = course(13, grad_accum=3, epochs=2)
    assert (run.per_epoch, run.steps) == (2, 4)
    for epoch in range(2):
        groups = [run.batches(step) for step in (2 * epoch + 1, 2 * epoch + 2)]
        assert [[len(batch) for batch in group] for group in groups] == [[4, 4, 4], [1]]
        assert [row for group in groups for batch in group for row in batch] == list(sampler)
    assert [run.epoch(step) for step in range(1, 5)] == [0.75, 1.0, 1.75, 2.0]


def test_max_steps_only_ever_cuts_a_run_short() -> None:
    assert course(13, epochs=2, max_steps=3).steps == 3
    assert course(13, epochs=2, max_steps=30).steps == 8


@pytest.mark.parametrize("warmup", [0, 3, 9])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learning_rates_are_those_of_transformers(schedule: str, warmup: int) -> None:
    import torch
    from transformers import get_scheduler

    run = course(4, epochs=7, schedule=schedule, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2e-3)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    (factor,) = get_scheduler(name, optimizer, warmup, run.steps).lr_lambdas
    rate = run.rates()
    assert [rate(step) for step in range(1, 8)] == [2e-3 * factor(step) for step in range(7)]


def test_masks_are_those_that_torch_draws_for_the_run_alone() -> None:
    import torch

    dice = Dice(3, "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for _ in range(2):  # epochs
            torch.empty((), dtype=torch.int64).random_()
            dice.begin_epoch()
            wanted = [torch.nn.functional.dropout(torch.ones(2, 5, width), 0.3) for width in (8, 24)]
            assert all(map(torch.equal, [dice.mask((2, 5, width), 0.3) for width in (8, 24)], wanted))
    kept = dice.state
    again = dice.mask((2, 5, 8), 0.3)
    dice.state = kept
    assert torch.equal(dice.mask((2, 5, 8), 0.3), again)
