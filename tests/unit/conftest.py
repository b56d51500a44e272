"""What unit tests share: hypothesis without deadlines (the machine may be busy), logs as an agent writes them,
and the builder of synthetic runs."""

import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings

from kabench.core.health import Health
from kabench.core.histogram import GEOMETRY, Buckets
from kabench.core.hlog import Header, Interval, IntervalNote, LoggedTarget, LogWriter, Seal
from kabench.core.identity import NULL_TARGET, Kind, Metric, Outcomes, window_name

settings.register_profile("kabench", deadline=None)
settings.load_profile("kabench")

TARGETS = (("redis-0", "redis-latency-test", Kind.REDIS), ("echo-0", "http-echo", Kind.HTTP))


@dataclass
class Forge:
    """Logs that reconcile, each from a seed of its own identity: the same call gives the same bytes."""

    run: str = "20261124T160000Z-00ab"
    scenario: str = "5" * 64
    intervals: int = 3
    requests: int = 40
    interval_ns: int = 1_000_000_000

    def parts(self, block=1, phase="default", agent="node-1", kinds=(Kind.REDIS, Kind.HTTP), salt=""):
        """(header, intervals, seal) of one window."""
        identity = f"{self.run} {block} {phase} {agent} {salt}"
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4]))
        chosen = [(*target, "node-2") for target in TARGETS if target[2] in kinds]
        chosen.append((NULL_TARGET, NULL_TARGET, Kind.NULL, agent))
        start_ns = 5_000_000_000
        intervals, totals = [], {name: Outcomes() for name, *_ in chosen}
        for index in range(self.intervals):
            interval = self._interval(index, start_ns, [name for name, *_ in chosen], rng)
            intervals.append(interval)
            for name, outcomes in interval.note.outcomes.items():
                totals[name] += outcomes
        planned = {name: counts.sent + counts.skipped for name, counts in totals.items()}
        header = Header(
            version=1,
            run=self.run,
            scenario_sha256=self.scenario,
            window=window_name(block, phase),
            phase=phase,
            block=block,
            agent=agent,
            instance="i1",
            boot_id="b1",
            seed=7,
            arrivals="poisson",
            start_ns=start_ns,
            start_realtime_ns=1_764_000_000_123_456_789 + block,
            warm_up_ns=1_000_000_000,
            window_ns=max(1, self.intervals - 1) * self.interval_ns,
            interval_ns=self.interval_ns,
            timeout_ns=1_000_000_000,
            pacer="timerfd",
            targets=tuple(
                LoggedTarget(name, workload, node, kind, 20.0, 1, planned[name])
                for name, workload, kind, node in chosen
            ),
            geometry=GEOMETRY,
        )
        sealed = {
            name: counts
            + Outcomes(planned=planned[name], errors=counts.errors and dict.fromkeys(counts.errors, 0))
            for name, counts in totals.items()
        }
        return header, intervals, Seal(self.intervals, sealed, Health(cpu_share=0.1, max_in_flight=3), 1200)

    def log(self, sealed=True, **identity):
        """The bytes of one window's log."""
        header, intervals, seal = self.parts(**identity)
        writer = LogWriter()
        pieces = [writer.begin(header), *(writer.interval(interval) for interval in intervals)]
        if sealed:
            pieces.append(writer.seal(seal))
        return b"".join(pieces)

    def _interval(self, index, start_ns, names, rng):
        outcomes, histograms = {}, {}
        for name in names:
            ok = int(rng.integers(1, self.requests + 1))
            errors, timeouts, skipped = (int(n) for n in rng.integers(0, 3, 3))
            outcomes[name] = Outcomes(
                sent=ok + errors + timeouts,
                ok=ok,
                error=errors,
                timeout=timeouts,
                skipped=skipped,
                errors={"reset": errors} if errors else {},
            )
            sizes = {
                Metric.RESPONSE: ok + timeouts + skipped,
                Metric.SERVICE: ok,
                Metric.LAG: ok + errors + timeouts + skipped,
                Metric.WAIT: ok + errors + timeouts,
                Metric.ERROR: errors,
            }
            for metric, size in sizes.items():
                histograms[name, metric] = Buckets.of(rng.lognormal(12, 1, size).astype(np.int64))
        length_ns = self.interval_ns if index < self.intervals - 1 else 40_000_000
        health = Health(cpu_share=0.1, max_in_flight=3, run_delay_ns=10)
        note = IntervalNote(index, start_ns + index * self.interval_ns, length_ns, outcomes, health)
        return Interval(note, histograms)


@pytest.fixture
def forge():
    """A maker of logs; its attributes may be changed."""
    return Forge()


@pytest.fixture(scope="module")
def shared_forge():
    """A maker of logs for what a module makes once."""
    return Forge()


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """`report/build.py`, loaded by its path: test folders are not packages."""
    name = "kabench_synthetic_runs"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("report") / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module
