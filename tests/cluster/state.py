"""What the cluster changed on the machine, so that it can be put back: processes, sysctls, folders made."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import msgspec


class Process(msgspec.Struct, frozen=True):
    """A process by pid and start time, since pids are used again."""

    pid: int
    started_ticks: int


class State(msgspec.Struct):
    """The content of state.json."""

    processes: dict[str, Process] = {}
    sysctls: dict[str, str] = {}
    made_folders: list[str] = []
    archives: list[str] = []


def parse_start_ticks(stat: str) -> int | None:
    """The start time in a line of `/proc/PID/stat`, in clock ticks since boot; None for a zombie.

    A process' name may hold blanks and parentheses, so fields count from the last one.
    """
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def start_ticks(pid: int) -> int | None:
    """When `pid` was started; None where there is no such process."""
    try:
        return parse_start_ticks(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def alive(process: Process) -> bool:
    """Whether it is still the process that was started."""
    return start_ticks(process.pid) == process.started_ticks


def kill(process: Process, wait_s: float = 0) -> bool:
    """Kill it, and no other that has got its pid; tell whether it is gone for good within `wait_s`.

    A process with many threads is a zombie before its last thread has let go of the sockets: only the handle tells.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not alive(process):  # the handle keeps the pid from being another's from here on
            return True
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        ready, _, _ = select.select([handle], [], [], wait_s)
        return bool(ready)
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def load(path: Path) -> State | None:
    """Read the state; None where there is none, or what is there is no state."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def save(path: Path, state: State) -> None:
    """Write the state in one step."""
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(state))
    new.replace(path)
