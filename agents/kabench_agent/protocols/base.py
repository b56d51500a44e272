"""What every protocol gives the drivers."""

from __future__ import annotations

from collections.abc import Callable
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
    """Turns the bytes of one connection into verdicts. However the bytes are cut, the verdicts are the same."""

    keep_alive: bool
    """False once the peer has said that it closes the connection after the last reply read."""

    def feed(self, data: bytes) -> list[Verdict]:
        """A verdict for every reply that is whole now, in order; not to be changed. After MALFORMED all is in vain."""
        ...

    def end(self) -> list[Verdict]:
        """The peer closed in good order: a verdict for the reply that ends so, if there is one."""
        ...

    def close(self) -> None:
        """Break reference cycles: the collector is off while the engine runs."""
        ...


class Opening(Protocol):
    """What is said on a fresh connection before the first request."""

    request: bytes

    def feed(self, data: bytes) -> str | None:
        """None: the answer is not whole; "": the peer accepts; else why it does not, in its words."""
        ...


class Codec(Protocol):
    """One target's protocol."""

    def encode(self, op: int) -> bytes:
        """The request for an operation of the schedule."""
        ...

    def missed(self, op: int) -> bool:
        """Whether MISS, a reply without a value, is an error of this operation; else it is as good as OK."""
        ...

    def reader(self) -> Reader:
        """A reader for a fresh connection."""
        ...

    def opening(self) -> Opening | None:
        """What a fresh connection begins with, if anything."""
        ...


ROOM_BYTES = 8 * 2**20
ENTRY_BYTES = 200
"""What an entry takes beside the request's bytes: two objects, and its place."""


class Requests(dict[int, bytes]):
    """Requests by operation, each made when it is first asked for, and kept while there is room.

    Its `__getitem__` is the quickest `encode` there is: no code of ours runs for what it holds.
    """

    def __init__(self, make: Callable[[int], bytes], room_bytes: int = ROOM_BYTES) -> None:
        super().__init__()
        self._make = make
        self._room_bytes = room_bytes

    def __missing__(self, op: int) -> bytes:
        """Make it."""
        request = self._make(op)
        self._room_bytes -= len(request) + ENTRY_BYTES
        if self._room_bytes >= 0:
            self[op] = request
        return request
