"""Nodes as slots: which CPUs of this machine each one has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kabench.backends.base import Node
from kabench.core.placement import MIB, Resources

ALLOCATABLE = Resources(cpu_millis=4000, memory_bytes=8192 * MIB)
"""What every simulated node offers the simulated scheduler, whatever the machine has: a usual small worker, so that
requests matter and mean the same on every machine. Nothing enforces it."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def slot_cpus(cpus: Sequence[int], count: int) -> list[frozenset[int]]:
    """Divide `cpus` into `count` contiguous slots; with fewer CPUs than slots, neighbours share one."""
    total = len(cpus)
    found = []
    for index in range(count):
        start = index * total // count
        end = max(start + 1, (index + 1) * total // count)
        found.append(frozenset(cpus[start:end]))
    return found


def local_nodes(count: int) -> list[Node]:
    """`node-1` … `node-count` over the CPUs that this process may use (affinity and cpuset respected)."""
    boot_id = BOOT_ID.read_text().strip()
    return [
        Node(f"node-{number}", cpus, boot_id, ALLOCATABLE.cpu_millis, ALLOCATABLE.memory_bytes)
        for number, cpus in enumerate(slot_cpus(sorted(os.sched_getaffinity(0)), count), start=1)
    ]
