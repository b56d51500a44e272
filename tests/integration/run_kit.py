"""A benchmark small enough for a test, and ways to look at what it leaves: shared by the tests of whole runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

TINY = """
name: tiny
seed: 11
agents: 2
phases:
  - {name: default, policy: default}
  - {name: contention-aware, policy: contention-aware}
targets:
  - {name: cache, kind: redis, replicas: 1, slo: {p99_ms: 1}, redis: {keys: 50}}
  - {name: echo, kind: http, replicas: 1, slo: {p99_ms: 5}}
noise:
  nodes: 1
  stressors: [{kind: stress-cpu, requests: {cpu_millis: 200, memory_mib: 32}}]
load: {rate_per_s: 600, timeout_ms: 300}
blocks: {planned: 1, reserve: 0}
timing: {window_s: 1, warm_up_s: 0.2}
gates: {quiet_lag_p99_ms: 1000, strangers_cpu_share: 1}
"""
"""One block of two phases on two nodes. Its gates are wide: tests of faults must not hang on this machine's load."""

DEADLINE_S = 60


def write_scenario(folder: Path, text: str = TINY, **replaced: str) -> Path:
    """The tiny scenario in a file, with some of its lines replaced: `blocks="{planned: 2, reserve: 0}"`."""
    lines = []
    for line in text.strip().splitlines():
        key = line.split(":")[0]
        lines.append(f"{key}: {replaced[key]}" if key in replaced else line)
    path = folder / "tiny.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


class Controller:
    """A `kabench` process of its own, as a user starts it."""

    def __init__(self, *args: str | Path, cwd: Path, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "kabench", *map(str, args)]
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "NO_COLOR": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._children: dict[int, psutil.Process] = {}

    def children(self) -> list[psutil.Process]:
        """Every process below the controller now; all that were ever seen are remembered for `leftovers`."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._children.update({child.pid: child for child in found})
        return found

    def child(self, *words: str) -> psutil.Process | None:
        """A child in whose command line all of `words` stand."""
        for child in self.children():
            try:
                line = " ".join(child.cmdline())
            except psutil.NoSuchProcess:
                continue
            if all(word in line for word in words):
                return child
        return None

    def wait(self, deadline_s: float = DEADLINE_S) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        try:
            out, err = self.process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"did not end within {deadline_s} s:\n{out}\n{err}") from None
        return self.process.returncode, out, err

    def close(self) -> None:
        """Let go of a process that has ended, or is about to."""
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the controller alone."""
        self.children()
        self.process.send_signal(number)

    def leftovers(self) -> list[psutil.Process]:
        """Children seen that still run two seconds after the end."""
        _, alive = psutil.wait_procs(list(self._children.values()), timeout=2)
        return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def until(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Poll for something another process does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def run_folder(out: Path) -> Path | None:
    """The newest run below `out`."""
    latest = out / "latest"
    return latest.resolve() if latest.exists() else None


def journal(out: Path) -> list[dict[str, Any]]:
    """The newest run's journal; a torn last line is left out."""
    folder = run_folder(out)
    if folder is None or not (folder / "journal.jsonl").exists():
        return []
    lines = (folder / "journal.jsonl").read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def events(out: Path, name: str) -> list[dict[str, Any]]:
    """All events of one name."""
    return [event for event in journal(out) if event["event"] == name]


def results(out: Path) -> dict[str, Any]:
    """The newest run's results."""
    folder = run_folder(out)
    assert folder is not None
    loaded: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return loaded
