"""Logs on disk, from their first line until they are acknowledged.

A log is `RUN__WINDOW.hlog` in the spool. Each closed interval is appended and handed to the kernel; the seal is synced
to the disk. Where the disk refuses, the log goes on in memory: nothing measured is lost as long as the agent lives, and
`OpenLog.problem` says what happened. Nothing here raises into a window.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from pathlib import Path

from kabench.core.logline import SEAL_MARK
from kabench.errors import AgentError
from kabench.wire.messages import WindowState

SUFFIX = ".hlog"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MOST_BYTES_OF_A_SEAL = 1 << 20


def check_names(run: str, window: str) -> None:
    """Refuse names that do not make a file's name.

    Raises:
        AgentError: one of them does not.
    """
    for what, name in (("run", run), ("window", window)):
        if not _NAME.fullmatch(name) or len(name) > 100 or "__" in name:
            raise AgentError(f"the {what} {name!r} does not make a file's name: use letters, digits, . _ -")


class OpenLog:
    """A log that is being written.

    Attributes:
        run, window: whose it is.
        problem: why the disk does not hold all of it; "" while it does.
    """

    def __init__(self, path: Path, run: str, window: str) -> None:
        self.run, self.window = run, window
        self.problem = ""
        self._path = path
        self._on_disk_bytes = 0
        self._tail = bytearray()  # what the disk did not take
        self._sha = hashlib.sha256()
        self._sealed = False
        self._fd = -1
        self._closing = threading.Lock()
        self._made = False
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            self._made = True
        except OSError as error:
            self._fail(error)

    @property
    def length(self) -> int:
        """Length so far."""
        return self._on_disk_bytes + len(self._tail)

    def append(self, data: bytes | bytearray) -> None:
        """Write `data` and hand it to the kernel. A refusal is kept in `problem`."""
        self._sha.update(data)
        if self.problem:
            self._tail += data
            return
        try:
            _write_whole(self._fd, data)
            self._on_disk_bytes += len(data)
        except OSError as error:
            self._tail += data
            self._fail(error)

    def seal(self, data: bytes) -> None:
        """Write the last line, and wait for the disk."""
        self.append(data)
        self._sealed = True
        self.close()

    def close(self) -> None:
        """Wait for the disk and end writing. Idempotent."""
        with self._closing:  # a seal waits for the disk in a thread, and may be given up meanwhile
            fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            os.fsync(fd)
        except OSError as error:
            self._fail(error)
        finally:
            os.close(fd)

    def state(self) -> WindowState:
        """What is listed of it."""
        return WindowState(self.run, self.window, self.length, self._sealed, self._sha.hexdigest())

    def content(self) -> bytes:
        """All of it.

        Raises:
            AgentError: what had been written does not read.
        """
        head = b""
        if self._on_disk_bytes:
            try:
                head = self._path.read_bytes()[: self._on_disk_bytes]
            except OSError as error:
                raise _unreadable(self.window, error) from error
        if len(head) != self._on_disk_bytes:
            raise AgentError(f"the log of {self.window} was cut by someone else: {len(head)} bytes are left")
        return head + self._tail

    def remove(self) -> None:
        """Forget it.

        Raises:
            AgentError: the file cannot be deleted.
        """
        self.close()
        if self._made:
            _unlink(self._path, self.window)

    def _fail(self, error: OSError) -> None:
        """Remember why, and cut what was written in part, so that the file ends with a whole piece."""
        self.problem = (
            f"the log of {self.window} cannot be written to the spool ({error.strerror}): it is kept in memory "
            "until it is fetched; make room there, or make it writable"
        )
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._on_disk_bytes)


class FoundLog:
    """A log that an earlier life of this agent left, sealed or not."""

    def __init__(self, path: Path, run: str, window: str) -> None:
        self.run, self.window, self._path = run, window, path
        self.problem = ""
        content = path.read_bytes()
        last = content[-_MOST_BYTES_OF_A_SEAL:].removesuffix(b"\n").rpartition(b"\n")[2]
        sealed = content.endswith(b"\n") and last.startswith(SEAL_MARK)
        self._state = WindowState(run, window, len(content), sealed, hashlib.sha256(content).hexdigest())

    def state(self) -> WindowState:
        """What is listed of it."""
        return self._state

    def content(self) -> bytes:
        """All of it.

        Raises:
            AgentError: it does not read.
        """
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise _unreadable(self.window, error) from error

    def close(self) -> None:
        """Nothing is open."""

    def remove(self) -> None:
        """Forget it.

        Raises:
            AgentError: the file cannot be deleted.
        """
        _unlink(self._path, self.window)


HeldLog = OpenLog | FoundLog


class Spool:
    """All logs that this agent holds.

    Args:
        folder: where they lie; made if it is missing.

    Where the folder cannot be read or made, logs are kept in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs: dict[tuple[str, str], HeldLog] = {}
        self._problem = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._find()
        except OSError as error:
            self._problem = f"the spool cannot be used: {error.strerror}"

    def open(self, run: str, window: str) -> OpenLog:
        """Begin a log.

        Raises:
            AgentError: a log of this window is held already, or the names make no file's name.
        """
        self.check_free(run, window)
        log = OpenLog(self._folder / f"{run}__{window}{SUFFIX}", run, window)
        self._logs[run, window] = log
        return log

    def check_free(self, run: str, window: str) -> None:
        """Raises AgentError where a log of this window is held, or could not be named."""
        check_names(run, window)
        if (run, window) in self._logs:
            raise AgentError(f"a log of {window} is held already: fetch and acknowledge it first")

    @property
    def problem(self) -> str:
        """What the disk did not take, or why it cannot be used; "" if all is well."""
        return "; ".join(filter(None, [self._problem, *(log.problem for log in self._logs.values())]))

    def states(self) -> tuple[WindowState, ...]:
        """All logs, by their names."""
        return tuple(log.state() for _, log in sorted(self._logs.items()))

    def find(self, window: str) -> HeldLog:
        """The log of `window`; where several runs left one, the one begun last.

        Raises:
            AgentError: there is none.
        """
        for (_, name), log in reversed(self._logs.items()):
            if name == window:
                return log
        raise AgentError(f"no log of {window} is held: it was acknowledged, or never armed here")

    def remove(self, log: HeldLog) -> None:
        """Delete a log that is safe elsewhere.

        Raises:
            AgentError: its file cannot be deleted; the log stays listed.
        """
        log.remove()
        del self._logs[log.run, log.window]

    def close(self) -> None:
        """Have the disk hold what was written."""
        for log in self._logs.values():
            log.close()

    def _find(self) -> None:
        for path in sorted(self._folder.glob(f"*__*{SUFFIX}")):
            run, _, window = path.name.removesuffix(SUFFIX).partition("__")
            self._logs[run, window] = FoundLog(path, run, window)


def _write_whole(fd: int, data: bytes | bytearray) -> None:
    """Write all of `data`; a full disk may take a part first, and says so at the next call."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _unlink(path: Path, window: str) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise AgentError(f"the log of {window} cannot be deleted: {error.strerror}") from error


def _unreadable(window: str, error: OSError) -> AgentError:
    return AgentError(f"the log of {window} does not read: {error.strerror}")
