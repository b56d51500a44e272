"""Finds agents' logs, merged logs and journals in folders, and chooses one log for each window.

Files are looked at one by one; only names, headers and digests are kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kabench.core.hlog import LogReader, Seal
from kabench.core.identity import WindowId
from kabench.core.logline import MERGED_MARK, SEAL_MARK, WINDOW_MARK, unmarked
from kabench.core.merge import Corrupt
from kabench.core.seconds import Seconds
from kabench.core.totals import WindowTotals, read_totals, sum_up
from kabench.errors import LogError, SpecError, StoreError
from kabench.store.files import lines_of
from kabench.store.journal import JOURNAL, Journal, scan_journal

LOG_SUFFIX = ".hlog"
_RUN_DEPTH = 3  # a run's journal stands at most so far above a log: RUN/logs/WINDOW/NODE.hlog


@dataclass(frozen=True)
class FoundLog:
    """An agent's log. `name` is what reports call it; `sealed`: it has a seal, and its bytes are those sealed."""

    path: Path
    name: str
    window_id: WindowId
    block: int
    sha256: str
    sealed: bool


@dataclass
class Found:
    """What the folders hold. `merged`: (name, path) of merged logs; `journals` by run."""

    logs: list[FoundLog] = field(default_factory=list)
    merged: list[tuple[str, Path]] = field(default_factory=list)
    journals: dict[str, Journal] = field(default_factory=dict)
    corrupt: list[Corrupt] = field(default_factory=list)


def find(paths: Iterable[Path]) -> Found:
    """Look through files and folders, links followed, each file once.

    Raises:
        SpecError: a path does not exist.
    """
    found = Found()
    for path, name in _files(paths, found.corrupt):
        try:
            if path.name == JOURNAL:
                _take_journal(path, name, found)
            elif _is_merged(path):
                found.merged.append((name, path))
            else:
                found.logs.append(_scan(path, name))
        except (LogError, StoreError) as error:
            found.corrupt.append(Corrupt(name, str(error)))
        except OSError as error:
            found.corrupt.append(Corrupt(name, f"cannot be read: {error.strerror}"))
    return found


def choose(logs: Sequence[FoundLog], corrupt: list[Corrupt]) -> list[FoundLog]:
    """One log for each window, in the windows' order: a sealed one where there is one, else the one that holds most.

    What is cut, or contradicts the one that was chosen, is added to `corrupt`.
    """
    groups: dict[WindowId, dict[str, FoundLog]] = {}
    for log in sorted(logs, key=lambda log: (log.window_id, log.name)):
        groups.setdefault(log.window_id, {}).setdefault(log.sha256, log)
    return [
        _best(sorted(groups[key].values(), key=lambda log: log.sha256), corrupt) for key in sorted(groups)
    ]


def read(log: FoundLog, seconds: Seconds | None = None) -> WindowTotals:
    """Sum a found log up, and add its intervals to `seconds` as they pass.

    Raises:
        LogError: it is corrupt or gone.
    """
    try:
        with log.path.open("rb") as file:
            if seconds is None:
                return read_totals(lines_of(file))
            reader = LogReader(lines_of(file))
            return sum_up(reader, seconds.follow(reader.header, reader))
    except OSError as error:
        raise LogError(f"cannot be read: {error.strerror}") from error


def _best(candidates: Sequence[FoundLog], corrupt: list[Corrupt]) -> FoundLog:
    sealed = [log for log in candidates if log.sealed]
    if len(candidates) == 1:
        return candidates[0]
    whole = {log.sha256: _whole_intervals(log) for log in candidates if not log.sealed}
    best = sealed[0] if sealed else max(candidates, key=lambda log: (whole[log.sha256][0], log.sha256))
    for log in candidates:
        if log is best:
            continue
        if log.sealed:
            reason = f"holds the same window as {best.name}, with other content; that one was counted"
        else:
            reason = f"{whole[log.sha256][1]}; {best.name} holds the same window and was counted"
        corrupt.append(Corrupt(log.name, reason))
    return best


def _whole_intervals(log: FoundLog) -> tuple[int, str]:
    try:
        with log.path.open("rb") as file:
            reader = LogReader(lines_of(file))
            return sum(1 for _ in reader), reader.problem
    except OSError as error:
        return 0, f"cannot be read: {error.strerror}"
    except LogError as error:
        return 0, str(error)


def _files(paths: Iterable[Path], corrupt: list[Corrupt]) -> Iterator[tuple[Path, str]]:
    """Logs and journals below the paths, and the journals of runs that a path is inside of; each file once."""
    seen: set[tuple[int, int]] = set()
    roots = sorted({Path(path).resolve(): path for path in paths}.items())
    for root, given in roots:
        if not root.exists():
            raise SpecError(f"{given}: no such file or folder")
        for path in _walk(root, seen, corrupt, root.name):
            yield path, _name(root, path)
    for root, _ in roots:
        for above in list(root.parents)[:_RUN_DEPTH]:
            journal = above / JOURNAL
            if journal.is_file() and _new(journal, seen):
                yield journal, f"{above.name}/{JOURNAL}"


def _walk(root: Path, seen: set[tuple[int, int]], corrupt: list[Corrupt], name: str) -> Iterator[Path]:
    pending = [root]
    while pending:
        path = pending.pop()
        try:
            if not _new(path, seen):
                continue
            if path.is_dir():
                pending.extend(sorted((Path(entry.path) for entry in os.scandir(path)), reverse=True))
            elif path == root or path.name == JOURNAL or _is_log_name(path):
                yield path
        except OSError as error:
            if path.is_symlink() and not path.exists() and not _is_log_name(path):
                continue  # a link to nowhere that would be no log
            corrupt.append(Corrupt(_name(root, path), f"cannot be read: {error.strerror}"))


def _name(root: Path, path: Path) -> str:
    """How reports call a file: the path from the one given on, which says the same wherever the command was called."""
    return path.name if path == root else f"{root.name}/{path.relative_to(root).as_posix()}"


def _is_log_name(path: Path) -> bool:
    return path.suffix == LOG_SUFFIX and not path.name.startswith(".")


def _new(path: Path, seen: set[tuple[int, int]]) -> bool:
    status = path.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _take_journal(path: Path, name: str, found: Found) -> None:
    journal = scan_journal(path)
    if journal.problem:
        found.corrupt.append(Corrupt(name, journal.problem))
    if journal.run is not None:
        known = found.journals.get(journal.run)
        if known is None or len(journal.events) > len(known.events):
            found.journals[journal.run] = journal


def _is_merged(path: Path) -> bool:
    with path.open("rb") as file:
        for line in lines_of(file):
            if line.startswith(MERGED_MARK):
                return True
            if line.startswith(WINDOW_MARK) or not line.startswith(b"#"):
                return False
    return False


def _scan(path: Path, name: str) -> FoundLog:
    """Header and digests, without decoding a histogram.

    Raises:
        LogError: it has no header of ours.
    """
    digest = hashlib.sha256()
    sealed = False
    with path.open("rb") as file:
        header = LogReader(lines_of(file)).header
        file.seek(0)
        for line in lines_of(file):
            sealed = line.startswith(SEAL_MARK) and _holds(line, digest.hexdigest())
            digest.update(line)
    window_id = WindowId(header.run, header.window, header.agent)
    return FoundLog(path, name, window_id, header.block, digest.hexdigest(), sealed)


def _holds(line: bytes, sha256: str) -> bool:
    try:
        return unmarked(SEAL_MARK, line, Seal).sha256 == sha256
    except LogError:
        return False
