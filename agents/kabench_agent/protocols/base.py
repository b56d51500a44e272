"""What every protocol gives the drivers."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol


class Verdict(IntEnum):
    """What became of a request; from CONNECT on these are the classes of errors, by the names of `core.identity`."""

    OK = 0
    TIMEOUT = 1
    SKIPPED = 2
    CONNECT = 3
    RESET = 4
    ABORTED = 5
    STATUS = 6
    REPLY = 7
    MISS = 8
    MALFORMED = 9


class Reader(Protocol):
    """Turns the bytes of one connection into verdicts."""

    keep_alive: bool
    """False once the peer has said that it closes the connection after the last reply read."""

    def feed(self, data: bytes) -> list[Verdict]:
        """A verdict for every reply that is whole now, in order. After MALFORMED the connection is of no use."""
        ...

    def close(self) -> None:
        """Break reference cycles: the collector is off while the engine runs."""
        ...


class Codec(Protocol):
    """One target's protocol."""

    def encode(self, op: int) -> bytes:
        """The request for an operation of the schedule."""
        ...

    def reader(self) -> Reader:
        """A reader for a fresh connection."""
        ...
