"""Paired inference on blocks' log-ratios: the exact sign-flip test, its inversion, Student's interval, Holm.

Were there no difference, each block's log-ratio could as well have come with the other sign. The two-sided p is the
share of the 2ⁿ sign patterns whose sum lies at least as far from zero as the observed one.

Inverting it needs no search. Move all log-ratios by θ and flip the signs of a subset: the flipped sum is at least as far
out exactly when the subset's mean and the mean of the rest lie on different sides of θ (or on it). So every split of the
blocks in two is an interval that holds the mean of all, p(θ) is the share of splits whose interval holds θ, and it only
falls with the distance from the mean: the confidence interval is an order statistic of the splits' ends. Test and
interval count the same numbers, so p ≤ α exactly when zero lies outside the interval.

Up to `EXACT_BLOCKS` blocks all splits are counted; beyond it a fixed number is drawn from a seed, and the observed pattern
counts as one of them, which keeps the test valid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

EXACT_BLOCKS = 20
"""2¹⁹ splits take some 20 ms; no run in sight has more blocks."""
DRAWS = 20_000
"""Splits drawn beyond that: p near 0.05 is then known to ± 0.002."""
ALPHA = 0.05
_SEED = 20_011
_CHUNK = 2_000
_TIE = 1e-12  # of the largest log-ratio: two means that differ by less are rounding, and count as equal

Floats = NDArray[np.float64]


class SignFlip:
    """The sign-flip test of paired differences (here log-ratios), and its inversion.

    Args:
        differences: one a block; at least one, all finite.

    Raises:
        ValueError: there is none, or one is not finite.
    """

    def __init__(self, differences: Sequence[float]) -> None:
        values = np.asarray(differences, dtype=np.float64)
        if values.size == 0 or not np.isfinite(values).all():
            raise ValueError("the sign-flip test takes one or more finite differences")
        first, second = _exact_splits(values) if values.size <= EXACT_BLOCKS else _drawn_splits(values)
        slack = _TIE * float(np.abs(values).max())
        self._low = np.minimum(first, second) - slack
        self._high = np.maximum(first, second) + slack
        self._patterns = self._low.size + 1  # with the observed one, which every θ agrees with

    def p_value(self, shift: float = 0.0) -> float:
        """Two-sided p of the differences being symmetric about `shift`."""
        holding = np.count_nonzero((self._low <= shift) & (shift <= self._high))
        return float(1 + holding) / self._patterns

    def interval(self, alpha: float = ALPHA) -> tuple[float, float] | None:
        """All shifts with p > alpha, ends included; None where so few blocks exclude nothing.

        At alpha = 0.05 that is below six blocks.
        """
        # the fewest splits that must hold a shift for its p to be above alpha
        needed = max(0, math.floor(alpha * self._patterns) - 1)
        while (1 + needed) / self._patterns <= alpha:  # the same division as in p_value, so that both agree
            needed += 1
        if needed == 0:
            return None
        low = np.partition(self._low, needed - 1)[needed - 1]
        high = np.partition(self._high, self._high.size - needed)[self._high.size - needed]
        return float(low), float(high)


def _exact_splits(values: Floats) -> tuple[Floats, Floats]:
    """Means of both parts of every split in two; the first value stays in the second part, so none comes twice."""
    sums, sizes = np.zeros(1), np.zeros(1)
    for value in values[1:]:
        sums = np.concatenate([sums, sums + value])
        sizes = np.concatenate([sizes, sizes + 1])
    sums, sizes = sums[1:], sizes[1:]  # without the empty part
    return sums / sizes, (values.sum() - sums) / (values.size - sizes)


def _drawn_splits(values: Floats) -> tuple[Floats, Floats]:
    generator = np.random.default_rng([_SEED, values.size])
    sums, sizes = [], []
    for _ in range(DRAWS // _CHUNK):
        chosen = generator.random((_CHUNK, values.size)) < 0.5
        sums.append(chosen @ values)
        sizes.append(chosen.sum(axis=1))
    total, size = np.concatenate(sums), np.concatenate(sizes)
    proper = (size > 0) & (size < values.size)  # one in 2²⁰ is not: such a draw is the observed pattern again
    total, size = total[proper], size[proper]
    return total / size, (values.sum() - total) / (values.size - size)


def student_interval(differences: Sequence[float], alpha: float = ALPHA) -> tuple[float, float] | None:
    """Student's interval of the mean; None below two differences."""
    from scipy.special import stdtrit  # half a second to import; only a comparison needs it

    values = np.asarray(differences, dtype=np.float64)
    if values.size < 2:
        return None
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size)
    reach = float(stdtrit(values.size - 1, 1 - alpha / 2)) * error
    return mean - reach, mean + reach


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's step-down correction, in the order given."""
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def blocks_needed(kinds: int, alpha: float = ALPHA) -> int:
    """The fewest blocks with which the smallest p that n blocks can give, 2/2ⁿ, survives Holm over `kinds`."""
    return max(1, math.ceil(math.log2(2 * max(1, kinds) / alpha) - 1e-9))


def smallest_effect(differences: Sequence[float], kinds: int = 1, power: float = 0.8) -> float | None:
    """The ratio (> 1, in either direction) found with `power` where blocks scatter as these do.

    Student's approximation, at Holm's first step. None where so few blocks could not find any effect.
    """
    from scipy.special import stdtrit  # as above

    n = len(differences)
    if n < blocks_needed(kinds):
        return None
    error = float(np.std(np.asarray(differences, dtype=np.float64), ddof=1)) / math.sqrt(n)
    reach = float(stdtrit(n - 1, 1 - ALPHA / (2 * max(1, kinds))) + stdtrit(n - 1, power))
    return math.exp(reach * error)


def geometric_mean(values: Iterable[float]) -> float | None:
    """The mean on the logarithmic scale, of positive values; None of none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None
