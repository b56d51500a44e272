"""HTTP/1.1 with keep-alive: one request over and over, replies parsed by httptools."""

from __future__ import annotations

import httptools

from kabench_agent.protocols.base import Verdict


class HttpCodec:
    """GET `path`, or POST `body_bytes` bytes to it where that is not zero.

    Raises:
        ValueError: `path` would not make a request line.
    """

    def __init__(self, host: str, port: int, path: str, body_bytes: int = 0) -> None:
        if not path.startswith("/") or not all("!" <= sign <= "~" for sign in path):
            raise ValueError(
                f"{path!r} is no path: it starts with a slash, and anything special in it is %-encoded"
            )
        name = f"[{host}]" if ":" in host else host
        verb, length = ("POST", f"Content-Length: {body_bytes}\r\n") if body_bytes else ("GET", "")
        head = f"{verb} {path} HTTP/1.1\r\nHost: {name}:{port}\r\n{length}\r\n"
        self._request = head.encode("ascii") + b"x" * body_bytes

    def encode(self, op: int) -> bytes:
        """The same request, whatever `op` is."""
        return self._request

    def reader(self) -> HttpReader:
        """A reader for a fresh connection."""
        return HttpReader()


class HttpReader:
    """Verdicts on replies: a status of 400 and more is an error. Interim replies (1xx) are passed over.

    A reply without a length, which ends with the connection, never counts as whole.
    """

    def __init__(self) -> None:
        self.keep_alive = True
        self._verdicts: list[Verdict] = []
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> list[Verdict]:
        """A verdict for every whole reply."""
        verdicts: list[Verdict] = []
        self._verdicts = verdicts
        if self._parser is None:
            return verdicts
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self.keep_alive:  # what follows a goodbye is nobody's reply
                verdicts.append(Verdict.MALFORMED)
        return verdicts

    def on_message_complete(self) -> None:
        """httptools: a reply is whole."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200 or not self.keep_alive:
            return
        self._verdicts.append(Verdict.OK if status < 400 else Verdict.STATUS)
        self.keep_alive = self._parser.should_keep_alive()

    def close(self) -> None:
        """The parser refers to its callbacks: part them."""
        self._parser = None
