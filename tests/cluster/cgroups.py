"""The cluster's cgroups: one for its own processes, one for each worker's pods. Version 1 and 2."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster import layout
from cluster.shell import SetupError

# What the kubelet needs of version 2.
WANTED = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")


@dataclass(frozen=True)
class Hierarchies:
    """The cgroup file systems that containers live in."""

    version: int
    roots: tuple[Path, ...]
    cpuset: Path

    def folders(self, name: str) -> list[Path]:
        """The cluster's group `name`, in each hierarchy."""
        return [root / layout.cgroup(name) for root in self.roots]


def parse_mounts(mountinfo: str) -> Hierarchies | None:
    """Find the hierarchies in `/proc/self/mountinfo`; None where there are none.

    Version 1 counts where any of its controllers is mounted: a version 2 beside it then has no controllers.
    """
    first: list[Path] = []
    second: list[Path] = []
    cpuset: Path | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        path = Path(before.split()[4])
        if kind == "cgroup" and path not in first:
            first.append(path)
            if "cpuset" in options.split(","):
                cpuset = path
        elif kind == "cgroup2":
            second.append(path)
    if cpuset is not None:
        return Hierarchies(1, tuple(first), cpuset)
    return Hierarchies(2, (second[0],), second[0]) if second else None


def hierarchies() -> Hierarchies:
    """This machine's.

    Raises:
        SetupError: there are none.
    """
    found = parse_mounts(Path("/proc/self/mountinfo").read_text())
    if found is None:
        raise SetupError("no cgroup hierarchy with a cpuset controller is mounted on this machine")
    return found


def cpu_list(cpus: Iterable[int]) -> str:
    """`cpus` as the kernel writes them, one by one."""
    return ",".join(str(cpu) for cpu in sorted(cpus))


def make(found: Hierarchies, name: str) -> list[Path]:
    """Make the group `name` in each hierarchy, ready for processes.

    Raises:
        SetupError: the machine does not let us.
    """
    folders = found.folders(name)
    try:
        for root, folder in zip(found.roots, folders, strict=True):
            if found.version == 2:
                _make_v2(folder)
            else:
                _make_v1(folder, cpuset=root == found.cpuset)
    except OSError as error:
        raise SetupError(f"cannot make the cgroup {folder}: {error}") from error
    return folders


def _make_v1(folder: Path, *, cpuset: bool) -> None:
    folder.mkdir(exist_ok=True)
    if cpuset:  # a new cpuset is empty, and takes no process until it is filled in
        for file in ("cpuset.cpus", "cpuset.mems"):
            (folder / file).write_text((folder.parent / file).read_text())


def _make_v2(folder: Path) -> None:
    there = (folder.parent / "cgroup.controllers").read_text().split()
    (folder.parent / "cgroup.subtree_control").write_text(
        " ".join(f"+{name}" for name in WANTED if name in there)
    )
    folder.mkdir(exist_ok=True)


def bind(found: Hierarchies, worker: layout.Worker, cpus: Iterable[int]) -> None:
    """Let the pods of `worker` run on `cpus` only, those that come too.

    Raises:
        SetupError: the kernel refuses.
    """
    top = found.cpuset / layout.cgroup(worker.name)
    # Version 1 refuses a set without a child's CPUs, so children come first. In version 2 the top's set holds for all.
    folders = [*_deepest_first(top)] if found.version == 1 else [top]
    for folder in folders:
        try:
            (folder / "cpuset.cpus").write_text(cpu_list(cpus))
        except FileNotFoundError:
            continue  # a pod that ended meanwhile
        except OSError as error:
            raise SetupError(
                f"cannot bind {worker.name} to CPUs {cpu_list(cpus)} in {folder}: {error}"
            ) from error


def weigh(found: Hierarchies, name: str, times: float) -> None:
    """Give the group `name` so many `times` the CPU time of one that has the default, where they compete.

    Raises:
        SetupError: the kernel refuses, or no folder has a weight.
    """
    file, default = ("cpu.shares", 1024) if found.version == 1 else ("cpu.weight", 100)
    for folder in found.folders(name):
        if (folder / file).exists():
            try:
                (folder / file).write_text(str(round(default * times)))
            except OSError as error:
                raise SetupError(f"cannot write {folder / file}: {error}") from error
            return
    raise SetupError(f"no cgroup hierarchy has {file} for {layout.cgroup(name)}")


def _deepest_first(top: Path) -> Iterator[Path]:
    for path, _, _ in os.walk(top, topdown=False):
        yield Path(path)


def trees() -> list[Path]:
    """The tops of all our cgroups on this machine, also in a hierarchy that containers do not use."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in mounts if line.partition(" - ")[2].startswith("cgroup")]
    return [path for point in points for path in Path(point).glob(layout.cgroup("*")) if path.is_dir()]


def processes() -> set[int]:
    """The pids of all processes in our cgroups."""
    found: set[int] = set()
    for top in trees():
        for folder in _deepest_first(top):
            with contextlib.suppress(FileNotFoundError, OSError):
                found.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
    return found


def remove(timeout_s: float = 5) -> None:
    """Remove all our cgroups, which must be without processes by now.

    Raises:
        SetupError: one stays busy for `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    for top in trees():
        for folder in _deepest_first(top):
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError as error:  # busy until the kernel has let go of what was killed
                    if time.monotonic() > deadline:
                        raise SetupError(f"cannot remove the cgroup {folder}: {error}") from error
                    time.sleep(0.02)
