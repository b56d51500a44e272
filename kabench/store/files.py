"""Files written whole or not at all, and their errors in a user's words."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kabench.errors import StoreError

MAX_LINE_BYTES = 1 << 24
"""Longer lines are read in pieces, so that a file of garbage does not fill the memory; no line of ours is longer."""

_ADVICE = {
    errno.ENOSPC: "no space is left on its disk: free some, or give another folder with --out",
    errno.EDQUOT: "the disk quota is used up: free some space, or give another folder with --out",
    errno.EROFS: "its disk is read-only: give another folder with --out",
    errno.EACCES: "there is no permission for it: give another folder, or change its owner",
    errno.EPERM: "there is no permission for it: give another folder, or change its owner",
}


@contextmanager
def storing(what: Path) -> Iterator[None]:
    """Translate what the system refuses into one clear sentence about `what`.

    Raises:
        StoreError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = _ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise StoreError(f"{what}: {reason}") from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is at any time the old file or the new one, whole and on the disk.

    Raises:
        StoreError: the disk is full or read-only, or the like.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with storing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, so that a new name survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """How much may still be written where `path` is or will be.

    Raises:
        StoreError: the disk does not answer.
    """
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    with storing(path):
        return shutil.disk_usage(there).free


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, each with its end; overlong ones in pieces."""
    return iter(lambda: file.readline(MAX_LINE_BYTES), b"")
