"""How the offered rate changes within a window: ramps and steps. Pure.

A profile is a list of points (part of the window, factor); between two of them the factor changes evenly, two at one
instant are a step, and before the first and after the last it stays. The warm-up has the factor of the window's start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = Sequence[tuple[float, float]]
Floats = NDArray[np.float64]


class Profile:
    """The factor over warm-up and window, and its integral, both ways.

    Args:
        points: (part of the window from 0 to 1, factor), ascending by part; none: the factor is 1 throughout.
        warm_up_ns, window_ns: lengths.

    Raises:
        ValueError: parts that do not ascend or lie outside 0 … 1, or a negative factor.

    Attributes:
        warm_up_ns, window_ns: as given.
        warm_up_area_ns: the integral at the window's start.
        total_ns: the integral over all: the time at factor 1 that would bring as many arrivals.
    """

    def __init__(self, points: Points, warm_up_ns: int, window_ns: int) -> None:
        _check(points)
        parts = [0.0, *(part for part, _ in points), 1.0] if points else [0.0, 1.0]
        factors = [points[0][1], *(factor for _, factor in points), points[-1][1]] if points else [1.0, 1.0]
        at_ns = np.array([-warm_up_ns, *(part * window_ns for part in parts)])
        factor = np.array([factors[0], *factors])
        lengths_ns = np.diff(at_ns)
        kept = lengths_ns > 0  # a step has no length
        self._begin_ns: Floats = at_ns[:-1][kept]
        self._factor: Floats = factor[:-1][kept]
        self._slope: Floats = np.diff(factor)[kept] / lengths_ns[kept]
        areas_ns = (factor[:-1] + factor[1:])[kept] / 2 * lengths_ns[kept]
        self._before_ns: Floats = np.concatenate([np.zeros(1), np.cumsum(areas_ns)])
        self.warm_up_ns, self.window_ns = warm_up_ns, window_ns
        self.warm_up_area_ns = float(factor[0] * warm_up_ns)
        self.total_ns = float(self._before_ns[-1])

    def instants_ns(self, area_ns: Floats) -> Floats:
        """When the integral from the warm-up's begin on reaches each of `area_ns` (0 … total_ns): relative to the start."""
        if not self._factor.size:
            return np.zeros_like(area_ns)
        segment = np.searchsorted(self._before_ns, area_ns, side="right") - 1
        segment = np.minimum(segment, self._factor.size - 1)
        left_ns = area_ns - self._before_ns[segment]
        factor, slope = self._factor[segment], self._slope[segment]
        # factor·x + slope·x²/2 = left, solved so that nothing cancels where the slope is small
        root = np.sqrt(np.maximum(factor**2 + 2 * slope * left_ns, 0.0))
        reached = factor + root
        after_ns = np.divide(2 * left_ns, reached, out=np.zeros_like(left_ns), where=reached > 0)
        return self._begin_ns[segment] + after_ns


def _check(points: Points) -> None:
    parts = [part for part, _ in points]
    if parts != sorted(parts) or any(not 0 <= part <= 1 for part in parts):
        raise ValueError("a profile's parts ascend from 0 to 1")
    if any(not 0 <= factor < float("inf") for _, factor in points):
        raise ValueError("a profile's factors are not negative")
