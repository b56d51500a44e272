"""Amounts of CPU and memory as Kubernetes writes them, and their sums. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MEMORY_MIB = {"Ki": 1 / 1024, "Mi": 1.0, "Gi": 1024.0}


@dataclass(frozen=True)
class Amounts:
    """What pods request, and the memory that they may come to have."""

    cpu_millis: int = 0
    memory_mib: int = 0
    limit_mib: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.cpu_millis + other.cpu_millis,
            self.memory_mib + other.memory_mib,
            self.limit_mib + other.limit_mib,
        )


def millis(cpu_millis: int) -> str:
    """`100m`."""
    return f"{cpu_millis}m"


def mib(memory_mib: int) -> str:
    """`64Mi`."""
    return f"{memory_mib}Mi"


def amounts_of(pod_spec: Mapping[str, Any]) -> Amounts:
    """The sum over a pod's containers, each of which gives both requests and a memory limit.

    Raises:
        ValueError: a unit is unknown.
    """
    found = Amounts()
    for container in pod_spec["containers"]:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        found += Amounts(
            read_millis(requests["cpu"]), read_mib(requests["memory"]), read_mib(limits["memory"])
        )
    return found


def read_millis(text: str) -> int:
    """Thousandths of a core of `250m` or `0.25`.

    Raises:
        ValueError: it is neither.
    """
    return int(text[:-1]) if text.endswith("m") else round(1000 * float(text))


def read_mib(text: str) -> int:
    """MiB of `64Mi`, `1Gi` or `8192Ki`, rounded up.

    Raises:
        ValueError: the unit is another.
    """
    factor = _MEMORY_MIB.get(text[-2:])
    if factor is None:
        raise ValueError(f"memory {text!r}: give Ki, Mi or Gi")
    return -int(-float(text[:-2]) * factor // 1)
