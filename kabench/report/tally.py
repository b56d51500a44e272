"""What the live view knows of a run: the agents' intervals, added up as they come. Pure; the instant comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kabench.core.histogram import Histogram
from kabench.core.identity import Kind, Outcomes
from kabench.wire.messages import Interval

RECENT = 3
"""So many intervals are "now": one second has too few requests for a p99."""

KEPT = 200
"""So many intervals are kept for the view's curves: more than a terminal has columns."""


@dataclass
class KindTally:
    """One kind of target in the window so far. `recent` by interval; both are of the agents that count for the headline.

    `p99_ns` is by interval too, of those that are not recent any more; `answered` of all that are kept.
    """

    outcomes: Outcomes = field(default_factory=Outcomes)
    window: Histogram = field(default_factory=Histogram)
    recent: dict[int, Histogram] = field(default_factory=dict)
    p99_ns: dict[int, int | None] = field(default_factory=dict)
    answered: dict[int, int] = field(default_factory=dict)

    def now(self) -> Histogram:
        """The last `RECENT` intervals."""
        total = Histogram()
        for histogram in self.recent.values():
            total.add(histogram)
        return total

    def add(self, index: int, response: str) -> None:
        """Add an interval's encoded responses."""
        histogram = Histogram.decode(response)
        self.window.add(histogram)
        self.recent.setdefault(index, Histogram()).add(histogram)
        newest = max(self.recent)
        for old in [key for key in self.recent if key <= newest - RECENT]:
            p99_ns = self.recent.pop(old).quantile_ns(0.99)
            self.p99_ns.setdefault(old, p99_ns)  # a late agent does not replace what all others said
        self.p99_ns.pop(newest - KEPT, None)

    def count(self, index: int, ok: int) -> None:
        """Add what was answered in an interval."""
        self.answered[index] = self.answered.get(index, 0) + ok
        self.answered.pop(index - KEPT, None)

    def curve(self) -> list[int | None]:
        """The p99 of each interval that is kept, the newest at the end."""
        known = self.p99_ns | {index: histogram.quantile_ns(0.99) for index, histogram in self.recent.items()}
        return [known.get(index) for index in range(min(known), max(known) + 1)] if known else []


@dataclass
class AgentTally:
    """One agent in the window so far."""

    intervals: int = 0
    ok: int = 0
    lag_p99_ns: int | None = None
    cpu_share: float | None = None
    in_flight: int = 0
    state: str = "waiting"


class RoundTally:
    """One round, from its agents' intervals.

    Args:
        roles: of every node in this block; empty before the first.
        window_intervals: how many intervals the window has; later ones are drain.
    """

    def __init__(self, roles: Mapping[str, str], window_intervals: int) -> None:
        self.roles = roles
        self.agents = {name: AgentTally() for name in roles}
        self.kinds: dict[str, KindTally] = {}
        self._window_intervals = max(1, window_intervals)
        self._any_quiet = not roles or "quiet" in roles.values()

    def add(self, agent: str, interval: Interval) -> None:
        """Add an interval.

        The sealing one repeats the window's totals: it counts where no other came, as of an agent whose stream was late.
        """
        tally = self.agents.setdefault(agent, AgentTally())
        if interval.sealed:
            if not tally.intervals:
                tally.intervals = self._window_intervals
                self._count(agent, tally, interval)
            tally.state = "sealed"
            return
        tally.intervals = min(interval.index + 1, self._window_intervals)
        tally.state = "measuring" if interval.index < self._window_intervals else "draining"
        self._count(agent, tally, interval)

    def _count(self, agent: str, tally: AgentTally, interval: Interval) -> None:
        tally.cpu_share = interval.health.cpu_share
        tally.in_flight = interval.health.max_in_flight
        tally.lag_p99_ns = interval.lag_p99_ns if interval.lag_p99_ns is not None else tally.lag_p99_ns
        for kind, found in interval.kinds.items():
            if kind == Kind.NULL:
                continue
            tally.ok += found.outcomes.ok
            ours = self.kinds.setdefault(kind, KindTally())
            ours.outcomes += found.outcomes
            if interval.index < self._window_intervals and not interval.sealed:
                ours.count(interval.index, found.outcomes.ok)
            if found.response and self.counts(agent):
                ours.add(interval.index, found.response)

    def counts(self, agent: str) -> bool:
        """Whether the agent's responses are shown: those of quiet nodes where there are any, else all."""
        return not self._any_quiet or self.roles.get(agent) == "quiet"

    @property
    def seen_from(self) -> str:
        """Whose responses are shown."""
        return "quiet nodes" if self._any_quiet else "all nodes (none is quiet)"

    @property
    def rate_per_s(self) -> float:
        """Requests answered a second, all agents together, over the window so far."""
        return sum(agent.ok / agent.intervals for agent in self.agents.values() if agent.intervals)

    @property
    def whole(self) -> int:
        """How many of the window's intervals all agents have closed: what is known of later ones is a part.

        Who is more than `RECENT` behind the others is not waited for.
        """
        closed = [agent.intervals for agent in self.agents.values()]
        return min((one for one in closed if one >= max(closed) - RECENT), default=0)

    @property
    def part(self) -> float:
        """The part of the window that the agents have behind them, 0 … 1: at the middle of the last whole interval."""
        return min(1.0, max(0.0, self.whole - 0.5) / self._window_intervals)

    def answered(self) -> list[float]:
        """Requests answered in each of the last whole intervals."""
        first = max(0, self.whole - KEPT + 1)
        return [
            float(sum(kind.answered.get(index, 0) for kind in self.kinds.values()))
            for index in range(first, self.whole)
        ]

    @property
    def now_per_s(self) -> float:
        """Requests answered in the last whole interval."""
        return (self.answered() or [0.0])[-1]

    @property
    def in_flight(self) -> int:
        """The most that were in flight in the agents' last intervals, added."""
        return sum(agent.in_flight for agent in self.agents.values())

    @property
    def outcomes(self) -> Outcomes:
        """Of all kinds."""
        return sum((kind.outcomes for kind in self.kinds.values()), Outcomes())

    @property
    def lag_p99_ns(self) -> int | None:
        """The worst of the shown agents' last intervals."""
        lags = [
            a.lag_p99_ns for name, a in self.agents.items() if self.counts(name) and a.lag_p99_ns is not None
        ]
        return max(lags, default=None)


@dataclass
class Pace:
    """How far the run is, in rounds, and how long it may still take.

    Attributes:
        round_s: what the plan expects of a round; what rounds took replaces it.
        started_ns: the run's start.
    """

    round_s: float
    started_ns: int
    total_rounds: int = 0
    done: int = 0
    round_started_ns: int | None = None
    taken_s: list[float] = field(default_factory=list)

    def begin_round(self, now_ns: int, done: int, total_rounds: int) -> None:
        """A round begins, `done` others lie behind it."""
        self.done, self.total_rounds, self.round_started_ns = done, total_rounds, now_ns

    def end_round(self, now_ns: int) -> None:
        """The round is over."""
        if self.round_started_ns is not None:
            self.taken_s.append((now_ns - self.round_started_ns) / 1e9)
        self.done += 1
        self.round_started_ns = None

    @property
    def expected_s(self) -> float:
        """How long a round takes."""
        return sum(self.taken_s) / len(self.taken_s) if self.taken_s else self.round_s

    def part(self, now_ns: int) -> float:
        """The share of the current round that is over, 0 … 1."""
        if self.round_started_ns is None:
            return 0.0
        return min(1.0, (now_ns - self.round_started_ns) / 1e9 / max(self.expected_s, 0.001))

    def share(self, now_ns: int) -> float:
        """The share of the run that is over, 0 … 1."""
        return min(1.0, (self.done + self.part(now_ns)) / self.total_rounds) if self.total_rounds else 0.0

    def left_s(self, now_ns: int) -> float:
        """Seconds that the planned rounds will still take."""
        return max(0.0, self.total_rounds - self.done - self.part(now_ns)) * self.expected_s

    def elapsed_s(self, now_ns: int) -> float:
        """Seconds since the start."""
        return (now_ns - self.started_ns) / 1e9


def short_list(names: Sequence[str], most: int = 6) -> str:
    """`a, b, c, … (9 in all)`."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])}, … ({len(names)} in all)"
