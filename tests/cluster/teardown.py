"""Takes the cluster down, whatever state it is in: what is found on the machine counts, state.json only helps."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from cluster import cgroups, layout, network, state
from cluster.shell import SetupError, run


def owner() -> Path | None:
    """The run folder of the cluster on this machine; None where there is none."""
    try:
        return Path(layout.OWNER.read_text())
    except FileNotFoundError:
        return None


def check_owner() -> None:
    """Refuse to touch another checkout's cluster.

    Raises:
        SetupError: the cluster on this machine is of another folder.
    """
    found = owner()
    if found not in (None, layout.FOLDER):
        raise SetupError(f"a test cluster of {found} is on this machine: run `make cluster-down` there first")


def in_our_namespaces() -> set[int]:
    """The pids of the processes in our network namespaces."""
    inodes = set()
    for name in network.namespaces():
        with contextlib.suppress(OSError):
            inodes.add((layout.NAMESPACES / name).stat().st_ino)
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if (folder / "ns" / "net").stat().st_ino in inodes:
                    found.add(int(folder.name))
    return found


def leftovers() -> set[int]:
    """The pids of everything that runs of a cluster: the programs, the shims and the pods."""
    return (cgroups.processes() | in_our_namespaces()) - {os.getpid()}


def kill_all(timeout_s: float = 10) -> None:
    """Kill all processes of the cluster.

    Raises:
        SetupError: one is there still after `timeout_s`.
    """
    known = state.load(layout.STATE) or state.State()
    for process in known.processes.values():  # the kubelets and what starts others go before the pods
        state.kill(process)
    deadline = time.monotonic() + timeout_s
    while found := leftovers():
        if time.monotonic() > deadline:
            raise SetupError(f"processes of the test cluster do not end: {sorted(found)}")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def mounts_below(mountinfo: str, folder: Path) -> list[str]:
    """The mount points below `folder`, deepest first."""
    points = [line.split()[4].replace("\\040", " ") for line in mountinfo.splitlines()]
    return sorted((point for point in points if Path(point).is_relative_to(folder)), key=len, reverse=True)


def unmount() -> None:
    """Undo mounts below our folders, which only a program that was started outside its namespace can have made.

    Raises:
        SetupError: one cannot be undone.
    """
    for folder in (layout.FOLDER, layout.RUN):
        for point in mounts_below(Path("/proc/self/mountinfo").read_text(), folder):
            run("umount", "--lazy", point)


def restore(known: state.State) -> None:
    """Put back what the kubelets changed of the machine."""
    for name, value in known.sysctls.items():
        path = Path("/proc/sys") / name
        if path.read_text().strip() != value:
            path.write_text(value)
    for folder in sorted(known.made_folders, key=len, reverse=True):
        with contextlib.suppress(OSError):  # not empty: another's by now
            Path(folder).rmdir()


def anything() -> bool:
    """Whether there is anything of a cluster on this machine."""
    return bool(
        layout.FOLDER.exists()
        or layout.RUN.exists()
        or cgroups.trees()
        or network.namespaces()
        or network.links()
    )


def down() -> None:
    """Take everything down.

    Raises:
        SetupError: it is another checkout's, or something resists.
    """
    check_owner()
    kill_all()
    unmount()
    network.remove()
    cgroups.remove()
    restore(state.load(layout.STATE) or state.load(layout.BEFORE) or state.State())
    # the pods' files first: state.json must outlive a deletion that is interrupted
    for worker in layout.workers():
        shutil.rmtree(worker.folder, ignore_errors=True)
    for folder in (layout.RUN, layout.FOLDER):
        if folder.exists():
            shutil.rmtree(folder)
