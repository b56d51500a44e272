"""The commands that a Redis load may be mixed of, by name or as text. Pure: what scenario and agent must agree on."""

from __future__ import annotations

import shlex

COMMANDS = ("get", "set", "incr", "lpush", "lrange", "hset", "hgetall", "mget")
"""Known by name; everything else is a command's text."""

ELEMENTS = 10
"""What a filled list or hash has, what LRANGE and HGETALL answer with, and how many keys MGET asks for."""

KEY, DATA = "__key__", "__data__"
"""What stands in a command's text for a key that is drawn, and for a value: the same words as memtier_benchmark's."""


def known(name: str) -> str | None:
    """The name in `COMMANDS` that `name` is, in whatever case; None if it is none of them."""
    return name.lower() if name.lower() in COMMANDS else None


def arguments(text: str) -> list[str]:
    """The arguments of a command's text; quotes keep blanks, as in a shell.

    Raises:
        ValueError: a quote is not closed, or there is nothing.
    """
    try:
        found = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no command: {str(error).lower()}") from error
    if not found or not found[0]:
        raise ValueError(f"{text!r} is no command: it names none")
    return found
