"""What of this machine belongs beside the results. What cannot be read says so, and why; it is never a guess."""

from __future__ import annotations

import gzip
import os
import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kabench.backends.local.processes import Child

CPUS = Path("/sys/devices/system/cpu")
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


def machine() -> dict[str, Any]:
    """Kernel, CPUs and the settings that latencies hang on."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu_model": cpu_model(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "cpu_quota": cpu_quota(),
        "hz": kernel_hz(),
        "autogroup": read(AUTOGROUP),
        "governor": governors(),
        "smt": read(CPUS / "smt" / "active"),
        "load_average": list(os.getloadavg()),
        "python": sys.version.split()[0],
    }


def autogroups(children: Iterable[Child]) -> dict[str, str]:
    """Each child's scheduling group. Each must have its own: all in one weigh as much as a single task."""
    found = {child.name: read(Path(f"/proc/{child.pid}/autogroup")) for child in children}
    return {"controller": read(Path("/proc/self/autogroup")), **found}


def why_not_awake(cpuinfo: Path = Path("/proc/cpuinfo"), smt: Path = CPUS / "smt" / "active") -> str:
    """Why CPUs with nothing to do may sleep; "" where that would cost a benchmark dearly, and can be kept from them.

    In a virtual machine they are given back to the host meanwhile, and come back late. Where two share a core, one that
    spins would slow the other down.
    """
    if not re.search(r"^flags\s*:.*\bhypervisor\b", read(cpuinfo), flags=re.MULTILINE):
        return "this is no virtual machine, as far as the kernel tells"
    if read(smt) == "1":
        return "CPUs share cores here"
    return ""


def read(path: Path) -> str:
    """The text of a small file, or "unavailable: why"."""
    try:
        return path.read_text().strip()
    except OSError as error:
        return f"unavailable: {error.strerror}"


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The first CPU's name, as far as the kernel knows one."""
    found = re.search(r"^model name\s*:\s*(.+)$", read(cpuinfo), flags=re.MULTILINE)
    return found.group(1) if found else "unavailable: no model name in cpuinfo"


def governors() -> str:
    """The frequency governors in use."""
    found = {read(path) for path in CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return ", ".join(sorted(found)) or "unavailable: no cpufreq"


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> str:
    """A container's limit of CPU time, if any: with one, tails measure its throttling."""
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us"):
        text = read(cgroup / name)
        if not text.startswith("unavailable"):
            return "none" if text.startswith(("max", "-1")) else f"{name}: {text}"
    return "none"


def kernel_hz() -> int | str:
    """The scheduler's tick rate, from the kernel's configuration."""
    config = Path("/proc/config.gz")
    try:
        text = gzip.decompress(config.read_bytes()).decode(errors="replace")
    except (OSError, EOFError):
        text = read(Path(f"/boot/config-{platform.release()}"))
    found = re.search(r"^CONFIG_HZ=(\d+)$", text, flags=re.MULTILINE)
    return int(found.group(1)) if found else "unavailable: no kernel configuration to read"
