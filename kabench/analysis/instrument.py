"""The instrument's own proof: what the generator did to the figures, from the figures alone.

Response time contains the agent's lateness at sending, service time its lateness at reading. Both are measured beside the
targets' figures (lag, and the null echo), and here they are held against each other. Nothing here voids a block: gates are
absolute and look at no target (`validity`); this only says which figures a reader must not take for the target's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from kabench.analysis.pooling import added, kinds_of, merged, quiet_cells
from kabench.analysis.words import milliseconds
from kabench.core.histogram import Histogram
from kabench.core.identity import Kind, Metric
from kabench.core.result import AgentWindow, CellRecord, RunResult

RIVAL = 0.5
"""Part of the target's p99 from which on the instrument's own p99 rivals it: more of that tail can be ours than not."""

BUSY = 0.8
"""CPU share from which on an agent's own work queues: an arrival then waits for two others on average (M/D/1)."""

NEVER_BELOW_NS = 10_000
"""What the instrument does within 10 µs is no rival to anything: its clock reads and parsing take some of it."""

THE_TAIL = "the generator may be the tail"
THE_LIMIT = "the generator may be the tail, and the limit of the rate"


@dataclass(frozen=True)
class Proof:
    """One agent over some windows.

    Attributes:
        agent: its node.
        windows: how many it sealed or cut.
        lag_p50_ns, lag_p99_ns: over all its requests; None in a closed loop, where nothing is due.
        null_p50_ns, null_p99_ns: of its null echo: the median of the windows' own, None without one.
        null_lag_p99_ns: of its null echo, likewise, in a closed loop: the one thing there that can be late.
        cpu_share: of the window in which it used most.
        starved: part of the window in which it could have run and had no CPU, of the worst window; None where the kernel
            does not tell. It says why an agent was late: others use its CPUs.
    """

    agent: str
    windows: int
    lag_p50_ns: int | None
    lag_p99_ns: int | None
    null_p50_ns: int | None
    null_p99_ns: int | None
    cpu_share: float
    null_lag_p99_ns: int | None = None
    starved: float | None = None


@dataclass(frozen=True)
class Doubt:
    """Why a figure may be the generator's: the sentence's head and its reason."""

    head: str
    reason: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.head}: {self.reason}"


def proofs(windows: Iterable[AgentWindow], cells: Iterable[CellRecord], window_s: float = 0.0) -> list[Proof]:
    """One for each agent that reported, by name; lag is of the `cells`, all counts added.

    Without `window_s`, the length of each window, nothing is said of how long an agent had no CPU.

    Raises:
        LogError: a histogram is corrupt.
    """
    by_agent: dict[str, list[AgentWindow]] = {}
    for window in windows:
        if window.status != "missing":
            by_agent.setdefault(window.agent, []).append(window)
    lags: dict[str, list[str]] = {agent: [] for agent in by_agent}
    for record in cells:
        encoded = record.histograms.get(Metric.LAG.value)
        if encoded and record.cell.agent in lags and record.cell.kind is not Kind.NULL:
            lags[record.cell.agent].append(encoded)
    return [_proof(agent, by_agent[agent], added(lags[agent]), window_s) for agent in sorted(by_agent)]


def _proof(agent: str, windows: Sequence[AgentWindow], lag: Histogram, window_s: float) -> Proof:
    delays = [window.run_delay_ns / 1e9 for window in windows if window.run_delay_ns is not None]
    lag_p50_ns, lag_p99_ns = lag.quantiles_ns((0.5, 0.99))
    return Proof(
        agent=agent,
        windows=len(windows),
        lag_p50_ns=lag_p50_ns,
        lag_p99_ns=lag_p99_ns,
        null_p50_ns=_median(window.null_p50_ns for window in windows),
        null_p99_ns=_median(window.null_p99_ns for window in windows),
        cpu_share=max(window.cpu_share for window in windows),
        null_lag_p99_ns=None if lag.total else _median(window.lag_p99_ns for window in windows),
        starved=max(delays) / window_s if delays and window_s else None,
    )


def _median(values_ns: Iterable[int | None]) -> int | None:
    known = [value for value in values_ns if value is not None]
    return round(median(known)) if known else None


def doubts(name: str, response: Histogram, service: Histogram, agents: Sequence[Proof]) -> list[Doubt]:
    """What speaks for the generator being the tail of one kind of target; none: its figures stand above the instrument.

    Lag is part of every response time, and a late read part of every service time, so each is held against what it is
    part of: at the p99 where that is shown, and at the median. The agent that looks worst is named: in a pooled figure
    one odd agent can own the tail.

    Args:
        name: what the figures are of.
        response: of the targets.
        service: of the targets.
        agents: all that drove it.
    """
    response_ns, service_ns = (
        {q: h.supported_quantile_ns(q) for q in (0.5, 0.99)} for h in (response, service)
    )
    found = []
    for q, own in (
        (0.99, {a.agent: a.lag_p99_ns for a in agents}),
        (0.5, {a.agent: a.lag_p50_ns for a in agents}),
    ):
        late, late_ns = _worst(own)
        if _rivals(late_ns, response_ns[q]):
            reason = (
                f"{late} was {milliseconds(late_ns)} ms late at sending (lag p{100 * q:.0f}), where its "
                f"p{100 * q:.0f} is {milliseconds(response_ns[q])} ms"
            )
            found.append(Doubt(f"{THE_TAIL} of the response time of {name}", reason))
            break
    slow, null_ns = _worst({agent.agent: agent.null_p99_ns for agent in agents})
    if _rivals(null_ns, service_ns[0.99]):
        reason = (
            f"{slow}'s null echo, a server that does nothing, takes {milliseconds(null_ns)} ms (p99), where its p99 is "
            f"{milliseconds(service_ns[0.99])} ms"
        )
        found.append(Doubt(f"{THE_TAIL} of the service time of {name}", reason))
    return found


def _worst(by_agent: Mapping[str, int | None]) -> tuple[str, int | None]:
    """The agent with the highest value, and that value."""
    return max(by_agent.items(), key=lambda entry: entry[1] or 0, default=("", None))


def busy(agents: Iterable[Proof]) -> list[Doubt]:
    """The busiest agent, where its CPU was the limit."""
    most = max(agents, key=lambda agent: agent.cpu_share, default=None)
    if most is None or most.cpu_share < BUSY:
        return []
    return [
        Doubt(THE_LIMIT, f"{most.agent} used {most.cpu_share:.0%} of a CPU; give more agents, each a CPU")
    ]


def all_proofs(result: RunResult) -> list[Proof]:
    """Every agent's own state, over all windows.

    Raises:
        LogError: a histogram is corrupt.
    """
    windows = (window for record in result.rounds for window in record.agents)
    return proofs(windows, result.cells, result.scenario.get("timing", {}).get("window_s", 0.0))


def run_doubts(result: RunResult) -> list[Doubt]:
    """Those of a run that places targets: the worst phase of each kind, as quiet agents saw it in valid blocks.

    Raises:
        LogError: a histogram is corrupt.
    """
    cells = quiet_cells(result.blocks, result.cells)
    valid = {block.block for block in result.blocks if block.valid}
    rounds = [record for record in result.rounds if record.block in valid]
    found = []
    for kind in kinds_of(cells):
        of_kind = [record for record in cells if record.cell.kind == kind]
        lowest: tuple[int, list[Doubt]] | None = None
        for phase in sorted({record.cell.phase for record in of_kind}):
            own = [record for record in of_kind if record.cell.phase == phase]
            response, service = (merged(own, metric) for metric in (Metric.RESPONSE, Metric.SERVICE))
            response_ns = response.supported_quantile_ns(0.99)
            windows = [w for r in rounds if r.phase == phase for w in r.agents if w.role == "quiet"]
            here = doubts(f"{kind} in {phase}", response, service, proofs(windows, own))
            if here and response_ns is not None and (lowest is None or response_ns < lowest[0]):
                lowest = response_ns, here
        found += lowest[1] if lowest else []
    quiet = [window for record in rounds for window in record.agents if window.role == "quiet"]
    return found + busy(proofs(quiet, ()))


def _rivals(ours_ns: int | None, theirs_ns: int | None) -> bool:
    if ours_ns is None or theirs_ns is None:
        return False
    return ours_ns > NEVER_BELOW_NS and ours_ns >= RIVAL * theirs_ns
