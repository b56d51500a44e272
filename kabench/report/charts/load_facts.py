"""What the chart of a load run shows, worked out of its results once: no drawing here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kabench.analysis.instrument import Doubt, Proof, all_proofs
from kabench.analysis.loading import Loaded, factor_at, is_closed, loaded_of, points_of
from kabench.analysis.pooling import BEYOND_TO_INFER
from kabench.core.identity import Metric
from kabench.core.result import RunResult, SecondsRecord
from kabench.report.charts.facts import curve_of
from kabench.report.load import load_doubts, load_line, not_reached
from kabench.report.units import ms

MOST = 3
"""So many kinds (or phases of one) fit beside each other."""
NINES = 6.0
"""As far as any curve goes: one in a million."""

Line = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Course:
    """One window's seconds, as far as the window went: seconds since the run's first window, and what each held."""

    at_s: list[float]
    ok_per_s: list[float]
    error_per_s: list[float]
    asked_per_s: list[float]
    p50_ms: list[float | None]
    p99_ms: list[float | None]
    service_p99_ms: list[float | None]
    max_ms: list[float | None]


@dataclass(frozen=True)
class Panel:
    """One kind of target in one phase: its sums, and its windows in their order."""

    title: str
    loaded: Loaded
    courses: list[Course]

    def curve(self, metric: Metric) -> Line:
        """Nines and milliseconds, as far as enough samples lie beyond."""
        return curve_of(self.loaded.histogram(metric), furthest=NINES)


@dataclass(frozen=True)
class LoadFacts:
    """The run, and what is drawn of it."""

    result: RunResult
    panels: list[Panel]
    left_out: int
    closed: bool
    line: str
    shortfalls: list[str]
    doubts: list[Doubt]
    agents: list[Proof] = field(default_factory=list)

    @classmethod
    def of(cls, result: RunResult) -> LoadFacts:
        """Decode and merge what the chart needs.

        Raises:
            LogError: a histogram is corrupt.
        """
        found = loaded_of(result)
        kinds = [loaded for loaded in found if not loaded.target]
        start_ns = min((one.start_realtime_ns for one in result.seconds), default=0)
        several = len({loaded.phase for loaded in kinds}) > 1
        panels = [
            Panel(_title(result, loaded, several), loaded, _courses(result, loaded, start_ns))
            for loaded in kinds[:MOST]
        ]
        agents = all_proofs(result)
        return cls(
            result=result,
            panels=panels,
            left_out=len(kinds) - len(panels),
            closed=is_closed(result.scenario),
            line=load_line(result.scenario),
            shortfalls=not_reached(found),
            doubts=load_doubts(found, agents),
            agents=agents,
        )

    @property
    def instrument(self) -> str:
        """The worst of the agents, in one line."""
        owned = [agent.null_lag_p99_ns if self.closed else agent.lag_p99_ns for agent in self.agents]
        lags = [lag for lag in owned if lag is not None]
        nulls = [agent.null_p99_ns for agent in self.agents if agent.null_p99_ns is not None]
        late = "null echo's lag p99" if self.closed else "lag p99"
        parts = [
            f"{late} {ms(max(lags, default=None))} ms",
            f"null echo p99 {ms(max(nulls, default=None))} ms",
        ]
        busiest = max((agent.cpu_share for agent in self.agents), default=0.0)
        return f"instrument (the worst of {len(self.agents)}): {', '.join(parts)}, CPU {busiest:.0%}"


def _title(result: RunResult, loaded: Loaded, several: bool) -> str:
    addresses = [str(t.get("address")) for t in result.scenario["targets"] if t["kind"] == loaded.kind]
    where = addresses[0] if len(addresses) == 1 else f"{len(addresses)} targets"
    return f"{loaded.kind}  ·  {loaded.phase if several else where}"


def _courses(result: RunResult, loaded: Loaded, start_ns: int) -> list[Course]:
    """The kind's own record where it has several targets, else its only target's; window by window."""
    records = [one for one in result.seconds if (one.phase, one.kind) == (loaded.phase, loaded.kind)]
    if any(not one.target for one in records):
        records = [one for one in records if not one.target]
    points = points_of(result.scenario["load"])
    base = float(result.scenario["load"]["rate_per_s"])
    share = len([t for t in result.scenario["targets"] if t["kind"] == loaded.kind]) / len(
        result.scenario["targets"]
    )
    return [
        _course(one, start_ns, points, base * share)
        for one in sorted(records, key=lambda record: record.start_realtime_ns)
    ]


def _course(
    record: SecondsRecord, start_ns: int, points: Sequence[tuple[float, float]], base_per_s: float
) -> Course:
    offset_s = (record.start_realtime_ns - start_ns) / 1e9
    count = min(len(record.agents), -(-record.window_ns // record.interval_ns))
    begins = [index * record.interval_ns for index in range(count)]
    lengths_s = [(min(record.window_ns, begin + record.interval_ns) - begin) / 1e9 for begin in begins]
    middles_s = [begin / 1e9 + length / 2 for begin, length in zip(begins, lengths_s, strict=True)]
    window_s = record.window_ns / 1e9
    failed = [record.error[n] + record.timeout[n] + record.skipped[n] for n in range(count)]
    carried = [
        0.01 * (record.ok[n] + record.timeout[n] + record.skipped[n]) >= BEYOND_TO_INFER for n in range(count)
    ]
    return Course(
        at_s=[offset_s + middle for middle in middles_s],
        ok_per_s=[record.ok[n] / lengths_s[n] for n in range(count)],
        error_per_s=[failed[n] / lengths_s[n] for n in range(count)],
        asked_per_s=[base_per_s * factor_at(points, middle / window_s) for middle in middles_s],
        p50_ms=_ms(record.response_ns["p50"][:count]),
        p99_ms=_ms(record.response_ns["p99"][:count], carried),
        service_p99_ms=_ms(record.service_ns["p99"][:count], carried),
        max_ms=_ms(record.response_ns["max"][:count]),
    )


def _ms(values_ns: Sequence[int | None], shown: Sequence[bool] | None = None) -> list[float | None]:
    return [
        value / 1e6 if value is not None and (shown is None or shown[index]) else None
        for index, value in enumerate(values_ns)
    ]
