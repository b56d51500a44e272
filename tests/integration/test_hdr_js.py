"""An HdrHistogram written by others (the npm package `hdr-histogram-js`) reads our logs and finds the same.

It is fetched once, into `.cache`, as `hdr_js/package-lock.json` pins it.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from kabench.core.histogram import Buckets, Histogram
from kabench.core.hlog import Interval, LogWriter, read_log
from kabench.core.identity import Kind, Metric, Outcomes
from kabench.core.merged_log import read_merged
from kabench.store import merge_paths

HERE = Path(__file__).parent / "hdr_js"
CACHE = Path(__file__).parents[2] / ".cache" / "hdr-js"
QUANTILES = (0.0, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1.0)
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "ENOTCACHED")
REQUESTS = 10_000
"""A multiple of all that QUANTILES cut it into: then every rule of rounding a rank gives the same rank."""

pytestmark = pytest.mark.skipif(not shutil.which("npm"), reason="node and npm are not there")


@pytest.fixture(scope="module")
def modules() -> Path:
    """Where node finds the package."""
    lock = (HERE / "package-lock.json").read_bytes()
    installed = CACHE / "package-lock.json"
    if not (CACHE / "done").exists() or installed.read_bytes() != lock:
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "done").unlink(missing_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, CACHE / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        ran = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=240)
        if ran.returncode and any(code in ran.stderr for code in UNREACHABLE):
            pytest.skip(f"npm reaches no registry: {ran.stderr.splitlines()[0]}")
        assert ran.returncode == 0, ran.stderr
        (CACHE / "done").touch()
    return CACHE


@pytest.fixture(scope="module")
def kit() -> ModuleType:
    """The unit tests' maker of logs."""
    path = Path(__file__).parents[1] / "unit" / "conftest.py"
    spec = importlib.util.spec_from_file_location("kabench_forge", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["kabench_forge"] = module  # its dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def others(modules: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    ran = subprocess.run(
        ["node", HERE / "read.mjs", *arguments],
        env=os.environ | {"HDR_JS": str(modules)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    found: list[dict[str, Any]] = json.loads(ran.stdout)
    return found


def same(theirs: dict[str, Any], ours: Histogram) -> None:
    """Every count, and every percentile by their rule: the rank rounded up, where the Python package's (and ours) is
    rounded to the nearest."""
    values, counts = ours.sparse()
    assert theirs["counts"] == [list(pair) for pair in zip(values.tolist(), counts.tolist(), strict=True)]
    assert theirs["total"] == ours.total
    assert theirs["max"] == ours.max_ns
    sums = np.cumsum(counts)
    for q, value in zip(QUANTILES, theirs["percentiles"], strict=True):
        if q:
            rank = max(1, math.ceil(round(q * ours.total, 6)))
            assert value == values[np.searchsorted(sums, rank)], q
        else:
            assert value == ours.quantile_ns(0)


def a_log(kit: ModuleType) -> bytes:
    """A window in which every metric has ten thousand values."""
    header, intervals, seal = kit.Forge().parts(kinds=(Kind.REDIS,))
    rng = np.random.default_rng(3)
    name = header.targets[0].name
    counts = Outcomes(sent=REQUESTS, ok=REQUESTS)
    metrics = (Metric.RESPONSE, Metric.SERVICE, Metric.LAG, Metric.WAIT)
    found = {
        (name, metric): Buckets.of(
            rng.lognormal(11 + n, 2, REQUESTS).astype(np.int64).clip(1, 59_000_000_000)
        )
        for n, metric in enumerate(metrics)
    }
    note = msgspec.structs.replace(intervals[0].note, outcomes={name: counts})
    targets = tuple(msgspec.structs.replace(one, planned=REQUESTS) for one in header.targets[:1])
    writer = LogWriter()
    pieces = [writer.begin(msgspec.structs.replace(header, targets=targets))]
    pieces.append(writer.interval(Interval(note, found)))
    totals = {name: msgspec.structs.replace(counts, planned=REQUESTS)}
    pieces.append(writer.seal(msgspec.structs.replace(seal, intervals=1, totals=totals)))
    return b"".join(pieces)


def test_percentiles_are_those_that_we_report(modules: Path, kit: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "node-1.hlog"
    path.write_bytes(a_log(kit))
    with path.open("rb") as file:
        log = read_log(file)
    assert log.problem == ""
    (theirs,) = others(modules, path)
    assert theirs["starts"][0] == pytest.approx(log.header.start_realtime_ns / 1e6, abs=1)
    (interval,) = log.intervals
    assert theirs["tags"].keys() == {f"{name}.{metric}" for name, metric in interval.histograms}
    for (name, metric), buckets in interval.histograms.items():
        found = theirs["tags"][f"{name}.{metric}"]
        assert found["percentiles"] == buckets.quantiles_ns(QUANTILES)
        assert found["max"] == buckets.max_ns


def test_every_interval_and_tag_of_an_agents_log_is_read(
    modules: Path, kit: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "node-1.hlog"
    path.write_bytes(kit.Forge(requests=400, intervals=5).log())
    with path.open("rb") as file:
        log = read_log(file)
    sums: dict[str, Histogram] = {}
    for interval in log.intervals:
        for (name, metric), buckets in interval.histograms.items():
            sums.setdefault(f"{name}.{metric}", Histogram()).add_buckets(buckets)
    (theirs,) = others(modules, path)
    assert theirs["intervals"] == sum(len(interval.histograms) for interval in log.intervals)
    assert theirs["tags"].keys() == sums.keys()
    for tag, histogram in sums.items():
        same(theirs["tags"][tag], histogram)


def test_a_merged_log_is_read_by_its_tags(modules: Path, kit: ModuleType, tmp_path: Path) -> None:
    forge = kit.Forge(requests=200)
    for agent in ("node-1", "node-2", "node-3"):
        (tmp_path / f"{agent}.hlog").write_bytes(forge.log(agent=agent))
    merge_paths([tmp_path], tmp_path / "out")
    merged = tmp_path / "out" / "merged.hlog"
    with merged.open("rb") as file:
        _, histograms = read_merged(file)
    (theirs,) = others(modules, merged)
    expected = {f"{phase}.{kind}.{metric}": h for (_, phase, kind, metric), h in histograms.items()}
    assert "default.redis.response" in expected
    assert theirs["tags"].keys() == expected.keys()
    for tag, histogram in expected.items():
        same(theirs["tags"][tag], histogram)


def test_the_correction_for_coordinated_omission_is_theirs(
    modules: Path, kit: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "node-1.hlog"
    path.write_bytes(a_log(kit))
    interval_ns = 40_000_000
    (theirs,) = others(modules, "--corrected", str(interval_ns), path)
    with path.open("rb") as file:
        (interval,) = read_log(file).intervals
    grown = 0
    for (name, metric), buckets in interval.histograms.items():
        whole = Histogram()
        whole.add_buckets(buckets)
        corrected = whole.corrected(interval_ns)
        grown += corrected.total - whole.total
        values, counts = corrected.sparse()
        expected = [list(pair) for pair in zip(values.tolist(), counts.tolist(), strict=True)]
        assert theirs["tags"][f"{name}.{metric}"]["corrected"] == expected
    assert grown > 0
