"""The search for the highest rate that holds a promise: what is asked for, what is tried, and what is said in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kabench.analysis.rate_search import (
    ERRORS_ALLOWED,
    HIGHEST_PER_S,
    LOWEST_PER_S,
    PRECISION,
    Promise,
    RateSearch,
    answer,
    judged,
    parse_promise,
)
from kabench.core.histogram import Histogram
from kabench.core.identity import Cell, Kind, Metric, Outcomes
from kabench.core.result import AgentWindow, CellRecord, Tried
from kabench.errors import SpecError

MS = 1_000_000
PROMISE = parse_promise("p99 < 1ms")


@pytest.mark.parametrize(
    ("text", "limits", "errors"),
    [
        ("p99 < 1ms", {0.99: MS}, ERRORS_ALLOWED),
        ("p99.9<=500us", {0.999: MS // 2}, ERRORS_ALLOWED),
        (" p50≤.5ms , errors < 0.5% ", {0.5: MS // 2}, 0.005),
        ("p99 < 1s and p99.99 < 2s", {0.99: 1000 * MS, 0.9999: 2000 * MS}, ERRORS_ALLOWED),
        ("errors < 0.01", {}, 0.01),
        ("error <= 0%", {}, 0),
        ("p99 < 7µs", {0.99: 7000}, ERRORS_ALLOWED),
    ],
)
def test_a_promise_is_read(text: str, limits: dict[float, int], errors: float) -> None:
    promise = parse_promise(text)
    assert promise.limits_ns == pytest.approx(limits)
    assert promise.errors == pytest.approx(errors)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no promise; give p50, p99"),
        ("p99", "'p99' is no promise"),
        ("p99 > 1ms", "'p99 > 1ms' is no promise"),
        ("p99 < 1", "p99 wants a time such as 500us or 1ms"),
        ("p99 < 1%", "p99 wants a time"),
        ("p99 < 0ms", "p99 wants a time"),
        ("p0 < 1ms", "give each quantile once"),
        ("p999 < 1ms", "'p999 < 1ms' is no promise"),
        ("p99 < 1ms, p99 < 2ms", "give each quantile once"),
        ("errors < 1ms", "errors are a share"),
        ("errors < 1%, errors < 2%", "errors are a share, given once"),
        ("errors < 200%", "a share of errors is 0 to 100%"),
        ("mean < 1ms", "'mean < 1ms' is no promise"),
        ("p99 < 1ms,", "'' is no promise"),
    ],
)
def test_what_is_no_promise_is_refused(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_promise(text)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"--find-rate {text!r}: ")


def run(search: RateSearch, holds: Callable[[float], bool]) -> list[float]:
    """The rates tried, in their order."""
    tried = []
    while (rate := search.next_rate()) is not None:
        tried.append(rate)
        search.record(rate, holds=holds(rate))
    return tried


def test_rates_are_doubled_until_one_fails_twice_and_then_the_gap_is_halved() -> None:
    search = RateSearch(1000)
    assert run(search, lambda rate: rate <= 5000) == [
        *(1000, 2000, 4000, 8000, 8000),
        *(5660, 5660, 4760, 5190, 5190, 4970),
    ]
    assert (search.held, search.failed) == (4970, 5190)


def test_where_the_first_does_not_hold_rates_are_halved_until_one_does() -> None:
    search = RateSearch(1000)
    assert run(search, lambda rate: rate <= 300)[:6] == [1000, 1000, 500, 500, 250, 354]
    assert search.held is not None
    assert 300 / PRECISION <= search.held <= 300


def test_a_rate_that_fails_once_and_then_holds_is_held() -> None:
    search = RateSearch(100)
    search.record(100, holds=False)
    assert (search.held, search.failed, search.next_rate()) == (None, None, 100)
    search.record(100, holds=True)
    assert (search.held, search.failed, search.next_rate()) == (100, None, 200)


def test_a_search_ends_where_nothing_holds_and_where_everything_does() -> None:
    nothing = RateSearch(1000)
    assert run(nothing, lambda _: False)[-1] == LOWEST_PER_S
    assert nothing.held is None
    everything = RateSearch(1000)
    assert run(everything, lambda _: True)[-1] == HIGHEST_PER_S
    assert everything.failed is None


@given(st.floats(1, 1e7), st.floats(1, 1e7))
def test_any_limit_is_found_from_anywhere(limit: float, start: float) -> None:
    search = RateSearch(start)
    tried = run(search, lambda rate: rate <= limit)
    assert len(tried) < 60
    assert search.held is None or search.held <= limit
    if search.failed is not None and search.held is not None:
        assert search.held <= limit < search.failed
        assert search.failed / search.held <= PRECISION * 1.01
    assert search.held is not None or limit < max(LOWEST_PER_S * 1.01, 1.01)


def cell(target: str, response_ns: Sequence[int], *, lag_ns: int = 1000, **counts: int) -> CellRecord:
    response, lag = Histogram(), Histogram()
    response.record_many(response_ns)
    lag.record_many([lag_ns] * len(response_ns))
    ok = len(response_ns)
    error, timeout, skipped = (counts.get(name, 0) for name in ("error", "timeout", "skipped"))
    sent = ok + error + timeout
    outcomes = Outcomes(sent + skipped, sent, ok, error, timeout, skipped, {"status": error})
    encoded = {str(Metric.RESPONSE): response.encode(), str(Metric.LAG): lag.encode()}
    return CellRecord(Cell("try-01", 1, "node-1", target, "standing", target, Kind.HTTP), outcomes, encoded)


AGENT = AgentWindow("node-1", "sealed", "quiet", lag_p99_ns=50_000, null_p99_ns=80_000, cpu_share=0.4)
FAST = [MS // 2] * 2000
SLOW = [*([MS // 2] * 1900), *([3 * MS] * 100)]


def verdict(
    *cells: CellRecord, promise: Promise = PROMISE, agent: AgentWindow = AGENT, error: str = ""
) -> Tried:
    return judged(promise, "try-01", 2000, 1.0, cells, [agent], error)


def test_a_window_within_the_promise_holds() -> None:
    found = verdict(cell("a", FAST))
    assert (found.outcome, found.detail, found.error_share, found.ok_per_s) == ("holds", "", 0, 2000)
    assert found.quantiles_ns["p99"] == pytest.approx(MS // 2, rel=0.001)
    assert (found.lag_p99_ns, found.cpu_share, found.promise) == (50_000, 0.4, "p99 < 1ms")


def test_of_several_targets_the_worst_must_hold() -> None:
    found = verdict(cell("a", FAST * 50), cell("b", SLOW))
    assert (found.outcome, found.detail) == ("slo", "p99 is 3 ms, 1 ms promised")


@pytest.mark.parametrize("failing", ["error", "timeout", "skipped"])
def test_whatever_fails_counts_against_the_errors_allowed(failing: str) -> None:
    found = verdict(cell("a", FAST, **{failing: 20}))
    assert found.outcome == "errors"
    assert found.detail == "0.99% of the requests failed, 0.10% allowed"
    assert verdict(cell("a", FAST, **{failing: 20}), promise=parse_promise("errors < 1%")).outcome == "holds"


@pytest.mark.parametrize(
    ("lag_ns", "agent", "said"),
    [
        (1_600_000, AGENT, "p99 is 3 ms, and the sends alone were 1.6 ms late at p99"),
        (
            1000,
            replace(AGENT, null_p99_ns=1_600_000),
            "p99 is 3 ms, and node-1's null echo, a server that does nothing",
        ),
        (1000, replace(AGENT, cpu_share=0.97), "node-1 used 97% of a CPU, and waited for one 0% of the time"),
        (
            1000,
            replace(AGENT, run_delay_ns=500_000_000),
            "node-1 used 40% of a CPU, and waited for one 50% of the time",
        ),
    ],
)
def test_where_the_generator_may_be_the_tail_it_is_said(lag_ns: int, agent: AgentWindow, said: str) -> None:
    found = verdict(cell("a", SLOW, lag_ns=lag_ns), agent=agent)
    assert found.outcome == "generator"
    assert said in found.detail
    assert verdict(cell("a", FAST, lag_ns=lag_ns), agent=agent).outcome == "holds"


def test_a_generator_that_is_late_itself_is_not_to_blame_for_a_far_longer_queue() -> None:
    agent = replace(AGENT, null_p99_ns=900_000)  # almost all of what is promised
    assert verdict(cell("a", SLOW, lag_ns=900_000), agent=agent).outcome == "slo"


def test_a_median_is_held_against_the_instrument_s_median() -> None:
    promise = parse_promise("p50 < 0.1ms")
    agent = replace(AGENT, null_p50_ns=40_000, null_p99_ns=400_000)
    assert verdict(cell("a", FAST), promise=promise, agent=agent).outcome == "slo"
    slower = replace(agent, null_p50_ns=300_000)
    assert verdict(cell("a", FAST), promise=promise, agent=slower).outcome == "generator"


def test_a_rate_that_was_not_offered_never_holds() -> None:
    found = verdict(cell("a", FAST, lag_ns=20 * MS), promise=parse_promise("errors < 1%"))
    assert found.outcome == "generator"
    assert found.detail == "the rate was not offered: half of the sends were 20 ms late or more"


def test_few_samples_are_told() -> None:
    assert verdict(cell("a", [3 * MS] * 100)).detail.endswith(
        "(few samples: a longer --duration would tell more surely)"
    )
    assert verdict(cell("a", [])).detail == "nothing was answered"


def test_a_window_that_was_lost_says_why() -> None:
    found = verdict(error="node-1 did not report")
    assert (found.outcome, found.detail) == ("lost", "node-1 did not report")


def tries(*outcomes: tuple[float, str]) -> list[Tried]:
    return [
        Tried("p99 < 1ms", f"try-{n:02d}", rate, outcome, "" if outcome == "holds" else "why", {}, 0.0, rate)
        for n, (rate, outcome) in enumerate(outcomes, 1)
    ]


@pytest.mark.parametrize(
    ("outcomes", "rate", "sentence"),
    [
        (
            [(1000, "holds"), (2000, "slo"), (1400, "holds")],
            1400,
            "1,400/s holds p99 < 1ms; 2,000/s does not: why.",
        ),
        ([(1000, "slo"), (1000, "holds")], 1000, "1,000/s holds p99 < 1ms; no higher rate was tried."),
        ([(1000, "slo"), (1, "errors")], None, "No rate was found that holds p99 < 1ms: even at 1/s why."),
        ([(12345.6, "holds")], 12345.6, "12,345.6/s holds p99 < 1ms; no higher rate was tried."),
    ],
)
def test_the_answer_gives_the_rate_and_the_reason(
    outcomes: list[tuple[float, str]], rate: float | None, sentence: str
) -> None:
    found = answer(tries(*outcomes))
    assert (found.rate_per_s, found.sentence) == (rate, sentence)


def test_an_answer_that_the_generator_limits_says_so() -> None:
    sentence = answer(tries((1000, "holds"), (2000, "generator"), (2000, "slo"))).sentence
    assert sentence.startswith("1,000/s holds p99 < 1ms; at 2,000/s the generator itself is the limit (why)")
    assert answer([]).rate_per_s is None
