"""Whose turn it is."""

from __future__ import annotations

import pytest

from engine.run.accounts.quota.fair_queue import FEW, GRACE, FairQueue, Ticket


def put(fair_queue: FairQueue, flow: str, number: int = 1, *, tokens: int = 100, urgent: bool = False) -> list[Ticket]:
    tickets = [Ticket(flow, urgent=urgent, tokens=tokens) for _ in range(number)]
    for ticket in tickets:
        fair_queue.put(ticket)
    return tickets


def test_a_flow_keeps_its_order_and_what_is_sent_again_goes_first() -> None:
    fair_queue = FairQueue()
    tickets = put(fair_queue, "cell", 3)
    first = fair_queue.take()
    assert first is tickets[0]
    fair_queue.put_back(first)
    assert [fair_queue.take() for _ in range(3)] == tickets
    assert fair_queue.peek() is None
    with pytest.raises(IndexError):
        fair_queue.take()


def test_judges_go_before_generators_who_do_not_starve() -> None:
    fair_queue = FairQueue()
    put(fair_queue, "generate", 10)
    put(fair_queue, "judge", 100, urgent=True)
    order = [fair_queue.take().flow for _ in range(96)]
    assert order.count("generate") == 96 // GRACE
    assert order[0] == "judge"


def test_a_flow_that_is_nearly_finished_goes_first() -> None:
    fair_queue = FairQueue()
    fair_queue.expect("young", 1000)
    fair_queue.expect("old", 100)
    put(fair_queue, "young", 500, tokens=5000)
    put(fair_queue, "old", FEW, tokens=5000)
    for _ in range(100 - 10):  # at a tenth of its requests it is nearly finished
        fair_queue.ended("old")
    assert [fair_queue.take().flow for _ in range(FEW)] == ["old"] * FEW
    for _ in range(10):
        fair_queue.ended("old")
    assert fair_queue.take().flow == "young"


def test_whose_turn_it_is_keeps_it_while_others_come() -> None:
    fair_queue = FairQueue()
    put(fair_queue, "a", tokens=50_000)
    head = fair_queue.peek()
    put(fair_queue, "b", 20)
    assert fair_queue.peek() is head
    assert fair_queue.take() is head


def test_the_largest_that_fits_is_found_and_taken() -> None:
    fair_queue = FairQueue()
    put(fair_queue, "a", tokens=9000)
    put(fair_queue, "a", tokens=100)
    put(fair_queue, "b", tokens=300)
    assert fair_queue.take_smaller(50) is None
    found = fair_queue.take_smaller(400)
    assert found is not None
    assert found.tokens == 300
    assert fair_queue.waiting == 2


def test_who_gives_up_is_forgotten() -> None:
    fair_queue = FairQueue()
    first, second = put(fair_queue, "a", 2)
    fair_queue.peek()
    fair_queue.drop(first)
    assert fair_queue.take() is second
    assert fair_queue.waiting == 0
