"""The noisy neighbours: stress-ng where it is installed, else the built-in stressor."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kabench.backends.base import NoiseWork
from kabench.backends.local.accounting import by_parent, scan, tick_ns, tree_ns
from kabench.backends.local.processes import Child, Processes
from kabench.backends.local.servers import target_program, version_of
from kabench.backends.stressors import (
    DEFAULT_CACHE_BYTES,
    MAX_CACHE,
    StressAccount,
    stress_ng_account,
    stress_ng_arguments,
    stress_ng_bytes,
)
from kabench.core.placement import MIB
from kabench.core.spec import NS_PER_S, Stressor, StressorKind
from kabench.errors import ClusterError

BUFFER_FACTOR, MIN_BUFFER = 2, 64 * MIB
MEMORY_SHARE = 0.5
"""Noise takes at most so much of the memory that is available when it starts."""

WORKING_NS = 20_000_000
"""CPU time after which stress-ng, which does not say so itself, counts as working."""

READY_TIMEOUT_S = 20.0
NOTHING = StressAccount(0, 0, 0)

BUFFERS: dict[StressorKind, int] = {"stress-cache": 1, "stress-membw": 2, "stress-cpu": 0}
"""How many buffers a worker of the built-in stressor fills."""


@dataclass(frozen=True)
class StressTool:
    """What makes the noise. `path` is None for the built-in stressor; `cache_bytes` the last-level cache's size."""

    name: str
    path: str | None
    cache_bytes: int

    def command(self, stressor: Stressor, seconds: int, report: Path) -> list[str]:
        """A command that stresses for at most `seconds`; stress-ng leaves its figures in `report`."""
        if self.path is None:
            return [
                *(*target_program("stress"), "--kind", stressor.kind.removeprefix("stress-")),
                *("--seconds", str(seconds), "--workers", str(stressor.workers)),
                *("--buffer-mib", str(self.buffer_bytes // MIB)),
            ]
        return [
            self.path,
            *stress_ng_arguments(stressor, seconds, self.cache_bytes, str(report.parent), str(report)),
        ]

    @property
    def lasts(self) -> bool:
        """Whether one process serves many rounds: the built-in stressor tells what it did without having to end."""
        return self.path is None

    @property
    def buffer_bytes(self) -> int:
        """Of the built-in stressor: larger than the last-level cache."""
        return max(MIN_BUFFER, BUFFER_FACTOR * self.cache_bytes)

    def memory_bytes(self, stressor: Stressor) -> int:
        """What all workers of a stressor take."""
        if self.path is None:
            return stressor.workers * BUFFERS[stressor.kind] * self.buffer_bytes
        return stress_ng_bytes(stressor, self.cache_bytes)


def find_stress_tool() -> StressTool:
    """stress-ng from the PATH, else the built-in stressor.

    Raises:
        ClusterError: stress-ng is there and does not run.
    """
    path = shutil.which("stress-ng")
    if path is None:
        return StressTool("built-in", None, last_level_cache_bytes())
    version = re.search(r"\d+(\.\d+)+", version_of([path, "--version"]))
    return StressTool(f"stress-ng {version.group() if version else '?'}", path, last_level_cache_bytes())


def last_level_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """The largest cache that CPU 0 has, at most MAX_CACHE; DEFAULT_CACHE_BYTES where that is not told."""
    units = {"K": 1024, "M": MIB}
    sizes = []
    for entry in folder.glob("index*/size"):
        text = entry.read_text().strip()
        if text[:-1].isdigit() and text[-1:] in units:
            sizes.append(int(text[:-1]) * units[text[-1]])
    return min(MAX_CACHE, max(sizes, default=DEFAULT_CACHE_BYTES))


def available_memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """What can still be filled: of the machine, and of a container's limit where there is one (cgroup v2 or v1)."""
    import psutil

    rooms = [int(psutil.virtual_memory().available)]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            rooms.append(int((cgroup / limit).read_text()) - int((cgroup / used).read_text()))
        except (OSError, ValueError):
            continue  # not this version, or "max"
    return max(0, min(rooms))


def check_memory(tool: StressTool, stressors: Sequence[Stressor], nodes: int, available: int) -> None:
    """Refuse noise that would take more than MEMORY_SHARE of the available memory.

    Raises:
        ClusterError: it would.
    """
    wanted = nodes * sum(tool.memory_bytes(stressor) for stressor in stressors)
    if wanted > available * MEMORY_SHARE:
        raise ClusterError(
            f"the noise would fill {wanted // MIB} MiB and {available // MIB} MiB are available, of which it may take "
            f"half; lower noise.nodes or the stressors' workers"
        )


@dataclass(eq=False)
class RunningNoise:
    """A stressor that was started: the process, what it is, and where stress-ng will report to.

    Attributes:
        until_ns: when it ends by itself, at the latest.
        told: how often the built-in stressor has told what it did.
        before: what it had told when the round began.
    """

    child: Child
    stressor: Stressor
    tool: StressTool
    report: Path
    until_ns: int = 0
    told: int = 0
    before: StressAccount = NOTHING


async def wait_until_working(noise: RunningNoise, processes: Processes) -> None:
    """Wait until the stressor does its work.

    Raises:
        ClusterError: it ended, or did not get there in time.
    """
    if noise.tool.lasts:
        await processes.line(noise.child, 0, READY_TIMEOUT_S)
        return
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while _descendants_ns(noise.child.pid) < WORKING_NS:
                if noise.child.exit is not None:
                    raise ClusterError(
                        f"{noise.child.name} on {noise.child.node} did not start: {noise.child.last_words()}"
                    )
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise ClusterError(f"{noise.child.name} does no work after {READY_TIMEOUT_S:g} s") from error


def _descendants_ns(pid: int) -> int:
    seen = scan(tick_ns())
    children = by_parent(seen)
    return sum(tree_ns(child, seen, children) for child in children.get(pid, ()))


def account_of(noise: RunningNoise) -> StressAccount | None:
    """What a stressor told since it was last asked, or at its end; None where it told nothing."""
    if not noise.tool.lasts:
        return _stress_ng_account(noise.report)
    lines = noise.child.lines()
    return _built_in_account(lines[-1]) if len(lines) > 1 + noise.told else None


def work_done(noise: RunningNoise, account: StressAccount | None, seconds: float) -> NoiseWork:
    """What a stressor did in a round of `seconds`, by its own account; CPU time is the kernel's where it has ended."""
    ended, before = noise.child.exit, noise.before
    notes = ["" if account else "it left no account of its work"]
    notes.append(f"ended early: {noise.child.last_words()}" if ended and not noise.child.expected else "")
    cpu_seconds = ended.cpu_ns / NS_PER_S if ended else account.cpu_seconds if account else None
    return NoiseWork(
        node=noise.child.node,
        stressor=noise.stressor.kind,
        tool=noise.tool.name,
        seconds=round(seconds, 3),
        ops=account.ops - before.ops if account else None,
        cpu_seconds=None if cpu_seconds is None else round(cpu_seconds - (before.cpu_seconds or 0), 3),
        note="; ".join(filter(None, notes)),
    )


def _built_in_account(line: str) -> StressAccount | None:
    """What the built-in stressor says of its work."""
    try:
        said: Any = json.loads(line)
        return StressAccount(float(said["ops"]), float(said["seconds"]), float(said["cpu_seconds"]))
    except (ValueError, KeyError, TypeError):
        return None


def _stress_ng_account(report: Path) -> StressAccount | None:
    """What stress-ng left in its report."""
    try:
        return stress_ng_account(report.read_text())
    except OSError:
        return None
