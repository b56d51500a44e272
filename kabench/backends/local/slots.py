"""Nodes as slots: which CPUs of this machine each one has."""

from __future__ import annotations

import os

from kabench.backends.affinity import this_machine
from kabench.backends.base import Node
from kabench.backends.simulation import slots


def local_nodes(count: int) -> list[Node]:
    """`node-1` … `node-count` over the CPUs that this process may use (affinity and cpuset respected)."""
    return slots(sorted(os.sched_getaffinity(0)), count, this_machine())
