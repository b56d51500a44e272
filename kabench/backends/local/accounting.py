"""Whose CPU time it was: all of it by CPU, and the part of processes that we started.

`/proc` counts in ticks of 10 ms, so a difference over a window of seconds is good to about a per cent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from kabench.backends.base import CpuUsage
from kabench.backends.local.processes import Child, Processes

PROC = Path("/proc")
BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""user, nice, system, irq, softirq and steal of a `cpuN` line; guest time is within user."""


def tick_ns() -> int:
    """Nanoseconds of a tick of `/proc`."""
    return 1_000_000_000 // int(os.sysconf("SC_CLK_TCK"))


def busy_ns(stat: str, tick: int) -> dict[int, int]:
    """CPU time in use since the boot, by CPU, from the text of `/proc/stat`."""
    found = {}
    for line in stat.splitlines():
        head, _, rest = line.partition(" ")
        if head.startswith("cpu") and head[3:].isdigit():
            ticks = rest.split()
            found[int(head[3:])] = sum(int(ticks[at]) for at in BUSY_FIELDS) * tick
    return found


def process_times(stat: str, tick: int) -> tuple[int, int]:
    """The parent's pid, and the CPU time of a process and of the children it waited for, from `/proc/PID/stat`."""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) * tick


def scan(tick: int) -> dict[int, tuple[int, int]]:
    """`process_times` of every process there is, by pid."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = process_times((entry / "stat").read_text(), tick)
            except (OSError, IndexError):
                continue  # it ended meanwhile
    return found


def by_parent(processes: Mapping[int, tuple[int, int]]) -> dict[int, list[int]]:
    """The children's pids of every process that has some."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    return children


def tree_ns(root: int, processes: Mapping[int, tuple[int, int]], children: Mapping[int, list[int]]) -> int:
    """CPU time of `root` and all its descendants, living and waited for."""
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        total += processes[pid][1] if pid in processes else 0
        todo.extend(children.get(pid, ()))
    return total


class Accounting:
    """CPU time that is ours, attributed to the CPUs it was bound to (split equally where those are several).

    It never goes back: what a process used stays counted after its end.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._tick = tick_ns()
        self._own: dict[int, int] = {}
        self._controller: dict[int, int] = {}
        self._settled_ns = 0

    def settle(self) -> None:
        """Attribute the controller's time so far to the CPUs that it may run on now; call it before those change."""
        spent_ns = time.process_time_ns()
        _split(self._controller, os.sched_getaffinity(0), spent_ns - self._settled_ns)
        self._settled_ns = spent_ns

    def move(self, child: Child, node: str, cpus: frozenset[int]) -> None:
        """Bind a child that stands still to other CPUs; what it used until now stays with those that it was on."""
        seen = scan(self._tick)
        spent_ns = max(child.tree_cpu_ns, tree_ns(child.pid, seen, by_parent(seen)))
        self._processes.move(child, node, cpus, spent_ns)

    def usage(self, at_ns: int) -> CpuUsage:
        """All CPU time and ours, now. Costs a few milliseconds: not for use within a window."""
        seen = scan(self._tick)
        children = by_parent(seen)
        self.settle()
        own = dict(self._controller)
        for cpus, spent in self._processes.settled_cpu_ns.items():
            _split(own, cpus, spent)
        for child in self._processes.live:
            child.tree_cpu_ns = max(child.tree_cpu_ns, tree_ns(child.pid, seen, children))
            _split(own, child.cpus, child.tree_cpu_ns - child.settled_ns)
        self._own = {
            cpu: max(own.get(cpu, 0), self._own.get(cpu, 0)) for cpu in own.keys() | self._own.keys()
        }
        busy = busy_ns((PROC / "stat").read_text(), self._tick)
        return CpuUsage(at_ns, busy, dict(sorted(self._own.items())))


def _split(into: dict[int, int], cpus: Iterable[int], spent_ns: int) -> None:
    among = list(cpus)
    for cpu in among:
        into[cpu] = into.get(cpu, 0) + spent_ns // len(among)
