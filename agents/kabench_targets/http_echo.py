"""The HTTP echo: answers with the body it was sent, or with a small one, after an optional CPU cost.

HTTP/1.1 with keep-alive and pipelining, parsed by httptools. Its own cost is a few microseconds a request.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence

import httptools

from kabench_targets.serving import FlowControl, add_address_arguments, serve

MAX_BODY_BYTES = 2 * 1024 * 1024
SMALL_BODY = b"ok\n"
BAD_REQUEST, TOO_LARGE = (
    b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
    for status in (b"400 Bad Request", b"413 Content Too Large")
)


class HttpEcho(FlowControl):
    """One connection. `cost` is called once for every request, before the answer."""

    def __init__(self, cost: Callable[[], None] | None = None) -> None:
        self._cost = cost
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._size = 0
        self._replies: list[bytes] = []
        self._closing = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Break the cycle between parser and protocol, so that no collector is needed."""
        del self._parser

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole now, with one write; what is not HTTP ends the connection."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(BAD_REQUEST)
        if self._replies:
            self.transport.write(b"".join(self._replies))
            self._replies.clear()
        if self._closing:
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request starts."""
        self._body.clear()
        self._size = 0

    def on_body(self, body: bytes) -> None:
        """A piece of the request's body."""
        self._size += len(body)
        if self._size > MAX_BODY_BYTES:
            self._refuse(TOO_LARGE)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole: do its work and queue the answer."""
        if self._closing:
            return
        if self._cost is not None:
            self._cost()
        body = b"".join(self._body) if self._body else SMALL_BODY
        self._closing = not self._parser.should_keep_alive()
        close = b"Connection: close\r\n" if self._closing else b""
        self._replies.append(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), close))
        self._replies.append(body)

    def _refuse(self, reply: bytes) -> None:
        if not self._closing:
            self._closing = True
            self._replies.append(reply)


def burn(cpu_ns: int) -> None:
    """Use `cpu_ns` of this process's CPU time, however long that takes on the wall."""
    end_ns = time.process_time_ns() + cpu_ns
    while time.process_time_ns() < end_ns:
        pass


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="kabench_targets http-echo", description=__doc__)
    add_address_arguments(parser)
    parser.add_argument(
        "--cpu-us", type=int, default=0, help="CPU time burnt for each request, in microseconds"
    )
    arguments = parser.parse_args(argv)
    cost = functools.partial(burn, arguments.cpu_us * 1000) if arguments.cpu_us > 0 else None
    serve(functools.partial(HttpEcho, cost), arguments.host, arguments.port)
    return 0
