"""HTTP: what requests look like, and which replies are whole, however they are cut and however they end."""

import tracemalloc

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kabench.wire.messages import HttpLoad
from kabench_agent.protocols.base import Verdict
from kabench_agent.protocols.http1 import HEAD_BYTES, HttpCodec

OK, STATUS, MALFORMED = Verdict.OK, Verdict.STATUS, Verdict.MALFORMED


class Asked:
    """What a server's parser sees of a request."""

    def __init__(self, data):
        self.headers, self.body, self.url, self.whole = {}, b"", b"", 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)
        self.method = self.parser.get_method()

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        assert name.lower() not in self.headers
        self.headers[name.lower()] = value

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.whole += 1


def asked(op=0, **load):
    return Asked(HttpCodec("h", 8080, HttpLoad(**load)).encode(op))


@pytest.mark.parametrize(
    ("load", "method", "body"),
    [
        ({}, b"GET", b""),
        ({"body_bytes": 5}, b"POST", b"xxxxx"),
        ({"body": b"\x00\xff"}, b"POST", b"\x00\xff"),
        ({"method": "PUT"}, b"PUT", b""),
        ({"method": "DELETE", "body": b"a"}, b"DELETE", b"a"),
        ({"method": "HEAD"}, b"HEAD", b""),
    ],
)
def test_a_request_has_its_method_and_body(load, method, body):
    seen = asked(**load)
    assert (seen.method, seen.body, seen.whole) == (method, body, 1)
    assert b"connection" not in seen.headers
    assert (b"content-length" in seen.headers) == (bool(body) or method == b"PUT")


def test_each_operation_has_its_path():
    paths = (("/a", 1.0), ("/b?c=d", 2.0))
    assert [asked(op, paths=paths).url for op in (0, 1)] == [b"/a", b"/b?c=d"]


def test_headers_are_sent_as_given_and_the_host_unless_it_is_given():
    seen = asked(headers=(("X-Name", "Jörg"), ("Accept", "*/*")))
    assert seen.headers[b"x-name"] == "Jörg".encode("latin-1")
    assert (seen.headers[b"accept"], seen.headers[b"host"]) == (b"*/*", b"h:8080")
    assert asked(headers=(("host", "other"),)).headers[b"host"] == b"other"


def test_without_keep_alive_the_server_is_asked_to_close_and_so_it_is_taken():
    made = HttpCodec("h", 80, HttpLoad(keep_alive=False))
    assert Asked(made.encode(0)).headers[b"connection"] == b"close"
    reader = made.reader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") == [OK]
    assert not reader.keep_alive


def reader(**load):
    return HttpCodec("h", 80, HttpLoad(**load)).reader()


def reply(status=200, headers=b"Content-Length: 0\r\n", body=b"", version=b"1.1"):
    return b"HTTP/%b %d Said\r\n%b\r\n%b" % (version, status, headers, body)


@pytest.mark.parametrize(
    ("expected", "status", "verdict"),
    [
        ((), 200, OK),
        ((), 399, OK),
        ((), 400, STATUS),
        ((404, 503), 404, OK),
        ((404, 503), 200, STATUS),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_expected_status_is_no_error(method, expected, status, verdict):
    assert reader(method=method, expect_status=expected).feed(reply(status)) == [verdict]


@pytest.mark.parametrize(
    "headers", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n", b"", b"Content-Length: 0\r\n"]
)
def test_a_reply_to_head_has_no_body(headers):
    one = reader(method="HEAD")
    assert one.feed(reply(headers=headers) + reply(404, headers)) == [OK, STATUS]
    assert one.feed(reply(headers=headers)) == [OK]
    assert one.feed(reply(headers=headers)) == [OK]
    assert one.keep_alive


@pytest.mark.parametrize(
    ("headers", "version", "stays"),
    [
        (b"", b"1.1", True),
        (b"Connection: close\r\n", b"1.1", False),
        (b"Connection: Close, TE\r\n", b"1.1", False),
        (b"", b"1.0", False),
        (b"Connection: keep-alive\r\n", b"1.0", True),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_reply_says_whether_the_connection_stays(method, headers, version, stays):
    one = reader(method=method)
    assert one.feed(reply(headers=b"Content-Length: 0\r\n" + headers, version=version)) == [OK]
    assert one.keep_alive is stays
    assert one.feed(reply()) == [OK] * stays


@pytest.mark.parametrize(
    ("headers", "version", "whole"),
    [
        (b"", b"1.1", True),
        (b"Connection: close\r\n", b"1.1", True),
        (b"", b"1.0", True),
        (b"Transfer-Encoding: gzip\r\n", b"1.1", True),
        (b"Content-Length: 9\r\n", b"1.1", False),
        (b"Connection: close\r\nContent-Length: 9\r\n", b"1.1", False),
        (b"Connection: close\r\nTransfer-Encoding: chunked\r\n", b"1.1", False),
    ],
)
@pytest.mark.parametrize("size", [0, 3, HEAD_BYTES - 200])
@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_without_a_length_is_whole_when_its_connection_ends(headers, version, whole, size, status):
    body = (
        b"%x\r\n" % (size + 1) + b"x" * size
        if b"chunked" in headers
        else b"x" * min(size, 8 if b"L" in headers else size)
    )
    stream = reply(status, headers, body, version)
    for cut in {0, 5, len(stream) // 2, len(stream) - 1}:
        one = reader()
        assert one.feed(reply()) == [OK]
        assert one.feed(stream[:cut]) == one.feed(stream[cut:]) == []
        assert one.keep_alive
        assert one.end() == [OK if status == 200 else STATUS] * whole
        assert one.end() == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", reply(), b"HTTP/1.1 100 Continue\r\n\r\n"]
)
def test_an_end_between_replies_or_in_a_head_makes_no_reply(method, part):
    one = reader(method=method)
    one.feed(part)
    assert one.end() == []


def test_a_long_body_without_a_length_is_not_kept():
    one = reader()
    tracemalloc.start()
    try:
        assert one.feed(reply(headers=b"")) == []
        for _ in range(300):
            assert one.feed(b"x" * HEAD_BYTES) == []
        assert tracemalloc.get_traced_memory()[1] < 8 * HEAD_BYTES
    finally:
        tracemalloc.stop()
    assert one.keep_alive


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_head_without_end_is_malformed_and_not_kept(method):
    one = reader(method=method)
    verdicts = one.feed(b"HTTP/1.1 200 OK\r\n")
    tracemalloc.start()
    try:
        for number in range(2 * HEAD_BYTES // 100):
            verdicts = verdicts + one.feed(b"X-%08d: " % number + b"y" * 86 + b"\r\n")
        assert tracemalloc.get_traced_memory()[1] < 8 * HEAD_BYTES
    finally:
        tracemalloc.stop()
    assert verdicts == [MALFORMED]
    assert one.feed(reply()) == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_interim_replies_are_passed_over(method):
    one = reader(method=method)
    for _ in range(3):
        assert one.feed(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n") == []
        assert one.feed(b"HTTP/1.1 100 Continue\r\n\r\n" + reply()) == [OK]
    assert one.feed(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n") == [MALFORMED]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "data", [b"-ERR\r\n\r\n", b"HTTP/9.9.9 200\r\n\r\n", b"HTTP/1.1 x OK\r\n\r\n", b"\x00" * 9 + b"\r\n\r\n"]
)
def test_what_is_no_reply_is_malformed_once(method, data):
    one = reader(method=method)
    assert one.feed(reply()) == [OK]
    assert one.feed(data) == [MALFORMED]
    assert one.feed(reply()) == []
    assert one.end() == []


def test_the_same_bytes_within_a_reply_are_not_the_same():
    one, again = reader(), reply(headers=b"Content-Length: 1\r\n", body=b"x")
    assert [one.feed(again) for _ in range(3)] == [[OK]] * 3
    assert one.feed(reply(headers=b"Content-Length: %d\r\n" % (2 * len(again)))) == []
    assert one.feed(again) == []
    assert one.feed(again) == [OK]
    assert one.feed(again) == [OK]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_end_of_a_reply_again_is_none(method):
    one = reader(method=method)
    assert one.feed(reply()[:-4]) == []
    assert one.feed(b"\r\n\r\n") == [OK]
    assert one.feed(b"\r\n\r\n") != [OK]


PARTS = [
    (reply(), OK),
    (reply(404, b"Content-Length: 3\r\n", b"abc"), STATUS),
    (reply(200, b"Transfer-Encoding: chunked\r\n", b"3;a=b\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"), OK),
    (reply(204, b""), OK),
    (reply(304, b"ETag: a\r\n"), OK),
    (b"HTTP/1.1 100 Continue\r\n\r\n", None),
]


@given(data=st.data())
def test_replies_may_be_cut_anywhere_and_mean_the_same(data):
    chosen = data.draw(st.lists(st.sampled_from(PARTS), max_size=6))
    stream = b"".join(part for part, _ in chosen)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    one, verdicts = reader(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        verdicts += one.feed(stream[begin:end])
    assert verdicts == [verdict for _, verdict in chosen if verdict is not None]
    one.close()


@pytest.mark.parametrize(("part", "verdict"), PARTS)
def test_every_cut_of_every_reply(part, verdict):
    stream = part + reply(500)
    expected = [verdict, STATUS] if verdict is not None else [STATUS]
    for cut in range(len(stream)):
        one = reader()
        first = list(one.feed(stream[:cut]))
        assert len(first) <= (cut >= len(part))
        assert first + one.feed(stream[cut:]) == expected
    one = reader()
    assert [v for byte in stream for v in one.feed(bytes([byte]))] == expected


NOISE = st.one_of(
    st.binary(max_size=80),
    st.lists(st.sampled_from([part for part, _ in PARTS]), max_size=4).map(b"".join),
    st.lists(
        st.sampled_from(
            [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"\r\n", b"\n", b"Content-Length: 2\r\n", b"Content-Length: -1\r\n",
             b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"a", b"0\r\n\r\n", b"f\r\n", b": "]
        ),
        max_size=12,
    ).map(b"".join),
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@given(begin=NOISE, end=NOISE, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_whatever_comes_in_whatever_pieces_the_verdicts_are_the_same(method, begin, end, cuts):
    stream = begin + end
    whole, pieces = reader(method=method), reader(method=method)
    verdicts = []
    cuts = sorted(min(cut, len(stream)) for cut in cuts)
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        verdicts += pieces.feed(stream[start:stop])
    assert verdicts == whole.feed(stream)
    assert pieces.keep_alive == whole.keep_alive
    assert list(pieces.end()) == list(whole.end())
    assert verdicts.count(MALFORMED) <= 1
    pieces.close()
    whole.close()
