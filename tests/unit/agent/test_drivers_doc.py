"""The worked example of docs/drivers.md is code that runs, against a small memcached, however replies are cut."""

import re
import types
from pathlib import Path

import engine_kit as kit
import pytest
from engine_kit import Server, World
from hypothesis import given
from hypothesis import strategies as st

from kabench_agent import engine
from kabench_agent.protocols.base import Codec, Reader, Verdict

DOC = Path(__file__).resolve().parents[3] / "docs" / "drivers.md"
OK, MISS, REPLY, MALFORMED = Verdict.OK, Verdict.MISS, Verdict.REPLY, Verdict.MALFORMED


@pytest.fixture(scope="module")
def memcached():
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
    module = types.ModuleType("memcached")
    exec(compile(code, str(DOC), "exec"), module.__dict__)
    return module


class Store:
    """What a memcached does, a request at a time."""

    def __init__(self):
        self.data, self.count = {}, 0

    def answer(self, request):
        self.count += 1
        words, _, rest = request.partition(b"\r\n")
        verb, key, *more = words.split(b" ")
        if verb == b"get":
            value = self.data.get(key)
            return (
                b"END\r\n" if value is None else b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(value), value)
            )
        assert verb == b"set"
        assert len(rest) == int(more[2]) + 2
        self.data[key] = rest[:-2]
        return b"STORED\r\n"


@pytest.mark.parametrize("loop", ["open", "closed"])
async def test_it_drives_a_target(memcached, loop, monkeypatch):
    """At the seam where a kind becomes a codec: the rest is the engine's own."""
    made: Codec = memcached.MemcachedCodec(keys=3, value_bytes=5)
    monkeypatch.setattr(engine, "codec_of", lambda target: made)
    store = Store()
    server = Server()
    server.script = lambda number: (100, store.answer(server.requests[number][1]))
    target = kit.redis_target(keys=3, mix=(("get", 1.0), ("set", 1.0)))
    done = await kit.run(World(server), kit.order(target, loop=loop))
    counts = done.seal.totals["redis-0"]
    assert counts.ok == counts.sent >= 20
    assert store.count >= counts.sent
    assert store.data == dict.fromkeys((b"kabench:0", b"kabench:1", b"kabench:2"), b"xxxxx")


REPLIES = [
    (b"VALUE a 0 3\r\nabc\r\nEND\r\n", OK),
    (b"VALUE a 0 5\r\nEND\r\n\r\nEND\r\n", OK),
    (b"VALUE a 0 0 17\r\n\r\nEND\r\n", OK),
    (b"END\r\n", MISS),
    (b"STORED\r\n", OK),
    (b"ERROR\r\n", REPLY),
    (b"SERVER_ERROR out of memory\r\n", REPLY),
]


@given(data=st.data())
def test_its_replies_may_be_cut_anywhere(memcached, data):
    chosen = data.draw(st.lists(st.sampled_from(REPLIES), max_size=6))
    stream = b"".join(reply for reply, _ in chosen)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader: Reader = memcached.MemcachedReader()
    verdicts = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        verdicts += reader.feed(stream[begin:end])
    assert verdicts == [verdict for _, verdict in chosen]
    assert reader.end() == []


@pytest.mark.parametrize("reply", [b"HELLO\r\n", b"VALUE a b c\r\n", b"x" * 5000, b"VALUE a 0 999999999\r\n"])
def test_what_is_no_reply_is_malformed(memcached, reply):
    assert memcached.MemcachedReader().feed(b"STORED\r\n" + reply) == [OK, MALFORMED]
