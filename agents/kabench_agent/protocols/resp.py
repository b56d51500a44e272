"""Redis: commands over a key space, and what their replies mean."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from kabench.core.commands import COMMANDS, DATA, ELEMENTS, KEY, arguments
from kabench.wire.messages import RedisLoad
from kabench_agent.keys import FIELDS, counter_name, hash_name, key_name, list_name
from kabench_agent.protocols.base import Requests, Verdict
from kabench_agent.protocols.frames import Frames

_ENDS_LINE = b"\r\n"
_NUMBERS = re.compile(rb"(?::(?:0|-?[1-9][0-9]{0,17})\r\n)+")
_STRING = re.compile(rb"\$(0|[1-9][0-9]{0,8})\r\n")
_ONE = [Verdict.OK]

Make = Callable[[int], Sequence[bytes]]


def command(*parts: bytes) -> bytes:
    """A command as an array of bulk strings."""
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class RespCodec:
    """The commands of a load: operation `choice * keys + key` is command `choice` of the mix on that key.

    Raises:
        ValueError: a command's text is none.
    """

    def __init__(self, load: RedisLoad) -> None:
        if load.keys < 1:
            raise ValueError("a key space needs at least one key")
        texts = tuple(text for text, _ in load.mix)
        self._load = load
        self._keys = load.keys
        self._missed = [load.fill and text in ("get", "mget") for text in texts]
        self.encode = _requests(load.keys, load.value_bytes, texts).__getitem__

    def missed(self, op: int) -> bool:
        """Nil is an error where the key was filled."""
        return self._missed[op // self._keys]

    def reader(self) -> RespReader:
        """A reader for a fresh connection."""
        return RespReader()

    def opening(self) -> RespOpening | None:
        """Whatever a connection needs beside itself: who we are, the protocol's version, the database."""
        commands = opening_commands(self._load)
        return RespOpening(commands, self._load.password) if commands else None


def opening_commands(load: RedisLoad) -> list[bytes]:
    """AUTH alone: an old server, which knows no HELLO, would tell the password in its error."""
    commands = []
    if load.password:
        user = [load.user.encode()] if load.user else []
        commands.append(command(b"AUTH", *user, load.password.encode()))
    if load.resp == 3:
        commands.append(command(b"HELLO", b"3"))
    if load.database:
        commands.append(command(b"SELECT", b"%d" % load.database))
    return commands


@functools.lru_cache(maxsize=4)
def _requests(keys: int, value_bytes: int, texts: tuple[str, ...]) -> Requests:
    """Shared by all targets that are asked for the same."""
    value = b"x" * value_bytes
    makers = [_maker(text, keys, value) for text in texts]
    return Requests(lambda op: command(*makers[op // keys](op % keys)))


def _maker(text: str, keys: int, value: bytes) -> Make:
    """What makes a command's arguments for a key."""
    known: dict[str, Make] = {
        "get": lambda key: (b"GET", key_name(key)),
        "set": lambda key: (b"SET", key_name(key), value),
        "incr": lambda key: (b"INCR", counter_name(key)),
        "lpush": lambda key: (b"LPUSH", list_name(key), value),
        "lrange": lambda key: (b"LRANGE", list_name(key), b"0", b"%d" % (ELEMENTS - 1)),
        "hset": lambda key: (b"HSET", hash_name(key), FIELDS[0], value),
        "hgetall": lambda key: (b"HGETALL", hash_name(key)),
        "mget": lambda key: (b"MGET", *(key_name((key + step) % keys) for step in range(ELEMENTS))),
    }
    if text in COMMANDS:
        return known[text]
    parts = [part.encode().replace(DATA.encode(), value) for part in arguments(text)]
    return lambda key: [part.replace(KEY.encode(), key_name(key)) for part in parts]


class RespOpening:
    """Commands whose replies must not be errors.

    Args:
        commands: at least one.
        secret: never to be seen in what a server says.
    """

    def __init__(self, commands: Sequence[bytes], secret: str) -> None:
        self.request = b"".join(commands)
        self._missing = len(commands)
        self._secret = secret
        self._frames = Frames()

    def feed(self, data: bytes) -> str | None:
        """None while replies are missing; "" once all are there; else the first error."""
        for line in data.splitlines(keepends=True):  # one by one: the first error is what is wrong
            for verdict in self._frames.feed(line):
                if verdict is Verdict.MALFORMED:
                    return "it does not speak Redis' protocol"
                if verdict is Verdict.REPLY:
                    said = self._frames.last_error.decode(errors="replace")
                    return said.replace(self._secret, "***") if self._secret else said
                self._missing -= 1
        if self._missing < 0 or not (self._missing or self._frames.idle):
            return "it says more than it was asked"
        return None if self._missing else ""


class RespReader:
    """Verdicts on replies of either version. Without a value, alone or in a list, it is MISS; pushes are passed over.

    Strings and numbers are read here, which is quick; `Frames` reads what is anything else, or not whole.
    """

    keep_alive = True

    def __init__(self) -> None:
        self._frames = Frames()
        self._seen: bytes | None = None  # what was fed last, if it was whole replies
        self._told: list[Verdict] = []
        self._head = b"\xff"  # of the last string: `$LENGTH` and its line's end
        self._whole_bytes = 1 << 60  # of a reply that begins so; there was none yet

    def feed(self, data: bytes) -> list[Verdict]:
        """A verdict for every whole reply."""
        if data == self._seen:  # then so is what it says: most servers say the same again and again
            return self._told
        frames = self._frames
        verdicts: list[Verdict] = []
        read, whole = 0, frames.idle
        if whole:
            if len(data) == self._whole_bytes and data.startswith(self._head) and data.endswith(_ENDS_LINE):
                self._seen, self._told = data, _ONE  # one string, as long as the last one
                return _ONE
            read = self._read_row(data, verdicts)
        if read < len(data):
            verdicts += frames.feed(data[read:])
        self._seen, self._told = data if whole and frames.idle else None, verdicts
        return verdicts

    def end(self) -> list[Verdict]:
        """No reply ends with its connection."""
        return []

    def close(self) -> None:
        """Nothing refers back."""

    def _read_row(self, data: bytes, verdicts: list[Verdict]) -> int:
        """Whole strings, numbers and OKs, one behind the other; returns how far they go."""
        at, size, ok = 0, len(data), Verdict.OK
        while at < size:
            if data.startswith(self._head, at):  # strings of a length, as values mostly are
                end = at + self._whole_bytes
                if data[end - 2 : end] != _ENDS_LINE:
                    return at
            elif data.startswith(b"+OK\r\n", at):
                end = at + 5
            elif numbers := _NUMBERS.match(data, at):
                at = numbers.end()
                verdicts += [ok] * numbers.group().count(b":")
                continue
            elif string := _STRING.match(data, at):
                self._head = string.group()
                self._whole_bytes = len(self._head) + int(string[1]) + 2
                continue
            else:
                return at
            verdicts.append(ok)
            at = end
        return at
