"""Redis: GET and SET over a key space, replies parsed by hiredis."""

from __future__ import annotations

import functools

import hiredis

from kabench_agent.keys import key_name
from kabench_agent.protocols.base import Verdict

_GET = b"*2\r\n$3\r\nGET\r\n"
_SET = b"*3\r\n$3\r\nSET\r\n"
_NOTHING = object()


@functools.lru_cache(maxsize=4)
def _key_arguments(keys: int) -> list[bytes]:
    """Every key as a bulk string: made once for all targets with a key space of this size."""
    names = (key_name(index) for index in range(keys))
    return [b"$%d\r\n%b\r\n" % (len(name), name) for name in names]


class RespCodec:
    """GET and SET of `keys` keys with values of `value_bytes`."""

    def __init__(self, keys: int, value_bytes: int) -> None:
        self._keys = _key_arguments(keys)
        self._value = b"$%d\r\n%b\r\n" % (value_bytes, b"x" * value_bytes)

    def encode(self, op: int) -> bytes:
        """GET the key of index `op`; where that is negative, SET the key of its complement."""
        return _GET + self._keys[op] if op >= 0 else _SET + self._keys[~op] + self._value

    def reader(self) -> RespReader:
        """A reader for a fresh connection."""
        return RespReader()


class RespReader:
    """Verdicts on the replies to GET and SET: nil is a miss, since every key was filled."""

    keep_alive = True

    def __init__(self) -> None:
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)

    def feed(self, data: bytes) -> list[Verdict]:
        """A verdict for every whole reply."""
        verdicts: list[Verdict] = []
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not _NOTHING:
                verdicts.append(Verdict.OK if type(reply) is bytes else _judge(reply))
        except hiredis.ProtocolError:
            verdicts.append(Verdict.MALFORMED)
        return verdicts

    def close(self) -> None:
        """Nothing refers back."""


def _judge(reply: object) -> Verdict:
    if reply is None:
        return Verdict.MISS
    # NOAUTH, OOM, WRONGTYPE, LOADING, …: the server answered, and refused
    return Verdict.REPLY if isinstance(reply, hiredis.ReplyError) else Verdict.MALFORMED
