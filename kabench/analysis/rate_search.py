"""The highest rate that holds a promise: which rate to try next, what a try has shown, and why the search ended. Pure.

A rate is doubled until one does not hold (or halved until one does), then the gap is halved in logarithms. A rate is given
up only when it failed twice, in windows of their own: a single hiccup of the machine is not the target's limit.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kabench.analysis.instrument import BUSY
from kabench.analysis.pooling import BEYOND_TO_INFER, merged
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric, Outcomes
from kabench.core.result import AgentWindow, CellRecord, Tried
from kabench.core.spec import NS_PER_S
from kabench.errors import SpecError

ERRORS_ALLOWED = 0.001
"""Share of the planned requests that may fail, time out or be skipped, where the promise says nothing of errors."""

RIVAL = 0.5
"""Part of a time that breaks the promise from which on the generator's own may be its cause."""
NULL_TAIL = 0.99
"""From this quantile on, the null echo's p99 is held against it, and below it its p50."""
LATE_SHARE = 0.01
"""Part of the window by which half of the sends were late, from which on the rate was not offered."""

PRECISION = 1.05
LOWEST_PER_S, HIGHEST_PER_S = 1.0, 10_000_000.0
MOST_TRIES = 60
SHOWN = (0.5, 0.99, 0.999)
"""The quantiles that every try is told with."""

FORM = "give p50, p99, p99.9 … or errors with a limit, as in 'p99 < 1ms' or 'p99.9 < 5ms, errors < 0.1%'"
_TERM = re.compile(
    r"(?P<what>p(?P<percent>\d{1,2}(?:\.\d{1,6})?)|errors?)\s*(?:<|<=|≤)\s*(?P<limit>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>ns|us|µs|ms|s|%|)"
)
_UNIT_NS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}


@dataclass(frozen=True)
class Promise:
    """What must hold: responses within `limit_ns` at these quantiles, and no more than a share of errors.

    Attributes:
        text: as it was given.
        limits_ns: by quantile.
        errors: share of the planned requests.
    """

    text: str
    limits_ns: Mapping[float, int] = field(default_factory=dict)
    errors: float = ERRORS_ALLOWED


def parse_promise(text: str) -> Promise:
    """`p99 < 1ms`, `p99.9 <= 500us, errors < 0.1%`.

    Raises:
        SpecError: it is not that.
    """
    limits: dict[float, int] = {}
    errors: float | None = None
    for term in re.split(r",|\band\b", text):
        match = _TERM.fullmatch(term.strip())
        if not match:
            raise SpecError(f"--find-rate {text!r}: {term.strip()!r} is no promise; {FORM}")
        limit, unit = float(match["limit"]), match["unit"]
        if match["percent"] is None:
            if unit not in ("%", "") or errors is not None:
                raise SpecError(f"--find-rate {text!r}: errors are a share, given once, as in errors < 0.1%")
            errors = limit / 100 if unit == "%" else limit
            if not 0 <= errors <= 1:
                raise SpecError(f"--find-rate {text!r}: a share of errors is 0 to 100%")
            continue
        q = round(float(match["percent"]) / 100, 10)
        if unit not in _UNIT_NS or not limit:
            raise SpecError(f"--find-rate {text!r}: {match['what']} wants a time such as 500us or 1ms")
        if not 0 < q < 1 or q in limits:
            raise SpecError(f"--find-rate {text!r}: give each quantile once, between p0 and p100")
        limits[q] = round(limit * _UNIT_NS[unit])
    return Promise(text, limits, ERRORS_ALLOWED if errors is None else errors)


class RateSearch:
    """Which rate to try next.

    Args:
        start_per_s: the first.
        precision: the search ends when the lowest rate that failed is within this factor of the highest that held.

    Attributes:
        held: the highest rate that held.
        failed: the lowest rate that failed twice.
    """

    def __init__(self, start_per_s: float, precision: float = PRECISION) -> None:
        self.held: float | None = None
        self.failed: float | None = None
        self._start, self._precision = start_per_s, precision
        self._once: float | None = None
        self._tries = 0

    def next_rate(self) -> float | None:
        """What to try; None when there is no more to learn."""
        if self._tries >= MOST_TRIES:
            return None
        if self._once is not None:
            return self._once
        if self.held is None and self.failed is None:
            return self._start
        if self.failed is None:
            assert self.held is not None
            return _neat(min(2 * self.held, HIGHEST_PER_S)) if self.held < HIGHEST_PER_S else None
        if self.held is None:
            return _neat(max(self.failed / 2, LOWEST_PER_S)) if self.failed > LOWEST_PER_S else None
        if self.failed <= self.held * self._precision:
            return None
        middle = _neat((self.held * self.failed) ** 0.5)
        return middle if self.held < middle < self.failed else None

    def record(self, rate_per_s: float, *, holds: bool) -> None:
        """What a window at `rate_per_s` has shown."""
        self._tries += 1
        if holds:
            self._once = None
            self.held = max(self.held or 0.0, rate_per_s)
        elif self._once is None:
            self._once = rate_per_s
        else:
            self._once = None
            self.failed = rate_per_s if self.failed is None else min(self.failed, rate_per_s)


def judged(
    promise: Promise,
    phase: str,
    rate_per_s: float,
    window_s: float,
    cells: Sequence[CellRecord],
    agents: Sequence[AgentWindow],
    error: str = "",
) -> Tried:
    """What a window has shown. With several targets the promise is each one's, and the worst is told.

    Args:
        promise: what must hold.
        phase: the window's.
        rate_per_s: what was asked for, in all.
        window_s: how long.
        cells: of this window.
        agents: of this window.
        error: why the window was not measured as a whole, if so.

    Raises:
        LogError: a histogram is corrupt.
    """
    targets: defaultdict[str, list[CellRecord]] = defaultdict(list)
    for record in cells:
        targets[record.cell.workload].append(record)
    response = {name: merged(own, Metric.RESPONSE) for name, own in targets.items()}
    total = sum((record.outcomes for record in cells), Outcomes())
    failed = max((_failed(own) for own in targets.values()), default=1.0)
    quantiles = {q: _worst(response, q) for q in sorted({*SHOWN, *promise.limits_ns})}
    if error:
        outcome, detail = "lost", error
    else:
        broken = next(_broken(promise, quantiles, response, failed), ("holds", ""))
        generator = _generator(promise, quantiles, window_s, cells, agents)
        own = generator and (broken[0] != "holds" or _not_offered(window_s, cells))
        outcome, detail = ("generator", generator) if own else broken
    return Tried(
        promise=promise.text,
        phase=phase,
        rate_per_s=rate_per_s,
        outcome=outcome,
        detail=detail,
        quantiles_ns={_name(q): value for q, value in quantiles.items()},
        error_share=failed,
        ok_per_s=total.ok / window_s,
        lag_p99_ns=max((a.lag_p99_ns for a in agents if a.lag_p99_ns is not None), default=None),
        cpu_share=max((a.cpu_share for a in agents), default=0.0),
    )


def _failed(cells: Sequence[CellRecord]) -> float:
    total = sum((record.outcomes for record in cells), Outcomes())
    return (total.planned - total.ok) / total.planned if total.planned else 0.0


def _worst(response: Mapping[str, Histogram], q: float) -> int | None:
    return max((value for h in response.values() if (value := h.quantile_ns(q)) is not None), default=None)


def _broken(
    promise: Promise, quantiles: Mapping[float, int | None], response: Mapping[str, Histogram], failed: float
) -> Iterator[tuple[str, str]]:
    """What was not kept: a try's outcome, and the detail in words."""
    for q, limit_ns in promise.limits_ns.items():
        found = quantiles[q]
        if found is None:
            yield "slo", "nothing was answered"
        elif found > limit_ns:
            few = min(h.total for h in response.values()) * (1 - q) < BEYOND_TO_INFER
            note = " (few samples: a longer --duration would tell more surely)" if few else ""
            yield "slo", f"{_name(q)} is {_ms(found)} ms, {_ms(limit_ns)} ms promised{note}"
    if failed > promise.errors:
        yield "errors", f"{failed:.2%} of the requests failed, {promise.errors:.2%} allowed"


def _generator(
    promise: Promise,
    quantiles: Mapping[float, int | None],
    window_s: float,
    cells: Sequence[CellRecord],
    agents: Sequence[AgentWindow],
) -> str:
    """Why the generator, and not the target, may be what failed; "" where nothing says so.

    Its own times are held against what was measured and not against what was promised: a server whose queue grows to 300 ms
    is beyond its limit, whether or not the generator is 10 ms late by then.
    """
    starved = {agent.agent: (agent.run_delay_ns or 0) / NS_PER_S / window_s for agent in agents}
    busy = max(agents, key=lambda agent: agent.cpu_share + starved[agent.agent], default=None)
    if busy is not None and busy.cpu_share + starved[busy.agent] >= BUSY:
        return f"{busy.agent} used {busy.cpu_share:.0%} of a CPU, and waited for one {starved[busy.agent]:.0%} of the time"
    late = _not_offered(window_s, cells)
    if late:
        return late
    lag = merged(cells, Metric.LAG)
    for q, limit_ns in promise.limits_ns.items():
        found_ns = quantiles[q]
        if found_ns is None or found_ns <= limit_ns:
            continue
        name, lag_ns = _name(q), lag.quantile_ns(q) or 0
        if lag_ns >= RIVAL * found_ns:
            return f"{name} is {_ms(found_ns)} ms, and the sends alone were {_ms(lag_ns)} ms late at {name}"
        null = {
            agent.agent: (agent.null_p99_ns if q >= NULL_TAIL else agent.null_p50_ns) or 0 for agent in agents
        }
        slow = max(null, key=lambda agent: null[agent], default="")
        if slow and null[slow] >= RIVAL * found_ns:
            echo = f"{slow}'s null echo, a server that does nothing, takes {_ms(null[slow])} ms"
            return f"{name} is {_ms(found_ns)} ms, and {echo} at {'p99' if q >= NULL_TAIL else 'p50'}"
    return ""


def _not_offered(window_s: float, cells: Sequence[CellRecord]) -> str:
    """Whether sends were so late that the rate was not offered, in words."""
    late_ns = merged(cells, Metric.LAG).quantile_ns(0.5)
    if late_ns is not None and late_ns / 1e9 >= LATE_SHARE * window_s:
        return f"the rate was not offered: half of the sends were {_ms(late_ns)} ms late or more"
    return ""


@dataclass(frozen=True)
class Answer:
    """The search's end: the rate (None: none held), and a sentence with the reason."""

    rate_per_s: float | None
    sentence: str


def answer(tries: Sequence[Tried]) -> Answer:
    """What all tries together say; also of a search that was cut short."""
    promise = tries[0].promise if tries else "the promise"
    held = max((tried.rate_per_s for tried in tries if tried.outcome == "holds"), default=None)
    above = [
        tried for tried in tries if tried.outcome != "holds" and (held is None or tried.rate_per_s > held)
    ]
    ceiling = min(above, key=lambda tried: tried.rate_per_s, default=None)
    if ceiling is not None:  # of two tries at one rate, the one that says it was the generator
        same = [tried for tried in above if tried.rate_per_s == ceiling.rate_per_s]
        ceiling = next((tried for tried in same if tried.outcome == "generator"), same[-1])
    if held is None:
        tried = (
            f": even at {ceiling.rate_per_s:,.6g}/s {ceiling.detail}" if ceiling else ": nothing was tried"
        )
        return Answer(None, f"No rate was found that holds {promise}{tried}.")
    if ceiling is None:
        return Answer(held, f"{held:,.6g}/s holds {promise}; no higher rate was tried.")
    if ceiling.outcome == "generator":
        return Answer(
            held,
            f"{held:,.6g}/s holds {promise}; at {ceiling.rate_per_s:,.6g}/s the generator itself is the limit "
            f"({ceiling.detail}): the target may hold more. Give more --agents, CPUs of their own, or another machine.",
        )
    return Answer(
        held, f"{held:,.6g}/s holds {promise}; {ceiling.rate_per_s:,.6g}/s does not: {ceiling.detail}."
    )


def _neat(rate_per_s: float) -> float:
    """Three digits are enough of a rate."""
    return float(f"{rate_per_s:.3g}")


def _name(q: float) -> str:
    return f"p{100 * q:.6g}"


def _ms(value_ns: int) -> str:
    return f"{value_ns / 1e6:.3g}"
