"""The live view of a load run on 80 × 24, and its plain lines: from scripted intervals, in virtual time."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kabench.backends.base import Node
from kabench.clock import ManualClock
from kabench.core.health import Health
from kabench.core.histogram import Histogram
from kabench.core.identity import Kind, Outcomes
from kabench.core.result import AgentWindow, RoundRecord
from kabench.core.spec import Blocks, Load, Noise, Phase, RatePoint, Scenario, Target, Timing
from kabench.report.live_load import asked_per_s
from kabench.report.tally import KEPT, RoundTally
from kabench.report.terminal import LINES_A_WINDOW, LiveObserver, PlainObserver, TerminalObserver
from kabench.wire.messages import Interval, KindInterval

MS = 1_000_000
S = 1_000_000_000
RAMP = (RatePoint(at=0, factor=0), RatePoint(at=1, factor=1))


def scenario(
    kinds: tuple[Kind, ...] = (Kind.REDIS, Kind.HTTP), window_s: float = 20, **load: object
) -> Scenario:
    return Scenario(
        name="load",
        agents=2,
        phases=(Phase(name="load", standing="given"),),
        targets=tuple(
            Target(name=f"{kind}-{n}", kind=kind, replicas=1, address=f"server-{n}.example.org:{6379 + n}")
            for n, kind in enumerate(kinds)
        ),
        noise=Noise(nodes=0, stressors=()),
        load=Load(**({"rate_per_s": 4000} | load)),
        timing=Timing(window_s=window_s),
        blocks=Blocks(planned=1, reserve=0),
    )


def interval(
    index: int, value_ns: int = MS, ok: int = 1000, error: int = 0, kinds: tuple[str, ...] = ("redis", "http")
) -> Interval:
    histogram = Histogram()
    histogram.record(value_ns, ok)
    outcomes = Outcomes(sent=ok + error, ok=ok, error=error, errors={"reset": error} if error else {})
    found = {kind: KindInterval(outcomes, histogram.encode()) for kind in kinds}
    return Interval("w", index, found, Health(cpu_share=0.25, max_in_flight=40), 90_000, False)


def play(observer: TerminalObserver, time: ManualClock, seconds: int, agents: int = 2) -> None:
    observer.stage("measure")
    observer.fleet([Node(f"node-{n + 1}", 4000, 1, frozenset({n}), "boot") for n in range(agents)])
    observer.block_started(1, 1, ("load",), (), False)
    observer.round_started(1, "load", 1, 1, observer.scenario.timing.window_s + 1)
    for index in range(seconds):
        time.advance(S)
        for agent in range(agents):
            slow = 40 if index == seconds - 5 else 1 + index % 3
            observer.interval(f"node-{agent + 1}", interval(index, slow * MS, error=int(index == 3)))


def live(what: Scenario, width: int = 80, height: int = 24) -> tuple[LiveObserver, ManualClock]:
    time = ManualClock()
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    return LiveObserver(what, console, time.monotonic_ns), time


def shown(observer: LiveObserver) -> list[str]:
    width, height = observer.console.size
    plain = Console(file=io.StringIO(), width=width, height=height, record=True)
    plain.print(observer.render())
    return plain.export_text().splitlines()


def row(lines: list[str], start: str) -> str:
    return next(line for line in lines if line.startswith(start))


def test_the_view_fits_80_by_24_and_shows_what_matters() -> None:
    observer, time = live(scenario(profile=RAMP))
    play(observer, time, 10)
    observer.note("node-2: said something " * 9)
    lines = shown(observer)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "0:10 elapsed" in lines[0]
    assert "server-0.example.org:6379, server-1.example.org:6380" in lines[1]
    assert lines[1].endswith("measure")
    assert row(lines, "rate") == "rate      1,900/s asked, 4,000/s answered now, 4,000/s so far"
    assert row(lines, "failures") == "failures  4 errors, 0 time-outs, 0 skipped"
    assert row(lines, "in flight") == (
        "in flight 80 at most in the last second · lag p99 0.090 ms, of the worst agent"
    )
    assert row(lines, "redis now").split() == ["redis", "now", "2.00", "3.00", "3.00", "3.00", "6,000"]
    so_far = next(line for line in lines if "so far" in line and "rate" not in line)
    assert so_far.split() == ["so", "far", "2.00", "40.0", "40.0", "40.0", "20,000"]
    assert row(lines, "redis p99").split() == ["redis", "p99", "▁▂▃▁▂█▁▂▃▁", "1.00", "–", "40.0", "ms"]
    assert row(lines, "answered").split() == ["answered", "█" * 10, "≤", "4,000/s"]
    assert row(lines, "node-1").split() == ["node-1", "0.090", "25%", "measuring"]
    assert lines[-1].startswith("node-2: said something")


def test_before_the_first_interval_there_is_a_view_without_figures() -> None:
    observer, time = live(scenario())
    assert len(shown(observer)) <= 24
    play(observer, time, 0)
    lines = shown(observer)
    assert row(lines, "redis now").split() == ["redis", "now", "–", "–", "–", "–", "0"]
    assert row(lines, "rate") == "rate      4,000/s asked, 0/s answered now, 0/s so far"
    assert row(lines, "node-2").split()[-1] == "waiting"


def test_a_closed_loop_asks_no_rate_and_has_no_lag() -> None:
    observer, time = live(scenario((Kind.REDIS,), loop="closed"))
    play(observer, time, 4)
    lines = shown(observer)
    assert row(lines, "rate").startswith("rate      closed loop, ")
    assert "lag" not in row(lines, "in flight")
    assert row(lines, "node-1").split() == ["node-1", "–", "25%", "measuring"]


def test_many_agents_are_cut_to_what_fits_and_a_lost_one_is_seen() -> None:
    observer, time = live(scenario())
    play(observer, time, 3, agents=30)
    lines = shown(observer)
    assert len(lines) <= 24
    assert lines[-1].startswith("… ")
    observer.round_ended(RoundRecord("w", 1, "load", agents=[AgentWindow("node-1", "missing", "quiet")]))
    assert row(shown(observer), "node-1").split()[-1] == "missing"


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 30), (200, 60), (30, 12)])
def test_other_terminals_get_lines_that_fit(width: int, height: int) -> None:
    observer, time = live(scenario(), width, height)
    play(observer, time, 15)
    assert max(map(len, shown(observer))) <= width


def test_plain_lines_tell_of_a_long_window_while_it_lasts() -> None:
    time, out = ManualClock(), io.StringIO()
    what = scenario((Kind.REDIS,), window_s=20)
    observer = PlainObserver(what, Console(file=out, width=80), time.monotonic_ns)
    play(observer, time, 4)
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert "redis p50 2.00 p99 3.00 ms" in lines[3]
    assert "4000/s  errors 0  time-outs 0  lag p99 0.090 ms" in lines[3]
    observer = PlainObserver(
        what.model_copy(update={"timing": Timing(window_s=300)}), observer.console, time.monotonic_ns
    )
    play(observer, time, 300)
    told = [line for line in out.getvalue().splitlines() if line.split()[1] == "s"][4:]
    assert len(told) == LINES_A_WINDOW
    assert told[-1].split()[0] == "300"


def test_a_second_is_told_when_all_agents_have_closed_it_and_old_ones_are_forgotten() -> None:
    tally = RoundTally({"a": "quiet", "b": "quiet"}, 1000)
    tally.add("a", interval(0))
    assert (tally.whole, tally.now_per_s, tally.part) == (0, 0, 0)
    tally.add("b", interval(0, ok=500))
    assert (tally.whole, tally.now_per_s) == (1, 3000)
    assert tally.part == pytest.approx(0.0005)
    for index in range(1, 900):
        for agent in "ab":
            tally.add(agent, interval(index, (index + 1) * MS))
    redis = tally.kinds["redis"]
    assert len(tally.answered()) <= KEPT
    assert len(redis.curve()) <= KEPT + 1
    assert redis.curve()[-1] == pytest.approx(900 * MS, rel=0.001)
    assert len(redis.answered) <= KEPT + 1


def test_an_agent_that_is_lost_is_not_waited_for() -> None:
    tally = RoundTally({"a": "quiet", "b": "quiet"}, 100)
    tally.add("b", interval(0))
    for index in range(10):
        tally.add("a", interval(index))
        if index < 3:
            assert tally.whole == 1
    assert tally.whole == 10
    assert tally.now_per_s == 2000


def test_a_late_agent_does_not_redraw_what_all_others_said() -> None:
    tally = RoundTally({"a": "quiet", "b": "quiet"}, 100)
    for index in range(8):
        tally.add("a", interval(index, MS))
    tally.add("b", interval(0, 500 * MS, ok=1))
    assert tally.kinds["redis"].curve()[0] == pytest.approx(MS, rel=0.001)


def test_the_rate_that_is_asked_follows_the_profile() -> None:
    assert asked_per_s(Load(rate_per_s=1000), 0.5) == 1000
    assert asked_per_s(Load(rate_per_s=1000, profile=RAMP), 0.25) == 250
    assert asked_per_s(Load(loop="closed"), 0.5) is None
