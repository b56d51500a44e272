"""Amounts of CPU and memory as Kubernetes writes them, and their sums over a pod. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

MIB = 1024 * 1024

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


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

    def __or__(self, other: Amounts) -> Amounts:
        """The larger of each."""
        return Amounts(
            max(self.cpu_millis, other.cpu_millis),
            max(self.memory_mib, other.memory_mib),
            max(self.limit_mib, other.limit_mib),
        )


def millis(cpu_millis: int) -> str:
    """`100m`."""
    return f"{cpu_millis}m"


def mib(memory_mib: int) -> str:
    """`64Mi`."""
    return f"{memory_mib}Mi"


def amounts_of(pod_spec: Mapping[str, Any]) -> Amounts:
    """What a scheduler reserves for a pod whose containers all give both requests and a memory limit.

    As Kubernetes counts: containers run together, and with them those init containers that are restarted for good
    (sidecars); the other init containers run before, one at a time, beside the sidecars that have been started.

    Raises:
        ValueError: an amount is none.
    """
    sidecars, before = Amounts(), Amounts()
    for container in pod_spec.get("initContainers", []):
        if container.get("restartPolicy") == "Always":
            sidecars += _amounts(container)
        else:
            before |= sidecars + _amounts(container)
    return before | sum(map(_amounts, pod_spec["containers"]), sidecars)


def _amounts(container: Mapping[str, Any]) -> Amounts:
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    return Amounts(read_millis(requests["cpu"]), read_mib(requests["memory"]), read_mib(limits["memory"]))


def read_millis(text: str | float) -> int:
    """Thousandths of a core of `250m`, `0.25` or 2, rounded up.

    Raises:
        ValueError: it is no amount.
    """
    return math.ceil(1000 * _read(text))


def read_mib(text: str | float) -> int:
    """MiB of `64Mi`, `1Gi`, `128M` or a number of bytes, rounded up.

    Raises:
        ValueError: it is no amount.
    """
    return math.ceil(_read(text) / MIB)


def read_bytes(text: str | float) -> int:
    """Bytes of `8152084Ki`, `8Gi`, `8G` or 1024, rounded up.

    Raises:
        ValueError: it is no amount.
    """
    return math.ceil(_read(text))


def _read(text: str | float) -> Fraction:
    found = _NUMBER.fullmatch(str(text))
    if found is None or found[1].startswith("-"):
        raise ValueError(f"{text!r} is no amount; give one such as 250m, 0.5, 64Mi or 1Gi")
    number, exponent, suffix = found.groups()
    if suffix in _BINARY:
        return Fraction(number) * Fraction(1024 ** (_BINARY.index(suffix) + 1))
    return Fraction(number) * Fraction(f"1e{exponent or _DECIMAL[suffix or '']}")
