"""What is worth keeping of the node beside its numbers: versions, and the settings that move a tail.

What cannot be read is "unavailable", never a guess. Nothing here tells of the user: no path, no name.
"""

from __future__ import annotations

import gzip
import os
import platform
import re
import uuid
from importlib import metadata
from pathlib import Path

UNAVAILABLE = "unavailable"
_LIBRARIES = ("uvloop", "numpy", "aiohttp", "hiredis", "httptools")
_CPU = Path("/sys/devices/system/cpu")


def environment() -> dict[str, str]:
    """Versions and settings, by name."""
    found = {"python": platform.python_version(), "system": platform.system(), "kernel": platform.release()}
    found |= {name: _version(name) for name in _LIBRARIES}
    found |= {
        "hz": _hz(),
        "autogroup_enabled": _text(Path("/proc/sys/kernel/sched_autogroup_enabled")),
        "autogroup": _text(Path("/proc/self/autogroup")),
        "governor": _text(_CPU / "cpu0/cpufreq/scaling_governor"),
        "smt": _text(_CPU / "smt/control"),
        "clocksource": _text(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "cpu": _cpu_model(),
    }
    return found


def boot_id() -> str:
    """Of the node's kernel; elsewhere than on Linux, what tells machines apart."""
    found = _text(Path("/proc/sys/kernel/random/boot_id"))
    return found if found != UNAVAILABLE else f"{platform.system()}-{uuid.getnode():012x}"


def allowed_cpus() -> tuple[int, ...]:
    """The CPUs that this process may run on; all of them where there is no affinity."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return UNAVAILABLE


def _text(path: Path) -> str:
    try:
        return path.read_text().strip() or UNAVAILABLE
    except (OSError, UnicodeDecodeError):
        return UNAVAILABLE


def _hz() -> str:
    """Scheduler ticks a second, as the kernel was built."""
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{platform.release()}")):
        try:
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="replace")
        except (OSError, EOFError):
            continue
        if found := re.search(r"^CONFIG_HZ=(\d+)$", text, re.MULTILINE):
            return found[1]
    return UNAVAILABLE


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1] if found else platform.processor() or UNAVAILABLE
