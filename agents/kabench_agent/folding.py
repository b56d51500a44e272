"""Counts a closed interval with numpy, a slice at a time: tens of nanoseconds a value, in steps of a tenth of a millisecond.

All targets are folded in one pass, and into the counts in use alone: whole histograms of every target would cost each agent
25 ms a second, and it would show in its lag. A closed loop has few targets and many requests: there, one whole array of
counts a target is the cheaper way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from kabench.core.histogram import COUNTS, Buckets, clamp, index_of
from kabench.core.hlog import ConnectionFigure, Extremes
from kabench.core.identity import Metric, Outcomes
from kabench.core.schedule import Ints
from kabench_agent.flights import NEVER, as_ints
from kabench_agent.landed import COUNT_BITS, MOST_IN_A_RUN, TARGET_BITS, VERDICT_BITS, Landed, Runs
from kabench_agent.protocols.base import Verdict
from kabench_agent.turns import Pause

Histograms = dict[tuple[str, Metric], Buckets]

SLICE = 512
"""Scheduled requests at a time: five metrics of each."""

RUNS_SLICE = 8192
"""Entries of a closed loop at a time: one metric of each, and no sorting."""

FAIR_SHARE = 0.5
"""Of what a connection would have if all had the same: those with less are not compared, their means are chance."""

FEWEST = 20
"""Requests without which a connection's mean is chance."""

_VERDICTS = max(Verdict) + 1


class Connections:
    """Ok requests and their service times, by target and connection, over a window.

    Args:
        targets: how many.
        most: connections to one of them.
    """

    def __init__(self, targets: int, most: int) -> None:
        self._most = most
        self._counts = np.zeros(targets * most, dtype=np.int64)
        self._sums_ns = np.zeros(targets * most)

    def add(self, targets: Ints | int, numbers: Ints, service_ns: Ints, weights: Ints) -> None:
        """Take in requests: target, connection, service time and how many of each."""
        at = numbers + targets * self._most
        self._counts += np.bincount(at, weights=weights, minlength=self._counts.size).astype(np.int64)
        self._sums_ns += np.bincount(at, weights=service_ns * weights, minlength=self._counts.size)

    def extremes(self, target: int, local: Sequence[str]) -> Extremes | None:
        """The fastest and the slowest; None where there are not two to compare. `local` by connection."""
        part = slice(target * self._most, (target + 1) * self._most)
        counts, sums_ns = self._counts[part], self._sums_ns[part]
        used = np.flatnonzero(counts)
        if used.size < 2:
            return None
        enough = max(FEWEST, FAIR_SHARE * counts.sum() / used.size)
        fair = used[counts[used] >= enough]
        if fair.size < 2:
            return None
        means_ns = sums_ns[fair] / counts[fair]

        def figure(at: np.intp) -> ConnectionFigure:
            number = int(fair[at])
            named = local[number] if number < len(local) else ""
            return ConnectionFigure(number, named, int(counts[number]), round(float(means_ns[at])))

        return Extremes(figure(np.argmin(means_ns)), figure(np.argmax(means_ns)))


class Folding:
    """One interval, while it is counted.

    Args:
        names: of the targets, by their index.
        timeout_ns: what time-outs and skipped requests enter the response time with, at least.
        connections: to be added to.
    """

    def __init__(self, names: Sequence[str], timeout_ns: int, connections: Connections) -> None:
        self.histograms: Histograms = {}
        self.clamped = 0
        self._names = names
        self._timeout_ns = timeout_ns
        self._connections = connections
        self._outcomes = np.zeros((len(names), _VERDICTS), dtype=np.int64)

    @property
    def outcomes(self) -> dict[str, Outcomes]:
        """What became of the requests, by target."""
        return {name: _counted(row) for name, row in zip(self._names, self._outcomes.tolist(), strict=True)}

    async def scheduled(self, landed: Landed, step: Pause) -> None:
        """Take in requests of the schedule."""
        parts: dict[int, list[Buckets]] = {}
        count = len(self._names)
        for begin in range(0, len(landed.what), SLICE):
            part = slice(begin, begin + SLICE)
            what = as_ints(landed.what)[part]
            verdict = what & ((1 << VERDICT_BITS) - 1)
            targets = (what >> VERDICT_BITS) & ((1 << TARGET_BITS) - 1)
            self._count(targets, verdict, np.ones_like(targets))
            await step()
            found = list(self._values(landed, part, verdict, targets))
            await step()
            values_ns, clamped = clamp(np.concatenate([values for _, values, _ in found]))
            self.clamped += clamped
            of = np.concatenate([owners + number * count for number, (_, _, owners) in enumerate(found)])
            keys = of * COUNTS + index_of(values_ns)
            await step()
            keys, counts = np.unique(keys, return_counts=True)
            await step()
            for owner, buckets in _cut_up(keys, counts):
                parts.setdefault(owner, []).append(buckets)
            await step()
        metrics = list(_METRICS)
        for owner in sorted(parts):
            metric, target = divmod(owner, count)
            pieces = parts[owner]
            self.histograms[self._names[target], metrics[metric]] = (
                pieces[0] if len(pieces) == 1 else Buckets.sum(pieces)
            )
            if len(pieces) > 1:
                await step()

    async def closed_loop(self, target: int, runs: Runs, from_ns: int, step: Pause) -> None:
        """Take in a target's requests of a closed loop that were sent from `from_ns` on; what it sent before was to warm up.

        What was sent when it was due has no lag and no wait, and its response time is its service time.
        """
        answered = np.zeros(COUNTS, dtype=np.int64)
        late = np.zeros(COUNTS, dtype=np.int64)
        failed = np.zeros(COUNTS, dtype=np.int64)
        for begin in range(0, len(runs.what), RUNS_SLICE):
            part = slice(begin, begin + RUNS_SLICE)
            sent_ns = as_ints(runs.sent_ns)[part]
            inside = sent_ns >= from_ns
            sent_ns, what = sent_ns[inside], as_ints(runs.what)[part][inside]
            took_ns, clamped = clamp(as_ints(runs.at_ns)[part][inside] - sent_ns)
            self.clamped += clamped
            count = what & MOST_IN_A_RUN
            verdict = (what >> COUNT_BITS) & ((1 << VERDICT_BITS) - 1)
            self._count(np.full_like(what, target), verdict, count)
            ok, timed_out = verdict == Verdict.OK, verdict == Verdict.TIMEOUT
            _add(answered, took_ns[ok], count[ok])
            _add(late, took_ns[timed_out], count[timed_out])
            wrong = verdict >= Verdict.CONNECT
            _add(failed, took_ns[wrong], count[wrong])
            self._connections.add(target, what[ok] >> (COUNT_BITS + VERDICT_BITS), took_ns[ok], count[ok])
            await step()
        name = self._names[target]
        for metric, counts in (
            (Metric.RESPONSE, answered + late),
            (Metric.SERVICE, answered),
            (Metric.ERROR, failed),
        ):
            used = np.flatnonzero(counts != 0)
            if used.size:
                self.histograms[name, metric] = Buckets(used.astype(np.int64), counts[used])
        await step()

    def _values(
        self, landed: Landed, part: slice, verdict: Ints, targets: Ints
    ) -> Iterator[tuple[Metric, Ints, Ints]]:
        """What each metric holds, and the target of each value."""
        due_ns, issued_ns = as_ints(landed.due_ns)[part], as_ints(landed.issued_ns)[part]
        sent_ns, at_ns = as_ints(landed.sent_ns)[part], as_ints(landed.at_ns)[part]
        took_ns = at_ns - due_ns
        service_ns = at_ns - sent_ns
        numbers = as_ints(landed.what)[part] >> (TARGET_BITS + VERDICT_BITS)
        if not verdict.any():  # all well, as nearly always
            self._connections.add(targets, numbers, service_ns, np.ones_like(numbers))
            yield Metric.RESPONSE, took_ns, targets
            yield Metric.SERVICE, service_ns, targets
            yield Metric.LAG, issued_ns - due_ns, targets
            yield Metric.WAIT, sent_ns - issued_ns, targets
            return
        ok = verdict == Verdict.OK
        late = (verdict == Verdict.TIMEOUT) | (verdict == Verdict.SKIPPED)
        answered = ok | late
        response_ns = np.where(late, np.maximum(took_ns, self._timeout_ns), took_ns)
        reached = sent_ns != NEVER
        failed = verdict >= Verdict.CONNECT
        self._connections.add(targets[ok], numbers[ok], service_ns[ok], np.ones_like(numbers[ok]))
        yield Metric.RESPONSE, response_ns[answered], targets[answered]
        yield Metric.SERVICE, service_ns[ok], targets[ok]
        yield Metric.LAG, issued_ns - due_ns, targets
        yield Metric.WAIT, (sent_ns - issued_ns)[reached], targets[reached]
        yield Metric.ERROR, took_ns[failed], targets[failed]

    def _count(self, targets: Ints, verdict: Ints, weights: Ints) -> None:
        rows = np.bincount(targets * _VERDICTS + verdict, weights=weights, minlength=self._outcomes.size)
        self._outcomes += rows.astype(np.int64).reshape(self._outcomes.shape)


_METRICS = (Metric.RESPONSE, Metric.SERVICE, Metric.LAG, Metric.WAIT, Metric.ERROR)
"""In the order of `Folding._values`."""


def _add(counts: Ints, values_ns: Ints, weights: Ints) -> None:
    """Count values, each as often as its weight says."""
    if values_ns.size:
        found = np.bincount(index_of(values_ns), weights=weights)
        counts[: found.size] += found.astype(np.int64)


def _cut_up(keys: Ints, counts: Ints) -> Iterator[tuple[int, Buckets]]:
    """Each owner's histogram, from `owner * COUNTS + index` in ascending order and how often each came."""
    owners = keys // COUNTS
    firsts = np.flatnonzero(np.diff(owners, prepend=-1)).tolist()
    for first, end in pairwise([*firsts, keys.size]):
        owner = int(owners[first])
        yield owner, Buckets(keys[first:end] - owner * COUNTS, counts[first:end])


def _counted(row: Sequence[int]) -> Outcomes:
    """Outcomes from how often each verdict came."""
    errors = {v.name.lower(): row[v] for v in Verdict if v >= Verdict.CONNECT and row[v]}
    error = sum(errors.values())
    ok, timeout = row[Verdict.OK], row[Verdict.TIMEOUT]
    return Outcomes(
        sent=ok + error + timeout,
        ok=ok,
        error=error,
        timeout=timeout,
        skipped=row[Verdict.SKIPPED],
        errors=errors,
    )
