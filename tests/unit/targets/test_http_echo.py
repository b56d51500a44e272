"""The HTTP echo as a pure protocol, joined to a transport in memory."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kabench_targets.http_echo import MAX_BODY_BYTES, HttpEcho, burn
from kabench_targets.null_echo import NullEcho


class Wire(asyncio.Transport):
    """The other end: what was written, and whether it was closed or is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def connected(echo: HttpEcho | NullEcho) -> Wire:
    wire = Wire()
    echo.connection_made(wire)
    return wire


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def post(body: bytes) -> bytes:
    return b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def test_get_and_post_on_one_connection() -> None:
    echo = HttpEcho()
    wire = connected(echo)
    echo.data_received(GET)
    echo.data_received(post(b"hello"))
    echo.data_received(GET)
    assert wire.written == [answer(b"ok\n"), answer(b"hello"), answer(b"ok\n")]
    assert not wire.closed


@given(bodies=st.lists(st.binary(max_size=40), min_size=1, max_size=6), cuts=st.lists(st.integers(0, 600)))
def test_pipelined_requests_are_answered_in_order_however_they_are_cut(
    bodies: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(map(post, bodies))
    echo = HttpEcho()
    wire = connected(echo)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in itertools.pairwise(edges):
        echo.data_received(stream[start:end])
    assert b"".join(wire.written) == b"".join(answer(body or b"ok\n") for body in bodies)


def test_requests_that_came_together_are_answered_with_one_write() -> None:
    echo = HttpEcho()
    wire = connected(echo)
    echo.data_received(3 * GET)
    assert wire.written == [3 * answer(b"ok\n")]


def test_a_chunked_body_is_echoed_whole() -> None:
    echo = HttpEcho()
    wire = connected(echo)
    echo.data_received(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert wire.written == [answer(b"abcde")]


def test_the_connection_is_closed_where_the_client_asks_for_it() -> None:
    echo = HttpEcho()
    wire = connected(echo)
    echo.data_received(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert wire.written == [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"]
    assert wire.closed


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00 not http\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_what_is_not_plain_http_is_refused(garbage: bytes) -> None:
    echo = HttpEcho()
    wire = connected(echo)
    echo.data_received(garbage)
    assert b"".join(wire.written).endswith(
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert wire.closed


def test_a_body_beyond_the_limit_is_refused_and_not_kept() -> None:
    echo = HttpEcho()
    wire = connected(echo)
    whole = post(bytes(MAX_BODY_BYTES + 1))
    for at in range(0, len(whole), 65_536):
        echo.data_received(whole[at : at + 65_536])
        if wire.closed:
            break
    assert wire.closed
    assert wire.written == [
        b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ]


def test_the_cost_is_paid_once_a_request() -> None:
    paid: list[int] = []
    echo = HttpEcho(lambda: paid.append(1))
    connected(echo)
    echo.data_received(2 * GET + post(b"x"))
    assert len(paid) == 3


def test_the_cost_is_cpu_time() -> None:
    before = time.process_time_ns()
    burn(3_000_000)
    assert 3_000_000 <= time.process_time_ns() - before < 30_000_000


def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    echo = HttpEcho()
    wire = connected(echo)
    echo.pause_writing()
    assert not wire.reading
    echo.resume_writing()
    assert wire.reading


@given(st.binary(min_size=1))
def test_the_null_echo_sends_back_the_same_bytes(data: bytes) -> None:
    echo = NullEcho()
    wire = connected(echo)
    echo.data_received(data)
    assert wire.written == [data]
