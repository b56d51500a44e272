"""What the cluster changed on the machine, so that it can be put back: processes, sysctls, folders made."""

from __future__ import annotations

import os
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


def kill(process: Process) -> None:
    """Kill it, and no other that has got its pid."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if alive(process):  # the handle keeps the pid from being another's from here on
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
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
