"""The live view on 80 × 24, the plain lines, and what both count: from scripted intervals, in virtual time."""

from __future__ import annotations

import contextlib
import io

import pytest
from rich.console import Console

from kabench.backends.base import Node
from kabench.clock import ManualClock
from kabench.core.health import Health
from kabench.core.histogram import Histogram
from kabench.core.identity import Outcomes
from kabench.core.plan import quick
from kabench.core.result import AgentWindow, RoundRecord, VoidReason
from kabench.core.scenario import load_scenario, override
from kabench.report.tally import RECENT, Pace, RoundTally
from kabench.report.terminal import LiveObserver, PlainObserver, TerminalObserver
from kabench.report.units import clock, ms, per_cent
from kabench.scenarios import built_in
from kabench.wire.messages import Interval, KindInterval

SEED = quick(load_scenario(built_in("seed"), "seed.yaml"))
MS = 1_000_000
S = 1_000_000_000


def encoded(value_ns: int, count: int) -> str:
    histogram = Histogram()
    histogram.record(value_ns, count)
    return histogram.encode()


def interval(index: int, value_ns: int = MS, ok: int = 100, error: int = 0, sealed: bool = False) -> Interval:
    outcomes = Outcomes(sent=ok + error, ok=ok, error=error, errors={"reset": error} if error else {})
    kinds = {
        "redis": KindInterval(outcomes, encoded(value_ns, ok)),
        "null": KindInterval(outcomes, encoded(1, ok)),
    }
    return Interval("w", index, kinds, Health(cpu_share=0.25), 90_000, sealed)


def nodes(count: int = 6) -> list[Node]:
    return [Node(f"node-{n + 1}", 4000, 1, frozenset({n * 2 // count}), "boot") for n in range(count)]


def console(height: int = 24) -> Console:
    return Console(file=io.StringIO(), width=80, height=height, force_terminal=True, color_system=None)


def play(observer: TerminalObserver, time: ManualClock, count: int = 6) -> None:
    """A first round up to its third second, with node-1 and node-2 noisy."""
    observer.stage("start")
    observer.fleet(nodes(count))
    observer.block_started(1, 8, ("default", "contention-aware"), ("node-1", "node-2"), False)
    observer.round_started(1, "default", 1, 2, 6.0)
    observer.stage("measure")
    time.advance(5 * S)
    for index in range(3):
        for node in nodes(count):
            slow = node.name in ("node-1", "node-2")
            observer.interval(node.name, interval(index, 50 * MS if slow else MS, error=1 if slow else 0))


def shown(observer: LiveObserver) -> list[str]:
    width, height = observer.console.size
    plain = Console(file=io.StringIO(), width=width, height=height, record=True)
    plain.print(observer.render())
    return plain.export_text().splitlines()


def test_percentiles_come_from_quiet_nodes_and_counts_from_all() -> None:
    tally = RoundTally({"node-1": "noisy", "node-2": "quiet"}, 5)
    tally.add("node-1", interval(0, 50 * MS, error=1))
    tally.add("node-2", interval(0, MS))
    redis = tally.kinds["redis"]
    assert redis.window.total == 100
    assert redis.window.quantile_ns(0.99) == pytest.approx(MS, rel=0.001)
    assert (tally.outcomes.ok, tally.outcomes.error) == (200, 1)
    assert tally.seen_from == "quiet nodes"
    assert "null" not in tally.kinds


def test_without_a_quiet_node_all_are_shown_and_it_says_so() -> None:
    tally = RoundTally({"node-1": "noisy", "node-2": "shared"}, 5)
    tally.add("node-1", interval(0))
    assert tally.kinds["redis"].window.total == 100
    assert tally.seen_from == "all nodes (none is quiet)"


def test_now_is_the_last_three_intervals_and_late_agents_do_not_bring_back_old_ones() -> None:
    tally = RoundTally({"a": "quiet", "b": "quiet"}, 9)
    for index in range(6):
        tally.add("a", interval(index, (index + 1) * MS))
    tally.add("b", interval(0, MS))
    now = tally.kinds["redis"].now()
    assert now.total == RECENT * 100
    assert now.min_ns == pytest.approx(4 * MS, rel=0.001)
    assert tally.kinds["redis"].window.total == 700


def test_a_sealing_interval_repeats_totals_and_is_not_counted() -> None:
    tally = RoundTally({"a": "quiet"}, 2)
    tally.add("a", interval(0))
    tally.add("a", interval(1, sealed=True))
    assert tally.outcomes.ok == 100
    assert tally.agents["a"].state == "sealed"


def test_an_agent_whose_stream_came_too_late_counts_by_its_seal() -> None:
    tally = RoundTally({"a": "quiet", "b": "quiet"}, 2)
    tally.add("a", interval(0))
    tally.add("a", interval(1))
    tally.add("b", interval(2, 3 * MS, ok=200, sealed=True))
    assert tally.rate_per_s == 100 + 100
    assert tally.outcomes.ok == 400
    assert tally.kinds["redis"].window.quantile_ns(1) == pytest.approx(3 * MS, rel=0.001)


def test_the_rate_is_over_the_window_also_while_it_drains() -> None:
    tally = RoundTally({"a": "quiet", "b": "noisy"}, 2)
    for index in range(2):
        tally.add("a", interval(index))
        tally.add("b", interval(index, ok=50))
    assert tally.rate_per_s == 150
    tally.add("a", interval(2, ok=4))
    assert tally.agents["a"].state == "draining"
    assert tally.rate_per_s == 152


def test_the_pace_learns_from_rounds_and_does_not_overtake_itself() -> None:
    pace = Pace(round_s=10, started_ns=0)
    pace.begin_round(0, done=0, total_rounds=4)
    assert pace.left_s(0) == 40
    assert pace.left_s(5 * S) == 35
    assert (pace.share(5 * S), pace.share(60 * S)) == (0.125, 0.25)
    pace.end_round(20 * S)
    assert (pace.left_s(20 * S), pace.share(20 * S)) == (60, 0.25)


def test_the_view_fits_80_by_24_and_shows_what_matters() -> None:
    time = ManualClock()
    observer = LiveObserver(SEED, console(), time.monotonic_ns)
    play(observer, time)
    observer.block_closed(1, False, [VoidReason("lag", "default", "node-4: 0.6 ms")])
    observer.note("one " * 40)
    observer.note("node-3: agent restarted")
    lines = shown(observer)
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for part in (
        "0:05 elapsed, about 2:27 left",
        "block 1 of 8 · default (1 of 2)",
        "measure",
        "noise on node-1, node-2",
        "2400/s asked, 600/s answered",
        "6 errors, 0 time-outs, 0 skipped",
        "p99 0.090 ms, the worst of quiet nodes",
        "blocks    0 valid, 1 void; block 1: lag",
        "node-3: agent restarted",
    ):
        assert part in text
    assert next(line for line in lines if line.startswith("redis")).split() == [
        "redis",
        *["1.00"] * 4,
        "1,800",
    ]
    agents = [line.split() for line in lines if line.startswith("node-") and "%" in line]
    assert [row[1] for row in agents] == ["noisy", "noisy", "shared", "quiet", "quiet", "quiet"]
    assert agents[0] == ["node-1", "noisy", "0.090", "25%", "measuring"]


def test_more_nodes_than_lines_are_counted() -> None:
    time = ManualClock()
    observer = LiveObserver(override(SEED, agents=40), console(), time.monotonic_ns)
    play(observer, time, count=40)
    observer.note("a")
    observer.note("b")
    lines = shown(observer)
    assert len(lines) == 24
    assert any(line.startswith("… 35 more") for line in lines)


def test_before_anything_has_happened_the_view_can_be_drawn() -> None:
    observer = LiveObserver(SEED, console(), ManualClock().monotonic_ns)
    with observer:
        observer.stage("start")
    text = "\n".join(shown(observer))
    assert "starting" in text
    assert "none is quiet" not in text


def test_a_lost_agent_is_seen() -> None:
    time = ManualClock()
    observer = LiveObserver(SEED, console(), time.monotonic_ns)
    play(observer, time)
    observer.round_ended(RoundRecord("w", 1, "default", agents=[AgentWindow("node-3", "missing", "shared")]))
    row = next(line for line in shown(observer) if line.startswith("node-3"))
    assert row.split()[-1] == "missing"


def test_plain_lines_one_a_round_and_one_a_reason() -> None:
    time, out = ManualClock(), Console(file=io.StringIO(), width=80)
    observer = PlainObserver(SEED, out, time.monotonic_ns)
    observer.plan(["plan      much"])
    play(observer, time)
    windows = [
        AgentWindow("node-4", "sealed", "quiet", lag_p99_ns=90_000),
        AgentWindow("node-1", "sealed", "noisy", lag_p99_ns=4_000_000),
        AgentWindow("node-5", "sealed", "quiet", lag_p99_ns=120_000),
    ]
    observer.round_ended(RoundRecord("w", 1, "default", agents=windows, error="redis-0 [did not] get ready"))
    observer.block_closed(
        1, False, [VoidReason("round-failed", "default", "it failed"), VoidReason("x", "", "y")]
    )
    observer.note("node-3: agent restarted")
    assert isinstance(out.file, io.StringIO)
    assert out.file.getvalue().splitlines() == [
        "plan      much",
        "6 nodes: node-1, node-2, node-3, node-4, node-5, node-6",
        "block 1/8  default  redis p50 1.00 p99 1.00 ms  600/s  errors 6  time-outs 0  lag p99 0.120 ms",
        "block 1/8  default: redis-0 [did not] get ready",
        "block 1 is void: round-failed in default: it failed",
        "block 1 is void: x: y",
        "node-3: agent restarted",
    ]


class Gone(io.StringIO):
    """A terminal that was closed once the run had begun."""

    closed_now = False

    def write(self, text: str) -> int:
        if self.closed_now:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.mark.parametrize("kind", [LiveObserver, PlainObserver])
def test_a_terminal_that_is_gone_stops_nothing(kind: type[LiveObserver | PlainObserver]) -> None:
    out, time = Gone(), ManualClock()
    observer = kind(SEED, Console(file=out, width=80, height=24, force_terminal=True), time.monotonic_ns)
    with observer if isinstance(observer, LiveObserver) else contextlib.nullcontext():
        observer.fleet(nodes())
        assert out.getvalue()
        out.closed_now = True
        play(observer, time)
        observer.round_ended(RoundRecord("w", 1, "default"))
    assert observer.pace.done == 1


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [
        (None, "–"),
        (0, "0.000"),
        (90_400, "0.090"),
        (1_234_567, "1.23"),
        (45_678_000, "45.7"),
        (999_600_000, "1000"),
    ],
)
def test_milliseconds_have_three_digits(value_ns: int | None, text: str) -> None:
    assert ms(value_ns) == text


def test_clock_and_shares() -> None:
    assert [clock(s) for s in (-1, 5, 65, 3725)] == ["0:00", "0:05", "1:05", "1:02:05"]
    assert [per_cent(s) for s in (None, 0.126, 1)] == ["–", "13%", "100%"]
