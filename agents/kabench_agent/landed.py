"""What became of requests, as it is kept while driving: a few numbers appended, nothing counted yet."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from kabench.core.schedule import Ints
from kabench_agent.protocols.base import Verdict

COUNT_BITS, VERDICT_BITS, TARGET_BITS = 12, 4, 20
MOST_IN_A_RUN = (1 << COUNT_BITS) - 1


def _ints() -> array[int]:
    return array("q")


@dataclass
class Landed:
    """Scheduled requests in the order in which they were over; `what` is connection, target and verdict (`pack_landed`)."""

    due_ns: array[int] = field(default_factory=_ints)
    issued_ns: array[int] = field(default_factory=_ints)
    sent_ns: array[int] = field(default_factory=_ints)
    at_ns: array[int] = field(default_factory=_ints)
    what: array[int] = field(default_factory=_ints)


@dataclass
class Runs:
    """One target's requests of a closed loop, in the order in which they were over.

    Requests that were sent at one instant, on one connection, and were over at one instant in one way are one entry: so
    pipelining keeps every request's instants, and costs no more than its batches. `what` holds connection, verdict and
    how many (see `pack`).
    """

    sent_ns: array[int] = field(default_factory=_ints)
    at_ns: array[int] = field(default_factory=_ints)
    what: array[int] = field(default_factory=_ints)

    def add(self, sent_ns: int, at_ns: int, number: int, verdict: Verdict, count: int) -> None:
        """`count` requests on connection `number`."""
        self.sent_ns.append(sent_ns)
        self.at_ns.append(at_ns)
        self.what.append(pack(number, verdict, count))


def pack(number: int, verdict: Verdict, count: int) -> int:
    """Connection, verdict and count in one integer, whose bits of the verdict OK are zero."""
    return number << (COUNT_BITS + VERDICT_BITS) | verdict << COUNT_BITS | count


def pack_landed(connection: int, target: int, verdict: Verdict) -> int:
    """Connection, target and verdict in one integer."""
    return connection << (TARGET_BITS + VERDICT_BITS) | target << VERDICT_BITS | verdict


def pack_skipped(targets: Ints) -> Ints:
    """`pack_landed` of requests that were sent on no connection."""
    return targets << VERDICT_BITS | int(Verdict.SKIPPED)
