"""Ramps and steps: the integral, its inverse, and what is refused."""

import numpy as np
import pytest

from kabench.core.profile import Profile

S = 1_000_000_000


def test_without_points_instants_are_even():
    profile = Profile((), S, 4 * S)
    assert profile.total_ns == 5 * S
    assert profile.instants_ns(np.array([0.0, S, 5.0 * S])).tolist() == [-S, 0, 4 * S]


def test_a_ramp_from_nothing_reaches_a_quarter_of_its_area_half_way():
    profile = Profile(((0, 0), (1, 2)), 0, 10 * S)
    assert profile.total_ns == pytest.approx(10 * S)
    assert profile.instants_ns(np.array([2.5, 10]) * S) == pytest.approx([5 * S, 10 * S])


def test_a_step_changes_the_rate_at_its_instant():
    profile = Profile(((0, 1), (0.5, 1), (0.5, 3), (1, 3)), S, 2 * S)
    assert profile.total_ns == pytest.approx((1 + 1 + 3) * S)
    assert profile.instants_ns(np.array([1, 2, 3.5, 5]) * S) == pytest.approx([0, S, 1.5 * S, 2 * S])


def test_the_factor_stays_before_the_first_point_and_after_the_last():
    profile = Profile(((0.5, 2), (0.75, 4)), 0, 4 * S)
    assert profile.total_ns == pytest.approx((2 * 2 + 3 + 4) * S)


def test_nothing_falls_where_the_factor_is_zero():
    profile = Profile(((0, 1), (0.25, 1), (0.25, 0), (0.75, 0), (0.75, 1), (1, 1)), 0, 4 * S)
    at_ns = profile.instants_ns(np.linspace(0, profile.total_ns, 1001))
    assert not np.any((at_ns > 1.001 * S) & (at_ns < 2.999 * S))


@pytest.mark.parametrize("seed", range(20))
def test_the_inverse_is_the_inverse(seed):
    rng = np.random.default_rng(seed)
    parts = np.sort(rng.random(5))
    points = tuple(zip(parts.tolist(), (rng.random(5) * 3).tolist(), strict=True))
    profile = Profile(points, S // 2, 3 * S)
    at_ns = np.sort(rng.uniform(-S // 2, 3 * S, 200))
    fine_ns = np.linspace(-S // 2, 3 * S, 2_000_001)
    factor = np.interp(fine_ns / (3 * S), [p for p, _ in points], [f for _, f in points])
    area_ns = np.concatenate([[0], np.cumsum((factor[1:] + factor[:-1]) / 2 * np.diff(fine_ns))])
    found_ns = profile.instants_ns(np.interp(at_ns, fine_ns, area_ns))
    at_start = points[0][1]
    # the warm-up has the factor of the window's start, not of the first point's continuation
    assert at_start == factor[0]
    assert np.abs(found_ns - at_ns).max() < 1e-4 * S


@pytest.mark.parametrize(
    "points", [((0.5, 1), (0.4, 1)), ((-0.1, 1),), ((1.1, 1),), ((0, -1),), ((0, float("inf")),)]
)
def test_what_is_no_profile_is_refused(points):
    with pytest.raises(ValueError, match="a profile's"):
        Profile(points, 0, S)
