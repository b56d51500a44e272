"""The sign-flip test against brute force, its inversion against the test, and both against simulated blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kabench.analysis.inference import (
    EXACT_BLOCKS,
    SignFlip,
    blocks_needed,
    geometric_mean,
    holm,
    smallest_effect,
    student_interval,
)

DIFFERENCES = st.lists(st.floats(-3, 3, allow_nan=False).map(lambda x: round(x, 3)), min_size=1, max_size=9)


def brute_p(differences: list[float], shift: float) -> float:
    moved = [value - shift for value in differences]
    observed = abs(sum(moved)) - 1e-9
    sums = [
        abs(sum(s * v for s, v in zip(signs, moved, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(moved))
    ]
    return sum(value >= observed for value in sums) / len(sums)


@given(DIFFERENCES, st.floats(-3, 3).map(lambda x: round(x, 2) + 0.0005))
def test_p_equals_the_enumeration_of_all_signs(differences: list[float], shift: float) -> None:
    assert SignFlip(differences).p_value(shift) == pytest.approx(brute_p(differences, shift), abs=1e-12)


def test_p_agrees_with_scipys_permutation_test() -> None:
    values = np.random.default_rng(3).normal(0.4, 0.6, 9)
    known = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert SignFlip(list(values)).p_value() == pytest.approx(known.pvalue, abs=1e-12)


@pytest.mark.parametrize(
    ("differences", "p"),
    [([0.5] * 6, 2 / 64), ([0.5] * 7, 2 / 128), ([0.5], 1.0), ([0.0] * 8, 1.0), ([0.0, 0.0, 1.0], 1.0)],
)
def test_p_in_known_cases(differences: list[float], p: float) -> None:
    assert SignFlip(differences).p_value() == p


@settings(max_examples=200)
@given(st.lists(st.floats(-2, 2), min_size=6, max_size=12), st.floats(-1, 1))
def test_interval_and_p_never_disagree(differences: list[float], shift: float) -> None:
    test = SignFlip(differences)
    interval = test.interval()
    assert interval is not None
    for at in (0.0, shift, *interval):
        assert (interval[0] <= at <= interval[1]) == (test.p_value(at) > 0.05)


@pytest.mark.parametrize("seed", range(20))
def test_interval_and_p_agree_where_splits_are_drawn(seed: int) -> None:
    values = list(np.random.default_rng(seed).normal(0.1, 0.25, EXACT_BLOCKS + 4))
    test = SignFlip(values)
    interval = test.interval()
    assert interval is not None
    assert (interval[0] <= 0 <= interval[1]) == (test.p_value() > 0.05)
    t = stats.ttest_1samp(values, 0).pvalue
    assert test.p_value() == pytest.approx(t, abs=0.02)
    assert SignFlip(values).interval() == interval  # drawn from a seed


@pytest.mark.parametrize("blocks", range(1, 6))
def test_fewer_than_six_blocks_give_no_interval(blocks: int) -> None:
    assert SignFlip([0.5 + i / 100 for i in range(blocks)]).interval() is None


def test_the_mean_of_equal_differences_is_the_whole_interval() -> None:
    low, high = SignFlip([0.25] * 8).interval() or (0, 0)
    assert low == pytest.approx(0.25) == high


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.inf]])
def test_what_cannot_be_tested_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        SignFlip(bad)


@pytest.mark.parametrize(("blocks", "level"), [(6, 2 / 64), (7, 6 / 128), (8, 12 / 256), (10, 50 / 1024)])
def test_false_alarms_on_simulated_blocks_without_a_difference(blocks: int, level: float) -> None:
    runs = 20_000
    noise = np.random.default_rng(blocks).normal(0, 0.3, (runs, blocks))
    alarms = sum(SignFlip(row).p_value() < 0.05 for row in noise) / runs
    assert alarms <= 0.05
    assert alarms == pytest.approx(level, abs=4 * math.sqrt(level / runs))  # exact tests have a known level


@pytest.mark.parametrize("blocks", [7, 8, 10])
def test_intervals_cover_the_truth_on_simulated_blocks(blocks: int) -> None:
    runs, true = 5000, math.log(0.6)
    covered = 0
    for row in np.random.default_rng(100 + blocks).normal(true, 0.3, (runs, blocks)):
        low, high = SignFlip(row).interval() or (math.inf, -math.inf)
        covered += low <= true <= high
    assert 0.93 <= covered / runs <= 0.97


def test_students_interval_is_scipys() -> None:
    values = [0.1, 0.4, 0.2, 0.6, 0.3]
    known = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert student_interval(values) == pytest.approx((known.low, known.high))
    assert student_interval([0.1]) is None


@pytest.mark.parametrize(
    ("given_p", "adjusted"),
    [
        ([0.01, 0.04], [0.02, 0.04]),
        ([0.04, 0.01], [0.04, 0.02]),
        ([0.03, 0.04], [0.06, 0.06]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
        ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]),
    ],
)
def test_holm(given_p: list[float], adjusted: list[float]) -> None:
    assert holm(given_p) == pytest.approx(adjusted)


@pytest.mark.parametrize(("kinds", "blocks"), [(1, 6), (2, 7), (3, 7), (4, 8)])
def test_blocks_needed_is_the_first_number_that_can_decide(kinds: int, blocks: int) -> None:
    assert blocks_needed(kinds) == blocks
    assert kinds * 2 / 2**blocks <= 0.05 < kinds * 2 / 2 ** (blocks - 1)


def test_the_smallest_effect_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(11)
    sample = rng.normal(0, 1, 12)
    sample = (sample - sample.mean()) / sample.std(ddof=1) * 0.3  # its scatter is the true one
    effect = smallest_effect(list(sample))
    assert effect is not None
    found = [SignFlip(row).p_value() <= 0.05 for row in rng.normal(math.log(effect), 0.3, (1000, 12))]
    assert 0.74 <= sum(found) / len(found) <= 0.86
    assert smallest_effect([0.1] * 5) is None
    assert smallest_effect([0.1] * 6, kinds=2) is None
    assert smallest_effect([0.1] * 7, kinds=2) == pytest.approx(1.0)


def test_geometric_mean() -> None:
    assert geometric_mean([1, 4]) == pytest.approx(2)
    assert geometric_mean([]) is None
