"""File descriptors: a pool of thousands of connections needs as many."""

from __future__ import annotations

import contextlib
import os
import resource

from kabench.errors import AgentError

SPARE = 100
"""For the log, the API, the event loop, and connections that are made anew before the old ones are gone."""


def make_room(connections: int) -> None:
    """Raise this process's limit so far that `connections` more can be open.

    Raises:
        AgentError: it may not be raised so far; the message names both numbers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _open_now() + connections + SPARE
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    unbounded = hard == resource.RLIM_INFINITY
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard if unbounded else max(hard, needed)))
        return
    raise AgentError(
        f"{connections} connections need {needed} file descriptors, and an agent may have {hard} here: "
        "ask for fewer connections, share them among more agents, or raise the limit (ulimit -n)"
    )


def _open_now() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return SPARE
