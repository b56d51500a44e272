"""The null echo's protocol: four bytes there, the same four back."""

from __future__ import annotations

from kabench_agent.protocols.base import Verdict

PING = b"ping"


class NullCodec:
    """Sends PING."""

    def encode(self, op: int) -> bytes:
        """PING, whatever `op` is."""
        return PING

    def opening(self) -> None:
        """Nothing comes before the first request."""

    def missed(self, op: int) -> bool:
        """There are no replies without a value."""
        return False

    def reader(self) -> NullReader:
        """A reader for a fresh connection."""
        return NullReader()


class NullReader:
    """Expects PING."""

    keep_alive = True

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Verdict]:
        """A verdict for every four bytes."""
        rest = self._rest + data
        whole = len(rest) // len(PING)
        self._rest = rest[whole * len(PING) :]
        pieces = (rest[begin : begin + len(PING)] for begin in range(0, whole * len(PING), len(PING)))
        return [Verdict.OK if piece == PING else Verdict.MALFORMED for piece in pieces]

    def end(self) -> list[Verdict]:
        """No reply ends with its connection."""
        return []

    def close(self) -> None:
        """Nothing refers back."""
