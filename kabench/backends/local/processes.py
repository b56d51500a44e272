"""The local backend's child processes: started bound to their CPUs, watched, and ended without leaving any.

Each has a session of its own, and with it, where the kernel groups by session (autogroup), the same weight on a CPU as any
other of them and as the kernel's own threads. In one session for all, the noise would have most of that session's weight,
and what runs on quiet CPUs next to none beside the kernel's threads.

The kernel kills them when the controller's thread that started them ends (`launch`), so start them from the thread that
lives as long as the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kabench.backends.local import launch
from kabench.clock import Clock
from kabench.errors import ClusterError, StoreError

GRACE_S = 2.0
"""Between SIGTERM and SIGKILL."""

MAX_OUTPUT_BYTES = 65_536
RESET_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ)
"""Back to their defaults in children: Python ignores some, and `nohup` or a shell's `&` others."""


@dataclass(frozen=True)
class Exit:
    """How a child ended: at `at_ns` (monotonic), with `code` (negative: the signal), having used `cpu_ns` of CPU."""

    at_ns: int
    code: int
    cpu_ns: int

    def __str__(self) -> str:
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-self.code).name}"
            return f"killed by signal {-self.code}"
        return f"exit status {self.code}"


@dataclass(eq=False)
class Child:
    """A process we started. `cpus` is what it is bound to; `expected` whether we asked for its end."""

    name: str
    role: str
    node: str
    cpus: frozenset[int]
    log: Path
    log_start: int
    pid: int
    pidfd: int
    stdout_fd: int
    started_ns: int
    output: bytearray = field(default_factory=bytearray)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    exit: Exit | None = None
    expected: bool = False
    tree_cpu_ns: int = 0
    """CPU time of it and its descendants when last looked at: the least that its end must account for."""
    settled_ns: int = 0
    """The part of it that was spent elsewhere, before it moved to `cpus`."""

    def lines(self) -> list[str]:
        """The whole lines on its standard output so far."""
        return self.output.decode(errors="replace").split("\n")[:-1]

    def said(self) -> str:
        """The last line that it wrote to standard error or else to standard output, what it told us in JSON apart."""
        log = ""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(self.log_start)
            log = file.read(MAX_OUTPUT_BYTES).decode(errors="replace")
        for text in (log, self.output.decode(errors="replace")):
            lines = [line.strip() for line in text.splitlines() if line.strip() and line[:1] != "{"]
            if lines:
                return lines[-1][:300]
        return ""

    def last_words(self) -> str:
        """How it ended and the last that it said, unless it was killed: then what it said is not the reason."""
        if self.exit is None:
            return "still running"
        killed = -self.exit.code in (signal.SIGKILL, signal.SIGTERM)
        return ": ".join(filter(None, (str(self.exit), "" if killed else self.said())))


class Processes:
    """Owns children; `end_all` leaves none. Use it from one event loop in the main thread.

    Args:
        folder: where the children's logs go, as NAME.log.
        clock: dates their ends.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self.live: list[Child] = []
        self.settled_cpu_ns: dict[frozenset[int], int] = {}
        """CPU time of children that have ended, and of others before they moved, by the CPUs that they were bound to."""
        self._fallen: list[Child] = []

    def start(
        self,
        command: Sequence[str],
        *,
        name: str,
        role: str,
        node: str,
        cpus: frozenset[int],
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Start `command` (its first word is an absolute path) bound to `cpus`, with `env` on top of our own.

        Standard input is empty, standard output is kept (`Child.lines`), standard error goes to the log.

        Raises:
            ClusterError: the process cannot be made.
            StoreError: its log cannot be written.
        """
        log = self._folder / f"{name}.log"
        launcher = [sys.executable, "-I", "-S", launch.__file__]
        argv = [*launcher, str(os.getpid()), ",".join(map(str, sorted(cpus))), *command]
        log_fd = self._open_log(log)
        log_start = os.fstat(log_fd).st_size
        try:
            pid, stdout_fd = _spawn(argv, {**os.environ, **(env or {})}, log_fd)
        except OSError as error:
            raise ClusterError(f"{name}: cannot start a process: {error}") from error
        finally:
            os.close(log_fd)
        # A child that is not waited for keeps its pid, so this cannot be another's.
        child = Child(
            name,
            role,
            node,
            cpus,
            log,
            log_start,
            pid,
            os.pidfd_open(pid),
            stdout_fd,
            self._clock.monotonic_ns(),
        )
        self.live.append(child)
        loop = asyncio.get_running_loop()
        loop.add_reader(child.stdout_fd, self._on_output, child)
        loop.add_reader(child.pidfd, self._on_exit, child)
        return child

    def _open_log(self, log: Path) -> int:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{log}: {error.strerror}") from error

    async def line(self, child: Child, index: int, timeout_s: float) -> dict[str, Any]:
        """Wait for line `index` (from 0) on the child's output; it must be a JSON object.

        Raises:
            ClusterError: it ended or did not say it in time, or said something else.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while len(child.lines()) <= index and child.exit is None:
                    child.changed.clear()
                    await child.changed.wait()
        except TimeoutError as error:
            raise ClusterError(f"{child.name} did not start within {timeout_s:g} s") from error
        lines = child.lines()
        if len(lines) <= index:
            raise ClusterError(f"{child.name} on {child.node} did not start: {child.last_words()}")
        try:
            said = json.loads(lines[index])
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise ClusterError(f"{child.name}: expected a line of JSON, got {lines[index][:200]!r}")
        return said

    async def end(self, children: Iterable[Child], grace_s: float = GRACE_S) -> None:
        """Ask `children` to end (SIGTERM), kill what has not after `grace_s`, and wait until all are gone.

        Survives cancellation: what is cancelled is only the waiting, the killing is done first.
        """
        ending = [child for child in children if child.exit is None]
        try:
            for child in ending:
                child.expected = True
                _send(child, signal.SIGTERM)
            self.release(ending)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    for child in ending:
                        await self._gone(child)
        finally:
            self.kill(ending)

    def send(self, child: Child, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if child.exit is None:
            _send(child, number)

    def hold(self, children: Iterable[Child]) -> None:
        """Have `children` and everything in their groups stand still."""
        _send_groups(children, signal.SIGSTOP)

    def release(self, children: Iterable[Child]) -> None:
        """Have them go on."""
        _send_groups(children, signal.SIGCONT)

    def kill(self, children: Iterable[Child]) -> None:
        """Kill `children` and everything in their groups at once, and wait for their ends (milliseconds)."""
        ending = [child for child in children if child.exit is None]
        for child in ending:
            child.expected = True
            _send(child, signal.SIGKILL)
        for child in ending:
            os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
            self._on_exit(child)

    def move(self, child: Child, node: str, cpus: frozenset[int], spent_ns: int) -> None:
        """Bind a child and its descendants to other CPUs; they must stand still, so that none is made meanwhile.

        Args:
            child: who moves.
            node: where to.
            cpus: of that node.
            spent_ns: the CPU time of it and its descendants so far, which belongs to where it was.
        """
        self._settle(child, spent_ns)
        child.node, child.cpus, child.tree_cpu_ns = node, cpus, spent_ns
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):  # its end is told elsewhere
            root = psutil.Process(child.pid)
            for process in (root, *root.children(recursive=True)):
                for thread in process.threads():
                    os.sched_setaffinity(thread.id, cpus)

    def _settle(self, child: Child, spent_ns: int) -> None:
        known = self.settled_cpu_ns.get(child.cpus, 0)
        self.settled_cpu_ns[child.cpus] = known + spent_ns - child.settled_ns
        child.settled_ns = spent_ns

    def casualties(self) -> list[Child]:
        """Children that ended without our asking, since the last call."""
        fallen, self._fallen = self._fallen, []
        return fallen

    def forgive(self, child: Child) -> None:
        """A child whose end was found and dealt with is no casualty."""
        if child in self._fallen:
            self._fallen.remove(child)

    async def _gone(self, child: Child) -> None:
        while child.exit is None:
            child.changed.clear()
            await child.changed.wait()

    def _on_output(self, child: Child) -> None:
        try:
            piece = os.read(child.stdout_fd, MAX_OUTPUT_BYTES)
        except BlockingIOError:
            return
        if not piece:
            asyncio.get_running_loop().remove_reader(child.stdout_fd)
            return
        child.output += piece[: max(0, MAX_OUTPUT_BYTES - len(child.output))]
        child.changed.set()

    def _on_exit(self, child: Child) -> None:
        """Its pid is still taken until `wait4`, so its group is killed before that: nothing else can be meant."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        _, status, usage = os.wait4(child.pid, 0)
        loop = asyncio.get_running_loop()
        loop.remove_reader(child.pidfd)
        loop.remove_reader(child.stdout_fd)
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(child.stdout_fd, MAX_OUTPUT_BYTES):
                child.output += piece[: max(0, MAX_OUTPUT_BYTES - len(child.output))]
        os.close(child.pidfd)
        os.close(child.stdout_fd)
        cpu_ns = max(round((usage.ru_utime + usage.ru_stime) * 1e9), child.tree_cpu_ns)
        child.exit = Exit(self._clock.monotonic_ns(), os.waitstatus_to_exitcode(status), cpu_ns)
        self._settle(child, cpu_ns)
        self.live.remove(child)
        if not child.expected:
            self._fallen.append(child)
        child.changed.set()


def _spawn(argv: list[str], env: Mapping[str, str], log_fd: int) -> tuple[int, int]:
    """Start a process that leads a session of its own; returns its pid, and what its standard output is read from.

    Raises:
        OSError: it cannot be made.
    """
    out_read, out_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(out_write, True)
    try:
        pid = os.posix_spawn(
            argv[0],
            argv,
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out_write, 1),
                (os.POSIX_SPAWN_DUP2, log_fd, 2),
            ],
            setsid=True,  # also: Ctrl-C in the terminal reaches the controller alone
            setsigmask=[],
            setsigdef=RESET_SIGNALS,
        )
    except OSError:
        os.close(out_read)
        raise
    finally:
        os.close(out_write)
    return pid, out_read


def _send_groups(children: Iterable[Child], number: signal.Signals) -> None:
    for child in children:
        if child.exit is None:  # not waited for, so its pid is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)


def _send(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, number)
