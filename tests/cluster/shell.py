"""Commands and processes of the machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.state import Process, start_ticks
from kabench.errors import ClusterError


class SetupError(ClusterError):
    """The test cluster cannot be made, or not be taken down, on this machine."""


def run(
    *command: str | Path,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout_s: float = 120,
) -> str:
    """Run `command` to its end and return what it wrote.

    Raises:
        SetupError: it is not there, failed, or took longer than `timeout_s`.
    """
    words = [str(word) for word in command]
    own = None if environment is None else {**os.environ, **environment}
    try:
        done = subprocess.run(
            words,
            input=stdin,
            env=own,
            cwd=folder,
            timeout=timeout_s,
            text=True,
            capture_output=True,
            check=True,
        )
    except FileNotFoundError as error:
        raise SetupError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{shlex.join(words)} did not end within {timeout_s:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip()[-2000:]
        raise SetupError(f"{shlex.join(words)[:300]} ended with {error.returncode}: {said}") from error
    return done.stdout


def spawn(
    name: str, command: Sequence[str | Path], *, log: Path, cgroups: Sequence[Path], prepare: str = ""
) -> Process:
    """Start `command` apart from this process, in `cgroups`, and return its pid with its start time.

    It is init's child, so it outlives this process and leaves no zombie. `prepare` is a piece of shell that runs before
    it, in the same process.

    Raises:
        SetupError: it did not start.
    """
    note = log.with_suffix(".pid")
    note.unlink(missing_ok=True)
    joins = "".join(f"echo $$ > {shlex.quote(str(folder / 'cgroup.procs'))}\n" for folder in cgroups)
    words = shlex.join(str(word) for word in command)
    script = (
        f"set -e\n{joins}{prepare}\n"
        f"echo $$ > {shlex.quote(f'{note}.new')}; mv {shlex.quote(f'{note}.new')} {shlex.quote(str(note))}\n"
        f"exec {words}\n"
    )
    with log.open("ab") as sink:
        # in a session of its own: a Ctrl-C meant for us does not reach it
        subprocess.run(
            ["setsid", "--fork", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            check=True,
        )
    wait_until(note.exists, f"{name} did not start: see {log}", timeout_s=10, every_s=0.005)
    pid = int(note.read_text())
    note.unlink()
    started = start_ticks(pid)
    if started is None:
        raise SetupError(f"{name} ended at once: see {log}")
    return Process(pid, started)


def wait_until(true: Callable[[], bool], otherwise: str, *, timeout_s: float, every_s: float = 0.05) -> None:
    """Poll until `true()`.

    Raises:
        SetupError: `otherwise`, after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise SetupError(otherwise)
        time.sleep(every_s)
