"""When the generator may be the tail: agents' own times held against the targets'."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import msgspec
import pytest

from kabench.analysis.instrument import BUSY, THE_LIMIT, THE_TAIL, Proof, busy, doubts, proofs, run_doubts
from kabench.analysis.words import milliseconds
from kabench.core.histogram import Histogram
from kabench.core.identity import Cell, Kind, Outcomes
from kabench.core.result import AgentWindow, CellRecord

US = 1_000
CALM = Proof("a", 1, 10 * US, 20 * US, 15 * US, 40 * US, 0.3)


def times(value_ns: int, tail_ns: int, count: int = 20_000) -> Histogram:
    """A median of one value, and a p99 of the other, on enough requests for both to be shown."""
    made = Histogram()
    made.record(value_ns, count - count // 50)
    made.record(tail_ns, count // 50)
    return made


TARGET = (times(100 * US, 1000 * US), times(90 * US, 800 * US))


def test_times_well_below_the_targets_raise_no_doubt() -> None:
    assert doubts("redis", *TARGET, [CALM]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"lag_p99_ns": 501 * US},
            "the response time of redis: a was 0.501 ms late at sending (lag p99), where its p99 is 1 ms",
        ),
        (
            {"lag_p50_ns": 51 * US},
            "the response time of redis: a was 0.051 ms late at sending (lag p50), where its p50 is 0.1 ms",
        ),
        (
            {"null_p99_ns": 402 * US},
            "the service time of redis: a's null echo, a server that does nothing, takes 0.402 ms (p99), where its",
        ),
    ],
)
def test_from_half_of_the_targets_own_on_the_instrument_rivals_it(changes: dict[str, int], said: str) -> None:
    (doubt,) = doubts("redis", *TARGET, [replace(CALM, **changes)])
    assert doubt.head.startswith(THE_TAIL)
    assert said in str(doubt)
    just_below = {name: int(value * 0.98) for name, value in changes.items()}
    assert doubts("redis", *TARGET, [replace(CALM, **just_below)]) == []


def test_the_worst_agent_is_named_and_each_reason_once() -> None:
    late = replace(CALM, agent="b", lag_p50_ns=900 * US, lag_p99_ns=900 * US)
    (doubt,) = doubts("redis", *TARGET, [CALM, late])
    assert doubt.reason.startswith("b was 0.9 ms late at sending (lag p99)")


def test_what_is_withheld_or_not_measured_raises_no_doubt() -> None:
    few = times(100 * US, 1000 * US, count=50)
    late = replace(CALM, lag_p50_ns=US * 1000, lag_p99_ns=US * 1000, null_p99_ns=US * 1000)
    assert doubts("redis", few, few, [late]) == []
    closed = replace(late, lag_p50_ns=None, lag_p99_ns=None, null_p99_ns=None)
    assert doubts("redis", *TARGET, [closed]) == []


def test_microseconds_are_no_rival_to_a_server_as_fast_as_the_null_echo() -> None:
    fast = times(8 * US, 9 * US)
    assert doubts("redis", fast, fast, [Proof("a", 1, 5 * US, 8 * US, 8 * US, 9 * US, 0.3)]) == []


def test_a_busy_agent_may_be_the_limit_of_the_rate() -> None:
    assert busy([CALM, replace(CALM, cpu_share=BUSY - 0.01)]) == []
    (doubt,) = busy([CALM, replace(CALM, agent="b", cpu_share=0.97)])
    assert doubt.head == THE_LIMIT
    assert doubt.reason.startswith("b used 97% of a CPU")
    assert busy([]) == []


def test_lags_are_added_up_over_windows_and_a_missing_agent_proves_nothing() -> None:
    def cell(block: int, value_ns: int, count: int) -> CellRecord:
        lag = Histogram()
        lag.record(value_ns, count)
        where = Cell("p", block, "a", "t", "n", "t", Kind.REDIS)
        return CellRecord(where, Outcomes(), {"lag": lag.encode()})

    windows = [
        AgentWindow("a", "sealed", "quiet", null_p50_ns=1, null_p99_ns=10, cpu_share=0.1),
        AgentWindow(
            "a", "unsealed", "quiet", null_p50_ns=3, null_p99_ns=90, cpu_share=0.4, run_delay_ns=10**9
        ),
        AgentWindow("a", "sealed", "quiet", null_p50_ns=2, null_p99_ns=20, cpu_share=0.2),
        AgentWindow("b", "missing", "quiet"),
    ]
    cells = [cell(1, 100, 98), cell(2, 1000, 2)]
    assert proofs(windows, cells) == [Proof("a", 3, 100, 1000, 2, 20, 0.4)]
    (proof,) = proofs(windows, cells, window_s=5)
    assert proof.starved == 0.2
    assert proofs(windows[:1], (), window_s=5)[0].starved is None


def test_a_run_tells_of_the_phase_whose_times_are_lowest_by_quiet_agents_alone(synthetic: ModuleType) -> None:
    """`aware` has the lower p99, so the same lag is more of it; noisy agents' lag of a second is no one's tail."""
    result = synthetic.build(synthetic.Recipe(blocks=2, samples=1500))
    late, very_late = times(20 * US, 5_000 * US), times(10**9, 10**9)

    def lagging(record: CellRecord) -> CellRecord:
        lag = late if result.blocks[record.cell.block - 1].roles[record.cell.agent] == "quiet" else very_late
        return msgspec.structs.replace(record, histograms=record.histograms | {"lag": lag.encode()})

    rounds = [
        msgspec.structs.replace(r, agents=[msgspec.structs.replace(a, null_p99_ns=20 * US) for a in r.agents])
        for r in result.rounds
    ]
    calm = msgspec.structs.replace(result, rounds=rounds)
    assert run_doubts(calm) == []
    found = run_doubts(msgspec.structs.replace(calm, cells=[lagging(record) for record in result.cells]))
    assert [doubt.head for doubt in found] == [
        f"{THE_TAIL} of the response time of {kind} in contention-aware" for kind in ("redis", "http")
    ]
    assert all("5 ms late at sending (lag p99)" in doubt.reason for doubt in found)
    void = [msgspec.structs.replace(block, valid=False) for block in calm.blocks]
    assert run_doubts(msgspec.structs.replace(calm, blocks=void)) == []


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [(None, "–"), (21_300, "0.0213"), (4_580_000, "4.58"), (99_960_000, "100"), (3_521_400_000, "3521")],
)
def test_milliseconds_have_no_exponent(value_ns: int | None, text: str) -> None:
    assert milliseconds(value_ns) == text
