"""Agents' logs as a large run leaves them, made without the run: for perf_merge.py.

Every log is sealed and the product's own in form; so that thousands are made in seconds, agents share a stock of histograms
and put them together differently. A folder is one run: AGENTS logs of SECONDS intervals of one target with three metrics
(response, service, lag), with a journal in which the block stands.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from kabench.core.health import Health
from kabench.core.histogram import GEOMETRY, Buckets
from kabench.core.hlog import LOG_VERSION, Header, IntervalNote, LoggedTarget, Seal
from kabench.core.identity import Kind, Metric, Outcomes
from kabench.core.logline import (
    INTERVAL_MARK,
    LEGEND,
    SEAL_MARK,
    WINDOW_MARK,
    histogram_line,
    marked,
    preamble,
)

SECOND_NS = 1_000_000_000
METRICS = (Metric.RESPONSE, Metric.SERVICE, Metric.LAG)
STOCK = 64
HEALTH = Health(cpu_share=0.05, max_in_flight=3, run_delay_ns=1_000_000)


@dataclass(frozen=True)
class Stocked:
    """One histogram of the stock: its text, and what a log's line says beside it."""

    text: str
    max_ns: int


def stock(samples, seed=1):
    """`STOCK` histograms of `samples` values for each metric: a service time of 0.2 ms with a tail, a lag of 50 µs."""
    rng = np.random.default_rng(seed)
    found = {metric: [] for metric in METRICS}
    for _ in range(STOCK):
        service = rng.lognormal(12.2, 0.8, samples).astype(np.int64)
        lag = rng.lognormal(10.8, 0.6, samples).astype(np.int64)
        values = {Metric.RESPONSE: service + lag, Metric.SERVICE: service, Metric.LAG: lag}
        for metric, at in values.items():
            buckets = Buckets.of(at)
            found[metric].append(Stocked(buckets.encode(), buckets.max_ns))
    return found


def write_logs(folder, agents, seconds, samples):
    """Write the run's logs below `folder`; returns their paths."""
    histograms = stock(samples)
    logs = Path(folder) / "logs" / "001-load"
    logs.mkdir(parents=True)
    paths = []
    for number in range(agents):
        path = logs / f"node-{number}.hlog"
        path.write_bytes(log(f"node-{number}", number, seconds, samples, histograms))
        paths.append(path)
    return paths


def log(agent, number, seconds, samples, histograms):
    """One agent's log, sealed."""
    outcomes = {"redis-0": Outcomes(sent=samples, ok=samples)}
    planned = samples * seconds
    target = LoggedTarget("redis-0", "redis", "node-9", Kind.REDIS, float(samples), 50, planned)
    header = Header(
        version=LOG_VERSION, run="perf", scenario_sha256="0" * 64, window="001-load", phase="load", block=1, agent=agent,
        instance="0" * 16, boot_id=agent, seed=number, arrivals="poisson", start_ns=0, start_realtime_ns=SECOND_NS,
        warm_up_ns=SECOND_NS, window_ns=seconds * SECOND_NS, interval_ns=SECOND_NS, timeout_ns=SECOND_NS,
        pacer="timerfd", targets=(target,), geometry=GEOMETRY,
    )  # fmt: skip
    picks = np.random.default_rng(number).integers(0, STOCK, (seconds, len(METRICS))).tolist()
    lines = [preamble(SECOND_NS), marked(WINDOW_MARK, header), LEGEND]
    for index, picked in enumerate(picks):
        start_ns = index * SECOND_NS
        for metric, pick in zip(METRICS, picked, strict=True):
            one = histograms[metric][pick]
            lines.append(histogram_line(f"redis-0.{metric}", start_ns, SECOND_NS, one.max_ns, one.text))
        lines.append(marked(INTERVAL_MARK, IntervalNote(index, start_ns, SECOND_NS, outcomes, HEALTH)))
    body = b"".join(lines)
    totals = {"redis-0": Outcomes(planned=planned, sent=planned, ok=planned)}
    seal = Seal(seconds, totals, HEALTH, 0)
    return body + marked(SEAL_MARK, msgspec.structs.replace(seal, sha256=hashlib.sha256(body).hexdigest()))
