"""Arrivals: the same seed gives the same, different agents differ, and the counts and gaps are what was asked for."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kabench.core.schedule import NS_PER_S, ZIPF_EXPONENT, Arrivals, Operations, Stream, compute
from kabench.core.seeds import derive_seed

STREAMS = (Stream("redis-0", 300.0, (8.0, 2.0), keys=100), Stream("echo-0", 200.0), Stream("none", 0.0))


def made(seed=1, arrivals="poisson", streams=STREAMS, warm_up_s=1.0, window_s=10.0):
    return compute(
        seed, arrivals, streams, warm_up_ns=round(warm_up_s * NS_PER_S), window_ns=round(window_s * NS_PER_S)
    )


def planned(seed=1, streams=STREAMS, window_s=10.0):
    return Arrivals(
        seed, "poisson", streams, warm_up_ns=NS_PER_S, window_ns=round(window_s * NS_PER_S)
    ).planned


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
@given(
    seed=st.integers(0, 2**63 - 1),
    rates=st.lists(st.floats(0, 2000), max_size=4),
    warm_up_ns=st.integers(0, 10**9),
    window_ns=st.integers(0, 10**9),
)
def test_every_schedule_is_sorted_inside_its_time_and_counted(arrivals, seed, rates, warm_up_ns, window_ns):
    streams = [
        Stream(f"t{number}", rate, (1.0, 0.0, 3.0), keys=number + 1) for number, rate in enumerate(rates)
    ]
    schedule = compute(seed, arrivals, streams, warm_up_ns=warm_up_ns, window_ns=window_ns)
    drawn = Arrivals(seed, arrivals, streams, warm_up_ns=warm_up_ns, window_ns=window_ns)
    due_ns = schedule.due_ns
    assert due_ns.dtype == schedule.target.dtype == schedule.op.dtype == np.int64
    assert due_ns.size == schedule.target.size == schedule.op.size
    assert (np.diff(due_ns) >= 0).all()
    assert ((due_ns >= -warm_up_ns) & (due_ns < window_ns)).all()
    assert (drawn.count, drawn.first) == (due_ns.size, np.count_nonzero(due_ns < 0))
    for number, stream in enumerate(streams):
        mine = schedule.target == number
        assert drawn.planned[stream.name] == np.count_nonzero(due_ns[mine] >= 0)
        assert ((schedule.op[mine] >= 0) & (schedule.op[mine] < 3 * stream.keys)).all()
        assert not (schedule.op[mine] // stream.keys == 1).any()


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_the_same_seed_gives_the_same_and_another_another(arrivals):
    one, same, other = made(7, arrivals), made(7, arrivals), made(8, arrivals)
    for name in ("due_ns", "target", "op"):
        assert np.array_equal(getattr(one, name), getattr(same, name))
    assert (
        not np.intersect1d(one.due_ns, other.due_ns).size > 5
    )  # two agents do not send at the same instants


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_a_stream_does_not_depend_on_the_others(arrivals):
    both = made(3, arrivals)
    alone = made(3, arrivals, STREAMS[1:2])
    assert np.array_equal(both.due_ns[both.target == 1], alone.due_ns)
    reordered = made(3, arrivals, STREAMS[::-1])
    redis = reordered.target == 2
    assert np.array_equal(both.op[both.target == 0], reordered.op[redis])


def test_what_is_due_at_the_same_instant_goes_by_the_order_of_the_streams():
    streams = [Stream("a", 1e9), Stream("b", 1e9)]
    schedule = compute(1, "constant", streams, warm_up_ns=0, window_ns=50)
    assert schedule.due_ns.tolist() == sorted([*range(50), *range(50)])
    assert schedule.target.tolist() == [0, 1] * 50


def test_constant_arrivals_are_evenly_spaced_from_a_phase_of_their_own():
    phases = set()
    for seed in range(20):
        due_ns = made(seed, "constant", (Stream("t", 300.0),), warm_up_s=0.0).due_ns
        assert due_ns.size == 3000
        assert set(np.diff(due_ns).tolist()) <= {3_333_333, 3_333_334}
        assert 0 <= due_ns[0] < 3_333_334
        phases.add(int(due_ns[0]))
    assert len(phases) == 20


def test_a_long_constant_schedule_does_not_drift():
    due_ns = made(1, "constant", (Stream("t", 7.0),), warm_up_s=0.0, window_s=3600.0).due_ns
    steps = np.arange(due_ns.size)
    assert np.abs(due_ns - due_ns[0] - steps * NS_PER_S / 7).max() <= 1


def test_poisson_counts_have_the_poisson_mean_and_variance():
    counts = np.array([planned(seed, (Stream("t", 50.0),), 4.0)["t"] for seed in range(2000)])
    assert abs(counts.mean() - 200) < 4 * math.sqrt(200 / counts.size)
    assert 0.9 < counts.var() / 200 < 1.1


def test_poisson_gaps_are_exponential():
    """Kolmogorov-Smirnov against 1 - exp(-x), at a level of 0.1%."""
    due_ns = made(11, streams=(Stream("t", 1000.0),), window_s=30.0).due_ns
    gaps = np.sort(np.diff(due_ns)) * 1e-6  # in mean gaps
    ranks = np.arange(1, gaps.size + 1) / gaps.size
    distance = np.abs(ranks - (1 - np.exp(-gaps))).max()
    assert distance < 1.95 / math.sqrt(gaps.size)
    assert abs(np.corrcoef(np.diff(due_ns)[:-1], np.diff(due_ns)[1:])[0, 1]) < 4 / math.sqrt(gaps.size)


@pytest.mark.parametrize("rate", [50.0, 1000.0, 20_000.0])
def test_poisson_arrivals_pass_a_kolmogorov_smirnov_test(rate):
    """scipy's, at whatever size of pieces they are drawn in: gaps are exponential, and instants even over the window."""
    for seed in range(3):
        due_ns = made(seed, streams=(Stream("t", rate),), warm_up_s=0.0, window_s=20_000 / rate).due_ns
        assert stats.kstest(np.diff(due_ns) * rate / NS_PER_S, "expon").pvalue > 1e-4
        assert stats.kstest(due_ns * rate / NS_PER_S / 20_000, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_no_two_agents_send_the_same_sequence(arrivals):
    """Agents have seeds of their own, derived as a controller does: at 300/s for 10 s no two share more than an instant."""
    streams = (Stream("t", 300.0, keys=1000),)
    seen = [
        made(derive_seed(1, "agent", 1, f"node-{number}"), arrivals, streams, warm_up_s=0.0)
        for number in range(20)
    ]
    for one, other in itertools.combinations(seen, 2):
        assert np.intersect1d(one.due_ns, other.due_ns).size <= 1
        size = min(one.op.size, other.op.size)
        assert (one.op[:size] == other.op[:size]).mean() < 0.01


def test_streams_of_one_agent_are_independent():
    """Counts per 10 ms of two streams with one seed do not move together."""
    schedule = made(5, streams=(Stream("a", 2000.0), Stream("b", 2000.0)), window_s=20.0)
    bins = np.arange(0, 20 * NS_PER_S, NS_PER_S // 100)
    a, b = (np.histogram(schedule.due_ns[schedule.target == number], bins)[0] for number in (0, 1))
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(bins.size)


def chi_square(counts, expected):
    return ((counts - expected) ** 2 / expected).sum()


def test_operations_follow_the_mix_and_cover_the_keys_evenly():
    ops = made(2, streams=(Stream("t", 20_000.0, (6.0, 3.0, 1.0), keys=100),)).op
    choices = np.bincount(ops // 100, minlength=3)
    assert chi_square(choices, ops.size * np.array([0.6, 0.3, 0.1])) < 2 + 4 * math.sqrt(2 * 2)
    keys = np.bincount(ops % 100, minlength=100)
    assert chi_square(keys, ops.size / 100) < 99 + 4 * math.sqrt(2 * 99)
    assert keys.size == 100


def test_zipf_keys_are_drawn_by_their_rank():
    ops = Operations(3, Stream("t", 1.0, (1.0, 1.0), keys=50, zipf=True)).take(200_000)
    weights = np.arange(1, 51) ** -ZIPF_EXPONENT
    keys = np.bincount(ops % 50, minlength=50)
    assert chi_square(keys, ops.size * weights / weights.sum()) < 49 + 4 * math.sqrt(2 * 49)
    assert abs((ops // 50).mean() - 0.5) < 4 * 0.5 / math.sqrt(
        ops.size
    )  # the choice does not depend on the key


@given(
    keys=st.integers(1, 1000),
    zipf=st.booleans(),
    weights=st.lists(st.floats(0, 1e9), min_size=1, max_size=5).filter(lambda weights: sum(weights) > 0),
    cuts=st.lists(st.integers(0, 50), max_size=4),
)
def test_operations_are_the_same_however_they_are_taken(keys, zipf, weights, cuts):
    stream = Stream("t", 1.0, tuple(weights), keys=keys, zipf=zipf)
    pieces, whole = Operations(1, stream), Operations(1, stream)
    taken = np.concatenate([pieces.take(count) for count in [*cuts, 7]])
    assert taken.dtype == np.int64
    assert np.array_equal(taken, whole.take(sum(cuts) + 7))
    assert all(weights[choice] > 0 for choice in taken // keys)
    assert (taken >= 0).all()


def test_a_draw_at_the_very_end_stays_within_the_keys():
    for stream in (
        Stream("t", 1.0, keys=999_983),
        Stream("t", 1.0, keys=1_000_000),
        Stream("t", 1.0, (0.1, 0.2, 0.0), keys=7, zipf=True),
    ):
        operations = Operations(1, stream)
        operations._rng = SimpleNamespace(random=lambda shape: np.full(shape, np.nextafter(1.0, 0.0)))
        (op,) = operations.take(1).tolist()
        assert op == (stream.keys - 1) + stream.keys * (len(stream.weights) > 1)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (Stream("t", 1.0, keys=0), "at least one key"),
        (Stream("t", 1.0, ()), "weights"),
        (Stream("t", 1.0, (0.0, 0.0)), "weights"),
        (Stream("t", 1.0, (1.0, -1.0)), "weights"),
        (Stream("t", 1.0, (math.nan,)), "weights"),
        (Stream("t", 1.0, (math.inf,)), "weights"),
    ],
)
def test_what_makes_no_operations_is_refused(stream, words):
    with pytest.raises(ValueError, match=words):
        Operations(1, stream)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrivals": "uniform"}, "poisson, constant"),
        ({"streams": (Stream("t", -1.0),)}, "t: a rate"),
        ({"streams": (Stream("t", math.nan),)}, "t: a rate"),
        ({"streams": (Stream("t", math.inf),)}, "t: a rate"),
        ({"streams": (Stream("t", 1.0), Stream("t", 2.0))}, "twice"),
        ({"window_s": -1.0}, "negative"),
        ({"warm_up_s": -1.0}, "negative"),
    ],
)
def test_what_makes_no_schedule_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        made(**change)


def test_no_streams_make_an_empty_schedule():
    schedule = made(streams=())
    assert schedule.due_ns.size == 0
    assert planned(streams=()) == {}


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_a_ramp_brings_the_counts_of_its_rates(arrivals):
    """From 0 to 2,000/s within 10 s: (2k + 1) % of the arrivals in the k-th tenth, and the null echo's stay even."""
    streams = (Stream("t", 1000.0), Stream("null", 1000.0, steady=True))
    schedule = compute(4, arrivals, streams, warm_up_ns=0, window_ns=10 * NS_PER_S, profile=((0, 0), (1, 2)))
    tenths = [np.histogram(schedule.due_ns[schedule.target == n], 10, (0, 10 * NS_PER_S))[0] for n in (0, 1)]
    ramp = 100.0 * (2 * np.arange(10) + 1)
    most = 9 + 4 * math.sqrt(2 * 9) if arrivals == "poisson" else 1
    assert chi_square(tenths[0], ramp) < most
    assert chi_square(tenths[1], np.full(10, 1000.0)) < most


def test_parts_are_short_however_long_the_window_is():
    drawn = Arrivals(1, "poisson", STREAMS, warm_up_ns=0, window_ns=3600 * NS_PER_S)
    sizes = [drawn.next().due_ns.size for _ in range(100)]
    assert max(sizes) < 1000
    assert abs(drawn.count - 500 * 3600) < 4 * math.sqrt(500 * 3600)
