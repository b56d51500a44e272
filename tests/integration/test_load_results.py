"""What a real load leaves: a chart, every second as CSV, and the instrument's proof; `chart` and `merge` find the same."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import load_kit
import pytest
import run_kit as kit

from kabench.cli import main
from kabench.core.histogram import Histogram
from kabench.core.hlog import LogReader
from kabench.core.identity import Kind, Metric
from kabench.core.seconds import QUANTILES

COUNTS = ("ok", "error", "timeout", "skipped")


@dataclass(frozen=True)
class Left:
    """A load of two servers by two agents, with `--json`."""

    folder: Path
    found: dict[str, Any]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    folder = tmp_path_factory.mktemp("load")
    with (
        load_kit.redis(folder) as redis,
        load_kit.http() as (_, port),
        pytest.MonkeyPatch.context() as patched,
    ):
        said: list[str] = []
        patched.setattr("kabench.cli.session.say", said.append)
        flags = ("--rate", "800", "--duration", "2s", "--warmup", "0", "--agents", "2", "-c", "8", "--json")
        code = main(
            ["load", redis.url, f"http://127.0.0.1:{port}/", *flags, "--out", str(folder / "results")]
        )
        assert code == 0
        run = kit.run_folder(folder / "results")
        assert run is not None
        yield Left(run, json.loads("".join(said)))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_second_adds_up_to_the_whole(left: Left) -> None:
    sums: defaultdict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
    for row in rows(left.folder / "series.csv"):
        assert row["agents"] in ("1", "2")
        for name in COUNTS:
            sums[row["kind"]][name] += int(row[name])
    (figures,) = left.found["phases"].values()
    assert {kind: {name: of["requests"][name] for name in COUNTS} for kind, of in figures.items()} == sums


def test_a_second_s_percentiles_are_those_of_both_agents_counts(left: Left) -> None:
    total = Histogram()
    for path in sorted(left.folder.glob("logs/*/*.hlog")):
        with path.open("rb") as file:
            reader = LogReader(file)
            (name,) = (target.name for target in reader.header.targets if target.kind is Kind.REDIS)
            total.add_buckets(next(iter(reader)).histograms[name, Metric.RESPONSE])
    first = next(
        row for row in rows(left.folder / "series.csv") if (row["kind"], row["second"]) == ("redis", "0")
    )
    assert first["agents"] == "2"
    assert {q: int(first[f"response_{q}_ns"]) for q in QUANTILES} == {
        name: total.quantile_ns(q) for name, q in QUANTILES.items()
    }


def test_the_chart_is_drawn_again_as_it_was(left: Left, tmp_path: Path) -> None:
    assert main(["chart", str(left.folder), "--out", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["latency.png"]
    assert (tmp_path / "latency.png").read_bytes() == (left.folder / "latency.png").read_bytes()


def test_merging_finds_the_same_seconds(left: Left, tmp_path: Path) -> None:
    assert main(["merge", str(left.folder), "--series", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "series.csv").read_bytes() == (left.folder / "series.csv").read_bytes()


def test_the_agents_prove_themselves(left: Left) -> None:
    agents = left.found["instrument"]
    assert [agent["agent"] for agent in agents] == ["node-1", "node-2"]
    for agent in agents:
        assert agent["lag_p50_ns"] > 0
        assert agent["null_p99_ns"] >= agent["null_p50_ns"] > 0
        assert 0 < agent["cpu_share"] < 1.5
