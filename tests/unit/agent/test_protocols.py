"""Requests as bytes, replies as verdicts, whatever pieces they come in."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kabench.core.identity import ErrorClass
from kabench.wire.messages import HttpLoad, RedisLoad
from kabench_agent.keys import key_name
from kabench_agent.protocols.base import Verdict
from kabench_agent.protocols.http1 import HttpCodec
from kabench_agent.protocols.null import NullCodec
from kabench_agent.protocols.resp import RespCodec

OK, STATUS, REPLY, MISS, MALFORMED = (
    Verdict.OK,
    Verdict.STATUS,
    Verdict.REPLY,
    Verdict.MISS,
    Verdict.MALFORMED,
)


def test_the_verdicts_from_connect_on_are_the_classes_of_errors():
    names = [verdict.name.lower() for verdict in Verdict if verdict >= Verdict.CONNECT]
    assert names == [str(error) for error in ErrorClass]


def test_redis_gets_and_sets_the_keys_that_were_filled():
    codec = RespCodec(RedisLoad(keys=12, value_bytes=3))
    assert codec.encode(7) == b"*2\r\n$3\r\nGET\r\n$9\r\nkabench:7\r\n"
    assert codec.encode(12 + 11) == b"*3\r\n$3\r\nSET\r\n$10\r\nkabench:11\r\n$3\r\nxxx\r\n"
    assert key_name(11) in codec.encode(12 + 11)


def test_redis_values_may_be_empty():
    assert RespCodec(RedisLoad(1, 0)).encode(1).endswith(b"$0\r\n\r\n")


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (b"$2\r\nab\r\n", OK),
        (b"$0\r\n\r\n", OK),
        (b"+OK\r\n", OK),
        (b"-WRONGTYPE Operation against a key\r\n", REPLY),
        (b"-NOAUTH Authentication required.\r\n", REPLY),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", REPLY),
        (b"$-1\r\n", MISS),
        (b":1\r\n", OK),
        (b"*1\r\n$1\r\na\r\n", OK),
        (b"hello\r\n", MALFORMED),
    ],
)
def test_redis_replies(reply, verdict):
    assert RespCodec(RedisLoad(1, 1)).reader().feed(reply) == [verdict]


@pytest.mark.parametrize(
    ("head", "verdict"),
    [(b"200 OK", OK), (b"204 No", OK), (b"302 Found", OK), (b"400 Bad", STATUS), (b"503 Busy", STATUS)],
)
def test_http_replies(head, verdict):
    reader = HttpCodec("h", 80, HttpLoad()).reader()
    assert reader.feed(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % head) == [verdict]
    assert reader.keep_alive


def test_http_interim_replies_are_passed_over():
    reader = HttpCodec("h", 80, HttpLoad()).reader()
    assert reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n") == []
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") == [OK]


def test_http_chunks():
    reader = HttpCodec("h", 80, HttpLoad()).reader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n") == []
    assert reader.feed(b"0\r\n\r\n") == [OK]


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: close", b"HTTP/1.0 200 OK"])
def test_http_goodbye(head):
    reader = HttpCodec("h", 80, HttpLoad()).reader()
    assert reader.feed(head + b"\r\nContent-Length: 1\r\n\r\na") == [OK]
    assert not reader.keep_alive
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") == []


def test_what_is_not_http_is_malformed():
    assert HttpCodec("h", 80, HttpLoad()).reader().feed(b"-ERR\r\n") == [MALFORMED]
    upgrade = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert HttpCodec("h", 80, HttpLoad()).reader().feed(upgrade) == [MALFORMED]


class Asked:
    """What a server's parser sees of a request."""

    def __init__(self, data):
        self.headers, self.body, self.url, self.whole = {}, b"", b"", False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)
        self.method = self.parser.get_method()

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        self.headers[name.lower()] = value

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.whole = True


@pytest.mark.parametrize(("size", "method"), [(0, b"GET"), (5, b"POST")])
def test_http_requests_read_as_what_they_are(size, method):
    asked = Asked(HttpCodec("::1", 8080, HttpLoad((("/a?b=c", 1.0),), body_bytes=size)).encode(0))
    assert (asked.method, asked.url, len(asked.body), asked.whole) == (method, b"/a?b=c", size, True)
    assert asked.headers[b"host"] == b"[::1]:8080"


@pytest.mark.parametrize("path", ["", "a", "/a b", "/\r\nX: y", "/ä"])
def test_paths_that_would_break_the_request_are_refused(path):
    with pytest.raises(ValueError, match="is no path"):
        HttpCodec("h", 80, HttpLoad(((path, 1.0),)))


def test_the_null_echo_sends_back_what_it_gets():
    codec = NullCodec()
    assert codec.encode(3) == b"ping"
    reader = codec.reader()
    assert reader.feed(b"pi") == []
    assert reader.feed(b"ngping") == [OK, OK]
    assert reader.feed(b"pong") == [MALFORMED]


STREAMS = [
    (
        RespCodec(RedisLoad(1, 1)),
        [(b"$2\r\nab\r\n", OK), (b"-ERR no\r\n", REPLY), (b"$-1\r\n", MISS), (b"+OK\r\n", OK)],
    ),
    (
        HttpCodec("h", 80, HttpLoad()),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", OK),
            (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", STATUS),
        ],
    ),
    (NullCodec(), [(b"ping", OK)]),
]


@pytest.mark.parametrize(("codec", "replies"), STREAMS)
@given(data=st.data())
def test_replies_may_come_in_any_pieces(codec, replies, data):
    chosen = data.draw(st.lists(st.sampled_from(replies), max_size=6))
    stream = b"".join(reply for reply, _ in chosen)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = codec.reader()
    verdicts = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        verdicts += reader.feed(stream[begin:end])
    assert verdicts == [verdict for _, verdict in chosen]
    reader.close()
