"""The rings of requests: what they hold, however many there have been, and what they never mistake."""

import random

import numpy as np
import pytest

from kabench.core.schedule import Arrivals, Stream, compute
from kabench_agent.flights import AHEAD, LOW, NEVER, SMALLEST, Flights

STREAMS = (Stream("a", 3_000.0, keys=50), Stream("b", 2_000.0))
S = 1_000_000_000
WINDOW = {"warm_up_ns": S, "window_ns": 5 * S}


def made(seed=1):
    return Flights(Arrivals(seed, "poisson", STREAMS, **WINDOW), 7), compute(
        seed, "poisson", STREAMS, **WINDOW
    )


def issue(flights, at_ns=1):
    index = flights.issued
    if index == flights.drawn:
        flights.draw()
    flights.take_off(index, flights.target[index & flights.mask])
    flights.issued_ns[index & flights.mask] = at_ns
    flights.draw()
    return index


def test_the_whole_schedule_passes_through_a_ring_that_stays_as_it_is():
    flights, whole = made()
    for index in range(flights.count):
        at = index & flights.mask
        assert flights.next_ns == whole.due_ns[index] + 7
        assert (flights.target[at], flights.op[at]) == (whole.target[index], whole.op[index])
        assert (flights.issued_ns[at], flights.sent_ns[at], flights.connection[at]) == (NEVER, NEVER, 0)
        assert issue(flights) == index
        flights.send(index, 5, 3)
        assert flights.drawn - flights.issued >= min(LOW, flights.count - flights.issued)
        flights.land(index)
    assert flights.over
    assert flights.next_ns is None
    assert flights.count > 5 * SMALLEST
    assert flights.mask == SMALLEST - 1


def test_a_short_window_is_drawn_whole_before_it_begins_and_of_a_long_one_the_beginning():
    few = Arrivals(1, "poisson", [Stream(f"t{number}", 50.0) for number in range(8)], **WINDOW)
    flights = Flights(few, 7)
    assert flights.drawn == flights.count > 2_000
    long, _ = made()
    assert AHEAD <= long.drawn < long.count


@pytest.mark.parametrize("seed", range(5))
def test_what_is_under_way_keeps_its_numbers_while_the_rings_turn_and_grow(seed):
    """Against a plain dictionary; up to 6,000 are under way at once, in no order."""
    draw = random.Random(seed)
    flights, whole = made(seed)
    held = {}
    while flights.issued < flights.count or held:
        if flights.issued < flights.count and (len(held) < 10 or draw.random() < 0.6):
            index = issue(flights, at_ns=draw.randrange(10**9))
            flights.send(index, draw.randrange(10**9), draw.randrange(8))
            at = index & flights.mask
            held[index] = (flights.issued_ns[at], flights.sent_ns[at], flights.connection[at])
        else:
            index = draw.choice(tuple(held)) if draw.random() < 0.01 else next(iter(held))
            at = index & flights.mask
            assert flights.is_open(index)
            assert (flights.issued_ns[at], flights.sent_ns[at], flights.connection[at]) == held.pop(index)
            assert (flights.due_ns[at], flights.operation(index)) == (
                whole.due_ns[index] + 7,
                whole.op[index],
            )
            flights.land(index)
            assert not flights.is_open(index)
        if flights.issued % 100 == 0:
            assert flights.oldest() == min(held, default=None)
    assert flights.over


def test_an_index_that_is_over_is_never_taken_for_the_one_that_has_its_place():
    flights, _ = made()
    first = issue(flights)
    flights.land(first)
    while flights.issued <= SMALLEST + 10:
        index = issue(flights)
        if index & flights.mask != first:
            flights.land(index)
    assert flights.is_open(SMALLEST)
    assert SMALLEST & flights.mask == first
    assert not flights.is_open(first)


def test_rings_grow_with_what_is_under_way():
    flights, whole = made()
    while flights.issued < 3 * SMALLEST:
        issue(flights, at_ns=flights.issued)
    assert flights.mask + 1 == 4 * SMALLEST
    assert flights.oldest() == 0
    places = np.arange(3 * SMALLEST) & flights.mask
    assert np.array(flights.issued_ns)[places].tolist() == list(range(3 * SMALLEST))
    assert np.array_equal(np.array(flights.op)[places], whole.op[: 3 * SMALLEST])
