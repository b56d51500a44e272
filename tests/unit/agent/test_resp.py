"""Redis: what commands look like, and what replies of every type mean, however they are cut and whatever they are."""

import tracemalloc

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kabench.core.commands import COMMANDS, ELEMENTS
from kabench.wire.messages import RedisLoad
from kabench_agent.protocols.base import ROOM_BYTES, Requests, Verdict
from kabench_agent.protocols.frames import DEPTH, LINE_BYTES, STRING_BYTES, Frames
from kabench_agent.protocols.resp import RespCodec, RespOpening, RespReader

OK, REPLY, MISS, MALFORMED = Verdict.OK, Verdict.REPLY, Verdict.MISS, Verdict.MALFORMED


def codec(*texts, keys=7, value_bytes=3, **more):
    return RespCodec(RedisLoad(keys, value_bytes, tuple((text, 1.0) for text in texts), **more))


def parsed(request):
    """What a server reads."""
    reader = hiredis.Reader()
    reader.feed(request)
    words = reader.gets()
    assert reader.gets() is False
    return b" ".join(words)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("get", b"GET kabench:5"),
        ("set", b"SET kabench:5 xxx"),
        ("incr", b"INCR kabench:counter:5"),
        ("lpush", b"LPUSH kabench:list:5 xxx"),
        ("lrange", b"LRANGE kabench:list:5 0 9"),
        ("hset", b"HSET kabench:hash:5 field:0 xxx"),
        ("hgetall", b"HGETALL kabench:hash:5"),
        (
            "mget",
            b"MGET " + b" ".join(b"kabench:%d" % ((5 + step) % 7) for step in range(ELEMENTS)),
        ),
        ("SETEX __key__ 10 __data__", b"SETEX kabench:5 10 xxx"),
        ("EVAL 'return 1' 0", b"EVAL return 1 0"),
        ("ECHO <__key__|__data__>", b"ECHO <kabench:5|xxx>"),
    ],
)
def test_a_command_is_what_its_name_or_text_says(text, request_):
    assert parsed(codec("PING", text).encode(7 + 5)) == request_


def test_every_command_known_by_name_can_be_asked():
    made = codec(*COMMANDS)
    assert len({parsed(made.encode(choice * 7)).split()[0] for choice in range(len(COMMANDS))}) == len(
        COMMANDS
    )


def test_requests_are_made_once_while_there_is_room():
    made = codec("get", "set")
    assert made.encode(9) is made.encode(9)
    large = codec("set", value_bytes=ROOM_BYTES // 2)
    assert large.encode(0) is large.encode(0)
    assert large.encode(1) is not large.encode(1)
    assert large.encode(1) == large.encode(1)
    assert codec("get", "set").encode(3) is made.encode(3)  # targets that are asked for the same share them


def test_what_is_kept_of_requests_is_bounded():
    requests = Requests(lambda op: b"%1000d" % op, room_bytes=100_000)
    assert all(requests[op] == b"%1000d" % op for op in range(1000))
    assert 50 < len(requests) <= 100


def test_nil_is_a_miss_for_gets_of_filled_keys_only():
    mixed = codec("get", "mget", "GET __key__", "lrange")
    assert [mixed.missed(choice * 7 + 6) for choice in range(4)] == [True, True, False, False]
    assert not codec("get", fill=False).missed(0)


REPLIES = [
    (b"+OK\r\n", OK),
    (b"+\r\n", OK),
    (b"-ERR no\r\n", REPLY),
    (b":1\r\n", OK),
    (b":-9223372036854775808\r\n", OK),
    (b"$2\r\nab\r\n", OK),
    (b"$0\r\n\r\n", OK),
    (b"$4\r\n\r\n\r\n\r\n", OK),
    (b"$-1\r\n", MISS),
    (b"*-1\r\n", MISS),
    (b"*0\r\n", OK),
    (b"*2\r\n$1\r\na\r\n:1\r\n", OK),
    (b"*2\r\n$1\r\na\r\n$-1\r\n", MISS),
    (b"*1\r\n*1\r\n$-1\r\n", OK),  # a nil deep inside is what the command says, not a key without a value
    (b"*2\r\n-ERR no\r\n$-1\r\n", REPLY),
    (b"*2\r\n$-1\r\n*1\r\n-ERR no\r\n", REPLY),
    (b"_\r\n", MISS),
    (b"#t\r\n", OK),
    (b"#f\r\n", OK),
    (b",1.5e3\r\n", OK),
    (b",-inf\r\n", OK),
    (b",nan\r\n", OK),
    (b"(-123456789012345678901234567890\r\n", OK),
    (b"!8\r\nERR a\r\nb\r\n", REPLY),
    (b"*1\r\n!3\r\nERR\r\n", REPLY),
    (b"=5\r\ntxt:a\r\n", OK),
    (b"%0\r\n", OK),
    (b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n", OK),
    (b"%1\r\n*0\r\n:1\r\n", OK),
    (b"~2\r\n+a\r\n*0\r\n", OK),
    (b">2\r\n+message\r\n-ERR\r\n", None),
    (b">0\r\n", None),
    (b"|1\r\n+ttl\r\n$-1\r\n", None),
    (b"|0\r\n", None),
    (b"*1\r\n|1\r\n+ttl\r\n:1\r\n:7\r\n", OK),
]


@pytest.mark.parametrize(("reply", "verdict"), REPLIES)
def test_replies_of_every_type(reply, verdict):
    assert RespReader().feed(reply) == [verdict] * (verdict is not None)


@pytest.mark.parametrize(
    "reply",
    [
        b"$7\r\nabc\r1\r\n\n$-1\r\n",  # hiredis passes over the two bytes after a string, whatever they are
        b"hello\r\n",
        b"\r\n",
        b":\r\n",
        b":a\r\n",
        b":9223372036854775808\r\n",
        b"$-2\r\n",
        b"$01\r\na\r\n",
        b"$?\r\n",
        b"$ 1\r\na\r\n",
        b"$1\r\nab\r\n",
        b"$1\r\na\rb",
        b"$%d\r\n" % (STRING_BYTES + 1),
        b"*x\r\n",
        b"*-2\r\n",
        b"#x\r\n",
        b",x\r\n",
        b"(x\r\n",
        b"_x\r\n",
        b"!-1\r\n",
        b"*1\r\n" * (DEPTH + 1),
        b"+" + b"a" * LINE_BYTES + b"a",
        b"+" + b"a" * LINE_BYTES + b"\r\n",
        b"1" * 100_000,
    ],
    ids=lambda reply: repr(reply[:20]),
)
def test_what_is_no_reply_is_malformed_at_once_and_once(reply):
    reader = RespReader()
    assert reader.feed(b"+OK\r\n" + reply) == [OK, MALFORMED]
    assert reader.feed(b"+OK\r\n") == []
    assert reader.feed(b"+OK\r\n") == []


@pytest.mark.parametrize("head", [b"*", b"~", b">", b"%", b"|", b"$"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_promise_of_much_takes_no_room(head, nested):
    """A list of a thousand million elements costs hiredis eight bytes for each before the first of them is there."""
    reader = RespReader()
    tracemalloc.start()
    try:
        assert reader.feed((b"*1000000000\r\n" if nested else b"") + head + b"400000000\r\n") == []
        for _ in range(40):
            assert reader.feed(b"+x\r\n" * 1000 if head != b"$" else b"x" * 65536) == []
        assert tracemalloc.get_traced_memory()[1] < 2**19
    finally:
        tracemalloc.stop()


@given(data=st.data())
def test_replies_may_be_cut_anywhere_and_mean_the_same(data):
    chosen = data.draw(st.lists(st.sampled_from(REPLIES), max_size=8))
    stream = b"".join(reply for reply, _ in chosen)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = RespReader()
    verdicts = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        verdicts += reader.feed(stream[begin:end])
    assert verdicts == [verdict for _, verdict in chosen if verdict is not None]


@pytest.mark.parametrize(("reply", "verdict"), REPLIES)
def test_every_cut_of_every_reply(reply, verdict):
    stream = reply + b"+OK\r\n"
    expected = [verdict, OK] if verdict is not None else [OK]
    for cut in range(len(stream)):
        reader = RespReader()
        first = list(reader.feed(stream[:cut]))
        assert first + reader.feed(stream[cut:]) == expected
        assert len(first) <= (cut >= len(reply))
    reader = RespReader()
    assert [v for byte in stream for v in reader.feed(bytes([byte]))] == expected


NOISE = st.one_of(
    st.binary(max_size=80),
    st.lists(
        st.sampled_from(
            [b"$", b"*", b"-", b"1", b"3", b"\r\n", b"\r", b"a", b"!", b"%", b">", b"|", b"_", b"0"]
        ),
        max_size=30,
    ).map(b"".join),
    st.lists(st.sampled_from([reply for reply, _ in REPLIES]), max_size=5).map(b"".join),
)


@given(NOISE, NOISE, st.lists(st.integers(0, 200), max_size=6))
def test_whatever_comes_in_whatever_pieces_the_verdicts_are_the_same(begin, end, cuts):
    stream = begin + end
    whole, pieces = RespReader(), RespReader()
    verdicts = []
    cuts = sorted(min(cut, len(stream)) for cut in cuts)
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        verdicts += pieces.feed(stream[start:stop])
    assert verdicts == whole.feed(stream)
    assert verdicts.count(MALFORMED) <= 1


@given(NOISE)
def test_short_cuts_say_what_the_whole_way_says(stream):
    assert RespReader().feed(stream) == Frames().feed(stream)


def by_hiredis(stream):
    """hiredis as the judge of what both know; None where it stops."""
    reader = hiredis.Reader(notEnoughData=NOISE)
    reader.feed(stream)
    found = []
    try:
        while (reply := reader.gets()) is not NOISE:
            found.append(reply)
    except hiredis.ProtocolError:
        found.append(MALFORMED)
    return found


SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(lambda number: b":%d\r\n" % number),
    st.binary(max_size=9).map(lambda text: b"$%d\r\n%b\r\n" % (len(text), text)),
    st.sampled_from([b"+OK\r\n", b"-ERR\r\n", b"$-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"*-1\r\n"]),
    st.binary(max_size=9),
)
VALUES = st.lists(SCALARS, max_size=6).map(lambda parts: b"".join(parts))


@given(VALUES)
def test_hiredis_finds_as_many_replies(stream):
    theirs, ours = by_hiredis(stream), Frames().feed(stream)
    assert len(theirs) == len(ours)
    for their, our in zip(theirs, ours, strict=True):
        assert (their is MALFORMED) == (our is MALFORMED)
        assert (their is None) == (our is MISS)
        assert isinstance(their, hiredis.ReplyError) == (our is REPLY)


def test_the_same_bytes_after_half_a_reply_are_not_the_same():
    reader = RespReader()
    assert reader.feed(b"+OK\r\n") == [OK]
    assert reader.feed(b"$5\r\n") == []
    assert reader.feed(b"+OK\r\n") == []
    assert reader.feed(b"\r\n+OK\r\n") == [OK, OK]
    assert reader.feed(b"+OK\r\n") == [OK]
    assert [reader.feed(piece) for piece in (b"-1$0", b"\r\n", b"\r\n")] == [[], [REPLY], [MALFORMED]]


def opening(**more):
    made = codec("get", **more).opening()
    assert made is not None
    return made


def test_a_connection_begins_with_what_the_load_needs():
    assert codec("get").opening() is None
    made = opening(user="ada", password="secret", database=3, resp=3)
    sent = hiredis.Reader()
    sent.feed(made.request)
    assert [sent.gets() for _ in range(3)] == [
        [b"AUTH", b"ada", b"secret"],
        [b"HELLO", b"3"],
        [b"SELECT", b"3"],
    ]
    assert made.feed(b"+OK\r\n%1\r\n+proto\r\n") is None
    assert made.feed(b":3\r\n+OK\r") is None
    assert made.feed(b"\n") == ""
    assert opening(password="secret").request.startswith(b"*2\r\n$4\r\nAUTH")


def test_what_a_server_refuses_is_told_in_its_words_and_without_the_password():
    assert opening(password="x y").feed(b"-WRONGPASS invalid password\r\n") == "WRONGPASS invalid password"
    both = b"-WRONGPASS invalid password\r\n-NOAUTH Authentication required.\r\n"
    assert opening(password="x", database=1).feed(both) == "WRONGPASS invalid password"
    said = opening(password="secret", resp=3).feed(
        b"+OK\r\n-ERR unknown command, beginning with 'secret'\r\n"
    )
    assert said == "ERR unknown command, beginning with '***'"
    assert opening(resp=3).feed(b"hello\r\n") == "it does not speak Redis' protocol"
    assert opening(database=1).feed(b"+OK\r\n+OK\r\n") == "it says more than it was asked"
    assert opening(database=1).feed(b"+OK\r\n+O") == "it says more than it was asked"


def test_a_load_shows_no_password_and_no_header():
    load = RedisLoad(password="secret", user="ada")
    assert "secret" not in repr(load)
    assert isinstance(RespCodec(load).opening(), RespOpening)
