"""stress-ng as every backend calls it: its arguments, the memory it takes, and its own account of its work. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kabench.core.placement import MIB
from kabench.core.spec import Stressor, StressorKind

DEFAULT_CACHE_BYTES = 32 * MIB
"""Taken for the last-level cache where its size is not told."""

MAX_CACHE = 128 * MIB
"""Larger caches are taken for so large, which bounds the buffers; the noise then is a little weaker there."""

_OPTIONS: dict[StressorKind, Callable[[int, int], list[str]]] = {
    "stress-cache": lambda workers, _: ["--cache", str(workers), "--cache-no-affinity"],
    "stress-membw": lambda workers, cache: ["--stream", str(workers), "--stream-l3-size", str(cache // 2)],
    "stress-cpu": lambda workers, _: ["--cpu", str(workers), "--cpu-method", "int64"],
}
_ARRAYS: dict[StressorKind, int] = {"stress-cache": 2, "stress-membw": 6, "stress-cpu": 0}
"""How many times the last-level cache a worker takes at most (stream: three arrays of two)."""


def stress_ng_arguments(
    stressor: Stressor, seconds: int, cache_bytes: int, temporary: str, report: str
) -> list[str]:
    """What to stress for at most `seconds`; the account is left in the file `report`, as YAML.

    Args:
        stressor: kind and workers.
        seconds: after which it ends by itself.
        cache_bytes: size of the last-level cache.
        temporary: a folder that can be written to: stress-ng wants one even where it needs none.
        report: the account's file.
    """
    return [
        *_OPTIONS[stressor.kind](stressor.workers, cache_bytes),
        *("--temp-path", temporary),
        *("--timeout", f"{seconds}s"),
        *("--metrics", "--yaml", report),
    ]


def stress_ng_bytes(stressor: Stressor, cache_bytes: int) -> int:
    """The memory that all workers of a stressor take."""
    return stressor.workers * _ARRAYS[stressor.kind] * cache_bytes


@dataclass(frozen=True)
class StressAccount:
    """What a stressor did by its own account: bogo-ops of all workers, the longest time, and CPU time if it is told."""

    ops: float
    seconds: float
    cpu_seconds: float | None = None
    version: str = ""


def stress_ng_account(text: str) -> StressAccount | None:
    """The sums of stress-ng's YAML report; None where it was cut off, or never written."""

    def figures(name: str) -> list[float]:
        found = re.findall(rf"^\s*{name}:\s*(\d+(?:\.\d+)?)\s*$", text, flags=re.MULTILINE)
        return [float(figure) for figure in found]

    ops, seconds = figures("bogo-ops"), figures("wall-clock-time")
    if not ops or not seconds:
        return None
    cpu = figures("user-time") + figures("system-time")
    version = re.search(r"^\s*stress-ng-version:\s*(\S+)\s*$", text, flags=re.MULTILINE)
    return StressAccount(
        sum(ops), max(seconds), round(sum(cpu), 3) if cpu else None, version[1] if version else ""
    )
