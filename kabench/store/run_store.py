"""One run's folder: the journal, the agents' logs and `results.json`, written so that a cut leaves them readable.

::

    results/latest                        → the newest run
    results/RUN/journal.jsonl             what happened, an event a line
    results/RUN/logs/WINDOW/NODE.hlog     the agents' logs
    results/RUN/results.json              all of it, at the end
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from kabench.core.journal import Event
from kabench.core.result import SCHEMA, AgentWindow, CellRecord, RunResult, SecondsRecord
from kabench.core.seconds import Seconds, csv_lines
from kabench.core.totals import WindowTotals
from kabench.errors import LogError, StoreError
from kabench.store.cells import agent_window, cells_of
from kabench.store.collect import FoundLog, choose, find, read
from kabench.store.cross_check import cross_check
from kabench.store.files import free_bytes, storing, sync_folder, write_atomic
from kabench.store.journal import JOURNAL, read_journal
from kabench.store.merging import SERIES, gather

RESULTS = "results.json"
LATEST = "latest"
LOGS = "logs"
SPOOL = "spool"
LEAST_FREE_BYTES = 64 << 20
"""No run starts with less; an agent's log of a 5 s window and 8 targets takes 60 KB."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RunStore:
    """The folder of a run that this process, and no other, writes.

    Made by `create` or `open`; a context manager, or `close` it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder.name
        with storing(folder):
            self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                raise StoreError(f"{folder}: another kabench is writing this run") from None
            except BaseException:
                os.close(self._lock)
                raise
        self._journal = -1
        try:
            with storing(folder / JOURNAL):
                self._journal = os.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                self._drop_torn_line()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, results: Path, run: str) -> RunStore:
        """Make the folder `results`/`run`, and let `results`/latest point to it.

        Raises:
            StoreError: it exists, the disk is full or read-only, or the like.
        """
        _check_name(run)
        folder = results.absolute() / run
        if free_bytes(folder) < LEAST_FREE_BYTES:
            raise StoreError(
                f"{results}: less than {LEAST_FREE_BYTES >> 20} MiB are free; give another --out"
            )
        with storing(folder):
            results.mkdir(parents=True, exist_ok=True)
            try:
                folder.mkdir()
            except FileExistsError:
                raise StoreError(f"{folder}: it exists already; a run is never written over") from None
        store = cls(folder)
        try:
            _point_latest(folder)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, folder: Path) -> RunStore:
        """Open a run's folder (or a link to it) to go on with the run.

        Raises:
            StoreError: it is not a run's folder, another process writes it, or it cannot be written.
        """
        real = folder.resolve()
        read_journal(real)
        return cls(real)

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder. Idempotent."""
        for name in ("_journal", "_lock"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                setattr(self, name, -1)
                os.close(descriptor)

    def append(self, event: Event) -> None:
        """Add an event to the journal; it is on the disk when this returns.

        Raises:
            StoreError: it could not be written; the journal is as before.
        """
        line = msgspec.json.encode(event) + b"\n"
        with storing(self.folder / JOURNAL):
            size = os.fstat(self._journal).st_size
            try:
                while line:
                    line = line[os.write(self._journal, line) :]
                os.fsync(self._journal)
            except OSError:
                with suppress(OSError):  # what is left is a torn line, which readers pass over
                    os.ftruncate(self._journal, size)
                raise

    def journal(self) -> list[Event]:
        """All events, in order.

        Raises:
            StoreError: the journal is corrupt.
        """
        return read_journal(self.folder)

    def log_path(self, window: str, node: str) -> Path:
        """Where the log of `window` from the agent on `node` is kept.

        Raises:
            StoreError: a name is not fit for a file.
        """
        _check_name(window)
        _check_name(node)
        return self.folder / LOGS / window / f"{node}.hlog"

    def write_log(self, window: str, node: str, content: bytes) -> Path:
        """Keep an agent's log; it is whole and on the disk when this returns.

        Raises:
            StoreError: it could not be written.
        """
        path = self.log_path(window, node)
        write_atomic(path, content)
        return path

    def agent_windows(
        self, window: str, roles: Mapping[str, str], offsets: Mapping[str, tuple[int, int]]
    ) -> Iterator[AgentWindow]:
        """The state of every agent in a window, by node, from the logs that are here; each is checked by the package.

        Logs are read as the iterator moves, one in memory at a time: summed up, one takes some 10 MB and 30 ms.

        Args:
            window: which one.
            roles: of each node in this block; who has no log is "missing".
            offsets: (clock offset, its error) by node, where known.
        """
        logs = self._window_logs(window)
        for node in sorted(roles):
            offset_ns, error_ns = offsets.get(node, (0, 0))
            yield agent_window(
                _checked(logs[node]) if node in logs else None,
                node,
                roles[node],
                clock_offset_ns=offset_ns,
                clock_error_ns=error_ns,
            )

    def read_cells(self) -> list[CellRecord]:
        """The cells of every log in the folder, as `kabench merge` chooses them; sorted."""
        found = find([self.folder])
        cells: list[CellRecord] = []
        for log in choose(found.logs, []):
            if log.window_id.run == self.run:
                try:
                    cells.extend(cells_of(log))
                except LogError:
                    continue  # gone or unreadable: the summary names it
        return sorted(cells, key=lambda record: record.cell)

    def read_seconds(self) -> list[SecondsRecord]:
        """Every target's seconds, of the same logs; sorted."""
        found = find([self.folder])
        seconds = Seconds()
        for log in choose(found.logs, []):
            if log.window_id.run == self.run:
                with suppress(LogError):  # gone or unreadable: the summary names it
                    read(log, seconds)
        return [record for _, record in seconds.records()]

    def window_cells(self, window: str) -> list[CellRecord]:
        """The cells of one window; a log that is corrupt adds none."""
        cells: list[CellRecord] = []
        for log in self._window_logs(window).values():
            try:
                cells.extend(cells_of(log))
            except LogError:
                continue
        return sorted(cells, key=lambda record: record.cell)

    def summary(self) -> dict[str, Any]:
        """What `kabench merge` of this folder would print."""
        return gather(find([self.folder])).report([]).summary

    def write_result(self, result: RunResult) -> Path:
        """Write `results.json`, and `series.csv` where the result has seconds.

        Raises:
            StoreError: it could not be written.
        """
        if result.seconds:
            lines = csv_lines((self.run, record) for record in result.seconds)
            write_atomic(self.folder / SERIES, "".join(lines).encode())
        path = self.folder / RESULTS
        write_atomic(path, msgspec.json.encode(result) + b"\n")
        return path

    def _window_logs(self, window: str) -> dict[str, FoundLog]:
        """The log of each agent, by node."""
        places = [path for path in (self.folder / LOGS / window, self.folder / SPOOL) if path.exists()]
        own = [
            log
            for log in find(places).logs
            if (log.window_id.run, log.window_id.window) == (self.run, window)
        ]
        return {log.window_id.agent: log for log in choose(own, [])}

    def _drop_torn_line(self) -> None:
        """Cut what a killed process left after the last whole line, so that the next event has a line of its own."""
        size = os.fstat(self._journal).st_size
        content = os.pread(self._journal, size, 0)
        whole = content.rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(self._journal, whole)


def read_result(path: Path) -> RunResult:
    """`results.json` of a run's folder, or the file itself.

    Raises:
        StoreError: there is none, or it does not read.
    """
    file = path / RESULTS if path.is_dir() else path
    if not file.exists():
        raise StoreError(f"{path}: no {RESULTS} here; it is written when a run ends")
    with storing(file):
        data = file.read_bytes()
    try:
        result = msgspec.json.decode(data, type=RunResult)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"{file}: not a run's results: {error}") from error
    if result.schema != SCHEMA:
        raise StoreError(f"{file}: results of schema {result.schema}; this kabench reads {SCHEMA}")
    return result


def run_folders(results: Path) -> Iterable[Path]:
    """The runs in a results folder, oldest first (run ids begin with their time)."""
    return sorted(path.parent for path in results.glob(f"*/{JOURNAL}") if not path.parent.is_symlink())


def _checked(log: FoundLog) -> WindowTotals | None:
    """A log summed up; None where it cannot be relied on, which is as good as none."""
    try:
        totals = read(log)
        cross_check(log.path, totals)
    except LogError:
        return None
    return totals


def _point_latest(folder: Path) -> None:
    link = folder.parent / LATEST
    fresh = folder.parent / f".{LATEST}.{os.getpid()}"
    with storing(link):
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(folder.name)
        try:
            fresh.replace(link)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        sync_folder(folder.parent)


def _check_name(name: str) -> None:
    if not _FILE_NAME.fullmatch(name):
        raise StoreError(f"{name!r} is no name for a file")
