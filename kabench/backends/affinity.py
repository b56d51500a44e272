"""Where the controller runs, on machines that are nodes at the same time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from kabench.backends.base import Node

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_machine() -> str:
    """The boot id of this machine; "" where it tells none."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def cpus_here(nodes: Sequence[Node], names: Collection[str], boot_id: str) -> frozenset[int]:
    """The CPUs of those of `nodes` that are named and are on the machine of that boot id."""
    return frozenset[int]().union(
        *(node.cpus for node in nodes if node.name in names and node.boot_id == boot_id)
    )


@contextlib.contextmanager
def bound_to(cpus: frozenset[int]) -> Iterator[None]:
    """Keep this process on `cpus`, as far as it may use them; on none of them, or without affinity, nothing changes."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus & allowed or allowed)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
