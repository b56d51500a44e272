"""Curves of block characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kabench.report.sparkline import BLOCKS, sparkline


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([None, None], "  "),
        ([5], "▁"),
        ([5, 5.5, 5], "▁▁▁"),
        ([1, 10, 100], "▁▅█"),
        ([1, None, 100], "▁ █"),
        ([0, 1, 256], " ▁█"),
        ([1, 2, 4, 8, 16, 32, 64, 128, 256], "▁▂▃▄▅▆▇██"),
    ],
)
def test_heights_are_logarithmic(values: list[float | None], drawn: str) -> None:
    assert sparkline(values, 20) == drawn


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([0, 50, 99, 100], "▁▅██"), ([0, 0], "▁▁"), ([100, 101], "██"), ([None, 1], " █")],
)
def test_rates_are_drawn_from_zero(values: list[float | None], drawn: str) -> None:
    assert sparkline(values, 20, from_zero=True) == drawn


def test_only_the_last_are_drawn_and_they_alone_make_the_scale() -> None:
    assert sparkline([1000, 1, 10, 100], 3) == "▁▅█"
    assert sparkline([1, 2], 0) == ""


@given(
    values=st.lists(
        st.one_of(st.none(), st.floats(0, 1e12, allow_nan=False, allow_subnormal=False)), max_size=50
    ),
    width=st.integers(0, 60),
    from_zero=st.booleans(),
)
def test_any_values_give_one_character_each(values: list[float | None], width: int, from_zero: bool) -> None:
    drawn = sparkline(values, width, from_zero=from_zero)
    assert len(drawn) == min(len(values), width)
    assert set(drawn) <= {*BLOCKS, " "}
