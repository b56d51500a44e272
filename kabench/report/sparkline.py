"""A curve in one line of block characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
FLAT = 1.25
"""Highest over lowest up to which a curve is drawn flat: else the eye would see waves where there are none."""


def sparkline(values: Sequence[float | None], width: int, *, from_zero: bool = False) -> str:
    """The last `width` values, the newest at the right; blank where there is none.

    Heights are logarithmic, from the lowest to the highest of those that are shown: times differ by factors. With
    `from_zero` they are linear, from zero on: for rates.
    """
    shown = list(values)[-width:] if width > 0 else []
    there = [value for value in shown if value is not None and (from_zero or value > 0)]
    if not there:
        return " " * len(shown)
    low, high = min(there), max(there)
    return "".join(_block(value, low, high, from_zero=from_zero) for value in shown)


def _block(value: float | None, low: float, high: float, *, from_zero: bool) -> str:
    if value is None or (value <= 0 and not from_zero):
        return " "
    if from_zero:
        height = value / high if high else 0.0
    elif high <= FLAT * low:
        return BLOCKS[0]
    else:
        height = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return BLOCKS[min(len(BLOCKS) - 1, int(height * len(BLOCKS)))]
