"""RESP2 and RESP3, read for what replies mean and not for what they hold: nothing but a line that is not whole is kept."""

from __future__ import annotations

import re

from kabench_agent.protocols.base import Verdict

LINE_BYTES = 64 * 1024
"""A line that is longer is no reply's: strings that may be long have their length told."""
STRING_BYTES = 512 * 2**20
"""As Redis has it (`proto-max-bulk-len`)."""
DEPTH = 64

_ENDS_LINE = b"\r\n"
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,9}")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")
_BIG = re.compile(rb"[+-]?[0-9]+")
_DOUBLE = re.compile(
    rb"[+-]?(inf|nan|[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?)", re.IGNORECASE
)
_STRINGS = {b"$": Verdict.OK, b"=": Verdict.OK, b"!": Verdict.REPLY}
_KINDS = frozenset(b"%c" % sign for sign in b"+-:_#,($=!*~>%|")
_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}


class _MalformedError(Exception):
    """No RESP, or more than anyone would send."""


def _length(text: bytes) -> int | None:
    """The number of bytes or elements that `text` says; None if it says none."""
    return int(text) if _LENGTH.fullmatch(text) else None


class Frames:
    """Verdicts on replies, as they become whole.

    Attributes:
        idle: no reply has begun that is not whole.
        last_error: the text of the last reply that was an error.
    """

    def __init__(self) -> None:
        self.idle = True
        self.last_error = b""
        self._line = b""  # of a line, what is there
        self._skip = 0  # bytes of a string that are to come
        self._string: Verdict | None = None  # of the string that is read
        self._open: list[int] = []  # elements that are to come, of each aggregate in the one before
        self._worst = Verdict.OK  # of the outermost aggregate
        self._silent = False  # it is no reply
        self._broken = False

    def feed(self, data: bytes) -> list[Verdict]:
        """A verdict for every reply that is whole now; after MALFORMED, nothing."""
        verdicts: list[Verdict] = []
        if self._broken:
            return verdicts
        try:
            self._read(self._line + data, verdicts)
        except _MalformedError:
            self._broken, self._line = True, b""
            verdicts.append(Verdict.MALFORMED)
        self.idle = not (self._line or self._string is not None or self._open or self._silent or self._broken)
        return verdicts

    def _read(self, data: bytes, verdicts: list[Verdict]) -> None:
        at, size = 0, len(data)
        self._line = b""
        while at < size:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                at += step
                continue
            line_ends = data.find(_ENDS_LINE, at)
            if line_ends < 0:
                self._line = data[at:]
                begins_well = self._line == b"\r" if self._string is not None else self._line[:1] in _KINDS
                if len(self._line) > LINE_BYTES or not begins_well:
                    raise _MalformedError
                return
            self._take(data[at:line_ends], verdicts)
            at = line_ends + 2

    def _take(self, line: bytes, verdicts: list[Verdict]) -> None:
        """A whole line: a reply or an element, or the head of one, or what ends a string."""
        if len(line) > LINE_BYTES:
            raise _MalformedError
        if self._string is not None:
            if line:
                raise _MalformedError
            verdict, self._string = self._string, None
            self._element(verdict, verdicts)
            return
        kind, rest = line[:1], line[1:]
        if kind in _STRINGS:
            self._begin_string(kind, rest, verdicts)
        elif kind in _AGGREGATES:
            self._begin_aggregate(kind, rest, verdicts)
        else:
            verdict = _simple(kind, rest)
            if verdict is Verdict.REPLY:
                self.last_error = rest
            self._element(verdict, verdicts)

    def _begin_string(self, kind: bytes, rest: bytes, verdicts: list[Verdict]) -> None:
        if kind == b"$" and rest == b"-1":
            self._element(Verdict.MISS, verdicts)
            return
        size = _length(rest)
        if size is None or size > STRING_BYTES:
            raise _MalformedError
        self._skip, self._string = size, _STRINGS[kind]
        if kind == b"!":
            self.last_error = b"a long error"

    def _begin_aggregate(self, kind: bytes, rest: bytes, verdicts: list[Verdict]) -> None:
        if kind == b"*" and rest == b"-1":
            self._element(Verdict.MISS, verdicts)
            return
        count = _length(rest)
        if count is None or len(self._open) == DEPTH:
            raise _MalformedError
        if not self._open:
            self._worst, self._silent = Verdict.OK, kind in (b">", b"|")
        elif kind == b"|":
            self._open[-1] += 1  # an attribute is no element: it stands before one
        if count:
            self._open.append(count * _AGGREGATES[kind])
        elif self._silent and not self._open:
            self._silent = False
        else:
            self._element(Verdict.OK, verdicts)

    def _element(self, verdict: Verdict, verdicts: list[Verdict]) -> None:
        """An element is whole, and maybe what it is in."""
        if not self._open:
            verdicts.append(verdict)
            return
        if verdict is Verdict.REPLY or (verdict is Verdict.MISS and len(self._open) == 1 and not self._worst):
            self._worst = verdict
        while self._open:
            self._open[-1] -= 1
            if self._open[-1]:
                return
            self._open.pop()
        if not self._silent:
            verdicts.append(self._worst)
        self._silent = False


def _simple(kind: bytes, rest: bytes) -> Verdict:
    """The verdict on a reply of one line."""
    if kind == b"+":
        return Verdict.OK
    if kind == b"-":
        return Verdict.REPLY
    if kind == b"_" and not rest:
        return Verdict.MISS
    if (
        (kind == b":" and _INTEGER.fullmatch(rest) and -(2**63) <= int(rest) < 2**63)
        or (kind == b"#" and rest in (b"t", b"f"))
        or (kind == b"," and _DOUBLE.fullmatch(rest))
        or (kind == b"(" and _BIG.fullmatch(rest))
    ):
        return Verdict.OK
    raise _MalformedError
