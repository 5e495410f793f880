"""Whose turn it is."""

from __future__ import annotations

import pytest

from engine.run.accounts.quota.flows import FEW, GRACE, Flows, Ticket


def put(flows: Flows, flow: str, number: int = 1, *, tokens: int = 100, urgent: bool = False) -> list[Ticket]:
    tickets = [Ticket(flow, urgent=urgent, tokens=tokens) for _ in range(number)]
    for ticket in tickets:
        flows.put(ticket)
    return tickets


def test_a_flow_keeps_its_order_and_what_is_sent_again_goes_first() -> None:
    flows = Flows()
    tickets = put(flows, "cell", 3)
    first = flows.take()
    assert first is tickets[0]
    flows.put_back(first)
    assert [flows.take() for _ in range(3)] == tickets
    assert flows.peek() is None
    with pytest.raises(IndexError):
        flows.take()


def test_judges_go_before_generators_who_do_not_starve() -> None:
    flows = Flows()
    put(flows, "generate", 10)
    put(flows, "judge", 100, urgent=True)
    order = [flows.take().flow for _ in range(96)]
    assert order.count("generate") == 96 // GRACE
    assert order[0] == "judge"


def test_a_flow_that_is_nearly_finished_goes_first() -> None:
    flows = Flows()
    flows.expect("young", 1000)
    flows.expect("old", 100)
    put(flows, "young", 500, tokens=5000)
    put(flows, "old", FEW, tokens=5000)
    for _ in range(100 - 10):  # at a tenth of its asks it is nearly finished
        flows.ended("old")
    assert [flows.take().flow for _ in range(FEW)] == ["old"] * FEW
    for _ in range(10):
        flows.ended("old")
    assert flows.take().flow == "young"


def test_whose_turn_it_is_keeps_it_while_others_come() -> None:
    flows = Flows()
    put(flows, "a", tokens=50_000)
    head = flows.peek()
    put(flows, "b", 20)
    assert flows.peek() is head
    assert flows.take() is head


def test_the_largest_that_fits_is_found_and_taken() -> None:
    flows = Flows()
    put(flows, "a", tokens=9000)
    put(flows, "a", tokens=100)
    put(flows, "b", tokens=300)
    assert flows.take_smaller(50) is None
    found = flows.take_smaller(400)
    assert found is not None
    assert found.tokens == 300
    assert flows.waiting == 2


def test_who_gives_up_is_forgotten() -> None:
    flows = Flows()
    first, second = put(flows, "a", 2)
    flows.peek()
    flows.drop(first)
    assert flows.take() is second
    assert flows.waiting == 0
