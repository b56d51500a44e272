"""What merging costs, beside the `hdrhistogram` package on the same logs, and at scale.

    python tests/perf/perf_merge.py                     ratios by samples an interval, and a fortieth of the full size
    python tests/perf/perf_merge.py --full              1,000 agents × 1,000 s × three metrics: minutes, and 2.3 GB of disk

Two things are set beside each other, in microseconds of CPU a histogram, turn by turn. *Decoding*: the histograms' texts,
found beforehand, are decoded and added; the package does it by `decode_and_add`. *Merging*: all that `kabench merge` does
with the logs (it finds the files, reads and checks them line by line, adds them up and writes the result), and the package's
own `HistogramLogReader` with `add`, which checks nothing. "floor" is base64 and zlib alone, the standard library's, which no
decoder of this form can do without; "fast floor" the same by the libraries that we use.
"""

import argparse
import base64
import resource
import tempfile
import time
import zlib
from pathlib import Path

import perf_kit
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from interval_logs import METRICS, write_logs

from kabench.core.histogram import HIGHEST_NS, LOWEST_NS, Histogram, decode_all
from kabench.core.inflate import FAST, from_base64, inflated
from kabench.store import merge_paths

SAMPLES = (50, 200, 500, 2000, 10_000)
TURNS = 5
AGENTS, SECONDS = 1000, 1000
TURN_AGENTS, TURN_SECONDS = 4, 100
OUTER_BYTES = 8
MOST_BYTES = 1 << 20
AT_ONCE = 96


def texts_of(paths):
    """The encoded histograms of logs, as bytes."""
    return [
        line.rstrip(b"\n").rsplit(b",", 1)[1]
        for path in paths
        for line in path.read_bytes().splitlines(True)
        if line.startswith(b"Tag=")
    ]


def package(texts):
    total = HdrHistogram(LOWEST_NS, HIGHEST_NS, 3)
    for text in texts:
        total.decode_and_add(text)
    return total.get_total_count()


def package_reader(paths):
    """The logs, added up by metric; the package reads the first of them in each turn: it is slow."""
    totals = {}
    reader = HistogramLogReader(str(paths[0]), HdrHistogram(LOWEST_NS, HIGHEST_NS, 3))
    while histogram := reader.get_next_interval_histogram():
        tag = histogram.get_tag()
        totals.setdefault(tag, HdrHistogram(LOWEST_NS, HIGHEST_NS, 3)).add(histogram)
    reader.close()
    assert len(totals) == len(METRICS)


def ours(texts):
    total = Histogram()
    for begin in range(0, len(texts), AT_ONCE):
        total.add_many(decode_all(texts[begin : begin + AT_ONCE]))
    return total.total


def floor(texts):
    for text in texts:
        zlib.decompress(base64.b64decode(text)[OUTER_BYTES:])


def fast_floor(texts):
    for text in texts:
        inflated(from_base64(text)[OUTER_BYTES:], MOST_BYTES)


def merged(folder, expected):
    """Merge a run; what was merged is what was made."""
    report = merge_paths([folder], folder / "merged")
    assert report.corrupt == [], report.corrupt[:3]
    (phase,) = report.summary["phases"].values()
    (kind,) = phase.values()
    assert kind["requests"]["ok"] == expected
    for name in report.files:
        name.unlink()


def cpu_us(work, count):
    """CPU microseconds a histogram of `work`."""
    began = time.process_time_ns()
    work()
    return (time.process_time_ns() - began) / 1e3 / count


def ratios(samples):
    """The contenders' costs at one size of interval, turn by turn."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        paths = write_logs(folder, TURN_AGENTS, TURN_SECONDS, samples)
        texts = texts_of(paths)
        expected = TURN_AGENTS * TURN_SECONDS * samples
        every, few = len(texts), len(texts) // TURN_AGENTS
        assert ours(texts) == package(texts)
        works = {
            "ours": (lambda: ours(texts), every),
            "package": (lambda: package(texts), every),
            "our merge": (lambda: merged(folder, expected), every),
            "its reader": (lambda: package_reader(paths), few),
            "floor": (lambda: floor(texts), every),
            "fast floor": (lambda: fast_floor(texts), every),
        }
        merged(folder, expected)  # what is imported and made once
        costs = {name: [] for name in works}
        for _ in range(TURNS):
            for name, (work, count) in works.items():
                costs[name].append(cpu_us(work, count))
        return costs


def at_scale(agents, seconds, samples):
    """CPU and wall seconds, and the highest memory, of one merge of this size."""
    with tempfile.TemporaryDirectory(dir=perf_kit.scratch()) as temporary:
        folder = Path(temporary) / "run"
        began = time.monotonic()
        paths = write_logs(folder, agents, seconds, samples)
        size = sum(path.stat().st_size for path in paths)
        made_s = time.monotonic() - began
        before, wall, cpu = peak_mib(), time.monotonic(), time.process_time()
        merged(folder, agents * seconds * samples)
        return {
            "agents": agents,
            "seconds": seconds,
            "samples": samples,
            "histograms": agents * seconds * len(METRICS),
            "log_bytes": size,
            "made_s": round(made_s, 1),
            "cpu_s": round(time.process_time() - cpu, 2),
            "wall_s": round(time.monotonic() - wall, 2),
            "peak_mib_before": before,
            "peak_mib": peak_mib(),
        }


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def measure(samples=SAMPLES):
    """The ratios of every size of interval."""
    rows = []
    for count in samples:
        costs = ratios(count)
        rows.append(
            {
                "samples": count,
                "cpu_us": {name: perf_kit.spread(values) for name, values in costs.items()},
                "decoding": perf_kit.ratio(costs["package"], costs["ours"]),
                "merging": perf_kit.ratio(costs["its reader"], costs["our merge"]),
                "of_floor": perf_kit.ratio(costs["ours"], costs["floor"]),
            }
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--full", action="store_true", help="1,000 agents × 1,000 s, rather than a fortieth of it"
    )
    parser.add_argument("--samples", type=int, default=500, help="requests an interval, at scale")
    options = parser.parse_args()
    perf_kit.pin_self()
    agents, seconds = (AGENTS, SECONDS) if options.full else (AGENTS // 8, SECONDS // 5)
    found = at_scale(agents, seconds, options.samples)
    print(
        f"{agents:,} agents × {seconds:,} s × {len(METRICS)} metrics, {options.samples} requests an interval: "
        f"{found['histograms']:,} histograms in {found['log_bytes'] / 1e6:,.0f} MB merged in {found['wall_s']:.1f} s "
        f"({found['cpu_s']:.1f} s of CPU); highest memory {found['peak_mib']} MiB, {found['peak_mib_before']} before\n"
    )
    print(f"isal and pybase64: {'yes' if FAST else 'no'}; CPU µs a histogram, medians of {TURNS} turns")
    names = ("ours", "package", "our merge", "its reader", "floor", "fast floor")
    print(
        f"{'samples':>8}"
        + "".join(f"{name:>12}" for name in names)
        + "   decoding: faster    merging: faster"
    )
    for row in measure():
        cost = [row["cpu_us"][name]["median"] for name in names]
        print(f"{row['samples']:>8}" + "".join(f"{us:>12.1f}" for us in cost), end="   ")
        print(perf_kit.words(row["decoding"], 1), " ", perf_kit.words(row["merging"], 1))


if __name__ == "__main__":
    main()
