"""Slots: how CPUs are divided among nodes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kabench.backends.simulation import slot_cpus


@pytest.mark.parametrize(
    ("cpus", "count", "expected"),
    [
        ([0, 1], 6, [{0}, {0}, {0}, {1}, {1}, {1}]),
        ([0, 1], 1, [{0, 1}]),
        ([0, 1, 2], 2, [{0}, {1, 2}]),
        ([3], 3, [{3}, {3}, {3}]),
        ([2, 5, 7, 8], 2, [{2, 5}, {7, 8}]),
        ([0, 1, 2, 3], 3, [{0}, {1}, {2, 3}]),
    ],
)
def test_division(cpus: list[int], count: int, expected: list[set[int]]) -> None:
    assert slot_cpus(cpus, count) == expected


@given(total=st.integers(1, 200), count=st.integers(1, 50))
def test_every_cpu_is_used_and_neighbours_stay_neighbours(total: int, count: int) -> None:
    found = slot_cpus(range(total), count)
    assert len(found) == count
    assert frozenset().union(*found) == frozenset(range(total))
    assert all(slot and max(slot) - min(slot) == len(slot) - 1 for slot in found)
    assert all(min(a) <= min(b) for a, b in itertools.pairwise(found))
    if total >= count:
        assert sum(map(len, found)) == total  # disjoint
