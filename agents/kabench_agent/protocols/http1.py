"""HTTP/1.1: requests made once, replies parsed by httptools."""

from __future__ import annotations

from collections.abc import Callable

import httptools

from kabench.wire.messages import HttpLoad
from kabench_agent.protocols.base import Verdict

HEAD_BYTES = 64 * 1024
"""A reply's status line and headers together are shorter, or they are no reply's."""
_ENDS_HEAD = b"\r\n\r\n"
_WITH_BODY = ("POST", "PUT", "PATCH")

Judge = Callable[[int], Verdict]


class HttpCodec:
    """The requests of a load: operation `n` asks for the path `n`.

    Raises:
        ValueError: a path would not make a request line.
    """

    def __init__(self, host: str, port: int, load: HttpLoad) -> None:
        body = load.body or b"x" * load.body_bytes
        method = method_of(load)
        headers = [f"{name}: {value}" for name, value in load.headers]
        if not any(name.lower() == "host" for name, _ in load.headers):
            headers.insert(0, f"Host: {f'[{host}]' if ':' in host else host}:{port}")
        if body or method in _WITH_BODY:
            headers.append(f"Content-Length: {len(body)}")
        if not load.keep_alive:
            headers.append("Connection: close")
        self._head = method == "HEAD"
        self._keep_alive = load.keep_alive
        self._judge = judge_of(load.expect_status)
        lines = "".join([f"{header}\r\n" for header in headers])
        self.encode = [
            f"{method} {_checked(path)} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body
            for path, _ in load.paths
        ].__getitem__

    def missed(self, op: int) -> bool:
        """There are no replies without a value."""
        return False

    def reader(self) -> HttpReader | HeadReader:
        """A reader for a fresh connection."""
        return (HeadReader if self._head else HttpReader)(self._judge, self._keep_alive)

    def opening(self) -> None:
        """Nothing comes before the first request."""


def _checked(path: str) -> str:
    if not path.startswith("/") or not all("!" <= sign <= "~" for sign in path):
        raise ValueError(
            f"{path!r} is no path: it starts with a slash, and anything special in it is %-encoded"
        )
    return path


def method_of(load: HttpLoad) -> str:
    """What is asked for: POST where there is a body and nothing else was said."""
    return load.method or ("POST" if load.body or load.body_bytes else "GET")


def judge_of(expect_status: tuple[int, ...]) -> Judge:
    """What a status means: below 400 is well where none is expected."""
    expected = frozenset(expect_status)

    def judge(status: int) -> Verdict:
        good = status in expected if expected else status < 400
        return Verdict.OK if good else Verdict.STATUS

    return judge


class HttpReader:
    """Verdicts on replies by their status. Interim replies (1xx) are passed over.

    Args:
        judge: what a status means.
        keep_alive: whether we go on after a reply.
    """

    def __init__(self, judge: Judge, keep_alive: bool = True) -> None:
        self.keep_alive = True
        self._judge = judge
        self._goes_on = keep_alive
        self._seen: bytes | None = None  # what was fed last, if it was whole replies
        self._verdicts: list[Verdict] = []
        self._within = False  # a reply has begun
        self._begun: list[bytes] = []  # what was fed since, as far as its head may be in it
        self._begun_bytes = 0
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> list[Verdict]:
        """A verdict for every whole reply."""
        if data == self._seen:  # then so is what it says: most servers say the same for a while
            return self._verdicts
        self._seen = None
        verdicts: list[Verdict] = []
        self._verdicts, between = verdicts, not self._within
        if self._parser is None:
            return verdicts
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self.keep_alive:  # what follows a goodbye is nobody's reply
                self._give_up()
            return verdicts
        if self._within:
            self._keep_head(data)
        elif self.keep_alive:
            self._begun, self._begun_bytes = [], 0
            self._seen = data if between else None
        return verdicts

    def end(self) -> list[Verdict]:
        """A reply whose head says nothing of its length ends here."""
        self._verdicts = []
        if self._within and self.keep_alive and self._begun_bytes <= HEAD_BYTES:
            head = _Head(b"".join(self._begun))
            if head.whole and head.ends_with_connection:
                self.keep_alive = False
                self._verdicts = [self._judge(head.status)]
        return self._verdicts

    def close(self) -> None:
        """The parser refers to its callbacks: part them."""
        self._parser = None

    def on_message_begin(self) -> None:
        """httptools: a reply begins."""
        self._within = True

    def on_message_complete(self) -> None:
        """httptools: a reply is whole."""
        assert self._parser is not None
        self._within = False
        status = self._parser.get_status_code()
        if status < 200 or not self.keep_alive:
            return
        self._verdicts.append(self._judge(status))
        self.keep_alive = self._goes_on and self._parser.should_keep_alive()

    def _keep_head(self, data: bytes) -> None:
        """`data` may be of the head of a reply that goes on; beyond `HEAD_BYTES` it has to be of the body."""
        if self._begun_bytes > HEAD_BYTES:
            return
        self._begun.append(data)
        self._begun_bytes += len(data)
        if self._begun_bytes > HEAD_BYTES:
            if not _Head(b"".join(self._begun)).whole:
                self._give_up()
            self._begun = []

    def _give_up(self) -> None:
        self._verdicts.append(Verdict.MALFORMED)
        self._parser = None


class HeadReader:
    """As `HttpReader`, for replies to HEAD: none has a body, whatever its headers say."""

    def __init__(self, judge: Judge, keep_alive: bool = True) -> None:
        self.keep_alive = True
        self._judge = judge
        self._goes_on = keep_alive
        self._seen: bytes | None = None
        self._told: list[Verdict] = []
        self._held = b""
        self._broken = False

    def feed(self, data: bytes) -> list[Verdict]:
        """A verdict for every whole head."""
        if data == self._seen:
            return self._told
        verdicts: list[Verdict] = []
        before = self._held
        held = before + data
        while self.keep_alive and not self._broken and (end := held.find(_ENDS_HEAD)) >= 0:
            end += len(_ENDS_HEAD)
            self._take(_Head(held[:end]), verdicts)
            held = held[end:]
        if len(held) > HEAD_BYTES and self.keep_alive and not self._broken:
            self._broken = True
            verdicts.append(Verdict.MALFORMED)
        self._held = b"" if self._broken or not self.keep_alive else held
        whole = self.keep_alive and not before and not self._held and not self._broken
        self._seen, self._told = data if whole else None, verdicts
        return verdicts

    def end(self) -> list[Verdict]:
        """No head ends with its connection."""
        return []

    def close(self) -> None:
        """Nothing refers back."""

    def _take(self, head: _Head, verdicts: list[Verdict]) -> None:
        if not head.whole or head.status == 101:
            self._broken = True
            verdicts.append(Verdict.MALFORMED)
        elif head.status >= 200:
            verdicts.append(self._judge(head.status))
            self.keep_alive = self._goes_on and not head.closes


class _Head:
    """What the head of the last reply in `data` says, if it is whole and its reply is not."""

    def __init__(self, data: bytes) -> None:
        self.whole = False
        self.status = 0
        self._headers: dict[bytes, bytes] = {}
        self._version = ""
        self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.whole = False
        del self._parser  # it refers to its callbacks

    @property
    def closes(self) -> bool:
        """The connection ends after this reply."""
        wanted = self._headers.get(b"connection", b"").lower()
        return b"close" in wanted or (self._version == "1.0" and b"keep-alive" not in wanted)

    @property
    def ends_with_connection(self) -> bool:
        """There is no other sign of the body's end."""
        coded = self._headers.get(b"transfer-encoding", b"").lower()
        return b"content-length" not in self._headers and b"chunked" not in coded

    def on_message_begin(self) -> None:
        """httptools: a reply begins."""
        self.whole = False
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header."""
        before = self._headers.get(name.lower())
        self._headers[name.lower()] = value if before is None else before + b"," + value

    def on_headers_complete(self) -> None:
        """httptools: the head is whole."""
        self.whole = True
        self.status = self._parser.get_status_code()
        self._version = self._parser.get_http_version()
