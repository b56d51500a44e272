"""`make perf`: peers and ours, turn by turn on the same cores, as ratios with their spread.

    python tests/perf/bench.py [--list] [ROW …]         all rows by default: about six minutes

The client is bound to the first CPU, the server to the last. On a shared machine the same command varies severalfold within
minutes, so tools take turns (A B A B …, who begins moves on), and what counts is the ratio of each turn: the median, and in
brackets the lowest and the highest. A tool that is not there is named and left out. Everything is written to `perf/`: a
file of figures for each row, and `table.md`, which README and docs quote: a whole run brings them up to date.
"""

import argparse
import json
import platform
import re
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import perf_kit
import rows

PERF = perf_kit.ROOT / "perf"
QUOTED_IN = (perf_kit.ROOT / "docs" / "performance.md", perf_kit.ROOT / "README.md")
QUOTE = re.compile(r"(<!-- perf/(\w+)\.md, by make perf -->\n).*?(<!-- end -->)", re.DOTALL)
HEADLINES = ("redis", "redis-pipelined", "http", "cpu", "open-loop", "agent", "two-agents")
"""The rows that the README quotes."""


WHY = {
    "bare loop in C|wrk -t1$": "1.6 µs of Python a request, beside the kernel's 6 to 7",
    "pipeline of 16": "half is the kernel's; a third is drawing and encoding commands",
    "in closed loop$": "sleeps and wake-ups, which a closed loop does without: see the bare paced loop",
    "call_later over ours": "call_later never sleeps here; both wait for a core that is nearly busy",
    "decode_and_add": "base64 and zlib alone are the floor; a busy host",
    "truth, fixed": "the host takes the CPU from client or server for milliseconds; no spread of the delay hides it",
}
"""Of rows that fall short, by what is found in their names; docs/performance.md says more."""


def machine():
    """What the figures were measured on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    client, server = perf_kit.cpus()
    return {
        "processor": model,
        "cpus": len({client, server}),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def figure(line):
    """The spread in words."""
    if not line.found:
        return f"missing: {line.detail['missing']}"
    digits = 2 if line.unit in ("×", "", "%", "s") else 0
    found = dict(line.found)
    unit = f" {line.unit}" if line.unit not in ("×", "%", "") else line.unit
    if found["min"] == found["max"]:
        return f"{found['median']:.{digits}f}{unit}"
    return f"{found['median']:.{digits}f}{unit} [{found['min']:.{digits}f}, {found['max']:.{digits}f}]"


def behind(line):
    """The figures that stand behind the ratio, in short."""
    detail = line.detail
    parts = []
    if "per_s" in detail:
        parts.append("{:,.0f} and {:,.0f} /s".format(*detail["per_s"]))
    if "cpu_us" in detail:
        parts.append("{:.2f} and {:.2f} µs of CPU".format(*detail["cpu_us"]))
    if "floor_us" in detail:
        parts.append(
            "floor {floor_us:.1f} µs; all of merge {merge_us:.0f}, its log reader {its_reader_us:.0f}".format(
                **detail
            )
        )
    if "lag_p99_us" in detail:
        parts += [
            f"{name} {found['median']:,.0f} µs, at {detail['cpu_us_of'][name]:.0f} µs of CPU a request"
            for name, found in detail["lag_p99_us"].items()
        ]
    if "response_and_record_us" in detail:
        parts += [
            f"{name} {ours:,} for {true:,} µs"
            for name, (ours, true) in detail["response_and_record_us"].items()
        ]
    if "analytic_s" in detail:
        words = "response {response_s:.4f} s for {analytic_s:.4f}; service time says {service_s:.4f}"
        parts.append(words.format(**detail))
    if "share" in detail:
        parts.append(f"{detail['share']:.1f}% of the planned were sent")
    if line.holds is False:
        parts += [why for of, why in WHY.items() if re.search(of, line.what)]
    return "; ".join(parts)


def verdict(line):
    return {True: "yes", False: "**no**", None: ""}[line.holds]


def table(lines):
    """Markdown."""
    head = ["| what | goal | found | reached | behind it |", "|---|---|---|---|---|"]
    return "\n".join(
        head
        + [
            f"| {line.what} | {line.goal} | {figure(line)} | {verdict(line)} | {behind(line)} |"
            for line in lines
        ]
    )


def about(contents):
    """Where and when rows were measured: the table may be of several runs, on one machine."""
    facts = contents[-1]["machine"]
    times = sorted({content["machine"]["at"] for content in contents})
    when = times[0] if len(times) == 1 else f"{times[0]} to {times[-1]}"
    return (
        f"{facts['processor']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, Python {facts['python']}, {when}. "
        "Medians of the turns' ratios, in brackets the lowest and the highest."
    )


def kept():
    """What is in `perf/` by row, in the order of the rows."""
    paths = {name: PERF / f"{name}.json" for name in rows.ROWS}
    return {
        name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()
    }


def headlines(lines):
    """Markdown, for the README."""
    head = ["| | goal | found |", "|---|---|---|"]
    return "\n".join(head + [f"| {line.what} | {line.goal} | {figure(line)} |" for line in lines])


def quote(texts):
    """Write each text into `perf/`, and bring up to date where documents quote it."""
    for name, text in texts.items():
        (PERF / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    for path in QUOTED_IN:
        before = path.read_text(encoding="utf-8")
        after = QUOTE.sub(lambda found: f"{found[1]}{texts[found[2]]}\n{found[3]}", before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"brought what {path.relative_to(perf_kit.ROOT)} quotes up to date")


def main():
    parser = argparse.ArgumentParser(description="Peers and ours, turn by turn.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="one or more of them; all by default")
    parser.add_argument("--list", action="store_true", help="name the rows")
    options = parser.parse_args()
    if options.list:
        for name, row in rows.ROWS.items():
            print(f"{name:<18}{row.__doc__.splitlines()[0]}")
        return 0
    unknown = set(options.rows) - set(rows.ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; see --list")
    perf_kit.pin_self()
    PERF.mkdir(exist_ok=True)
    facts = machine()
    for name in options.rows or rows.ROWS:
        began = time.monotonic()
        print(f"{name}: {rows.ROWS[name].__doc__.splitlines()[0]}", flush=True)
        try:
            lines = rows.ROWS[name]()
        except rows.peers.Missing as absent:
            print(f"  left out: missing {absent}")
            continue
        for line in lines:
            print(f"  {line.what:<72} {line.goal:>14}   {figure(line):<28} {verdict(line)}", flush=True)
            if behind(line):
                print(f"      {behind(line)}")
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
        content = {"machine": facts, "lines": [asdict(line) for line in lines]}
        (PERF / f"{name}.json").write_text(
            json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    contents = kept()
    lines = {name: [rows.Line(**line) for line in content["lines"]] for name, content in contents.items()}
    every = [line for some in lines.values() for line in some]
    short = [line for name in HEADLINES for line in lines.get(name, ())]
    if every:
        where = about(list(contents.values()))
        quote({"table": f"{where}\n\n{table(every)}", "headlines": f"{where}\n\n{headlines(short)}"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
