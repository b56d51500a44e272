"""Coverage-guided fuzzing of what reads a peer's bytes: `python tests/fuzz/fuzz_readers.py READER [libFuzzer's options]`.

An input's first bytes say where the rest is cut. Whatever it is: no exception, the same verdicts for any cut, nothing after
MALFORMED. libFuzzer itself sees to it that no input takes long or much memory. `make fuzz` runs all readers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["kabench_agent.protocols", "httptools"]):
    from kabench.wire.messages import HttpLoad, RedisLoad
    from kabench_agent.protocols.base import Reader, Verdict
    from kabench_agent.protocols.frames import Frames
    from kabench_agent.protocols.http1 import HttpCodec
    from kabench_agent.protocols.resp import RespCodec, RespReader

CORPUS = Path(__file__).resolve().parents[2] / ".cache" / "fuzz"
LIMITS = ("-max_len=4096", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=0", "-close_fd_mask=0")

HTTP_SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.0 204 No\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 500 Oh\r\nConnection: close\r\n\r\nto the end",
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n",
)
REDIS_SEEDS = (
    b"+OK\r\n-ERR a\r\n:12\r\n$3\r\nabc\r\n$-1\r\n*2\r\n+a\r\n$-1\r\n",
    b"%1\r\n+a\r\n*1\r\n,1.5e3\r\n~1\r\n(12345678901234567890\r\n_\r\n#t\r\n",
    b"|1\r\n+a\r\n:1\r\n>2\r\n+message\r\n+b\r\n!5\r\nERR a\r\n=5\r\ntxt:a\r\n",
    b"*1000000000\r\n$1000\r\n",
)


def http_reader(method: str) -> Callable[[], Reader]:
    return HttpCodec("h", 80, HttpLoad(method=method)).reader


def cut(data: bytes) -> tuple[bytes, list[int]]:
    """The stream, and up to three places where it is cut."""
    stream = data[4:]
    return stream, sorted(int(place * (len(stream) + 1) / 256) for place in data[1:4])


def pieces(stream: bytes, places: list[int]) -> list[bytes]:
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


def check(make: Callable[[], Reader], data: bytes) -> None:
    stream, places = cut(data)
    one, many = make(), make()
    whole = list(one.feed(stream))
    told = [verdict for piece in pieces(stream, places) for verdict in many.feed(piece)]
    assert told == whole, (told, whole)
    assert one.keep_alive == many.keep_alive
    if Verdict.MALFORMED in whole:
        assert whole.index(Verdict.MALFORMED) == len(whole) - 1
        assert not one.feed(stream)
    assert list(one.end()) == list(many.end())
    one.close()
    many.close()


def check_resp(data: bytes) -> None:
    """Also: the short cuts say what the whole way says."""
    check(RespReader, data)
    assert RespReader().feed(data[4:]) == Frames().feed(data[4:])


def check_opening(data: bytes) -> None:
    """A login is accepted or refused, and never told with its password."""
    opening = RespCodec(RedisLoad(password="secret", database=1, resp=3)).opening()
    assert opening is not None
    for piece in pieces(*cut(data)):
        said = opening.feed(piece)
        if said is not None:
            assert "secret" not in said
            return


CHECKS: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "resp": (check_resp, REDIS_SEEDS),
    "opening": (check_opening, REDIS_SEEDS),
    "http": (lambda data: check(http_reader("GET"), data), HTTP_SEEDS),
    "head": (lambda data: check(http_reader("HEAD"), data), HTTP_SEEDS),
}


def main(name: str, *options: str) -> None:
    call, seeds = CHECKS[name]
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(b"\x00\x40\x80\xc0" + seed)
    artifacts = f"-artifact_prefix={corpus}-"
    atheris.Setup([sys.argv[0], str(corpus), artifacts, *LIMITS, *options], call)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
