"""Thousands of connections: the limit is raised, or the order is refused before anything happens."""

import resource
import subprocess
import sys

import pytest
from agent_kit import an_order, http_target
from msgspec.structs import replace

from kabench.clock import SystemClock
from kabench.errors import AgentError
from kabench_agent import descriptors
from kabench_agent.descriptors import make_room
from kabench_agent.prepare import make_ready

MANY = """
import resource, socket
from kabench_agent.descriptors import make_room
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
make_room(200)
print(len([socket.socket() for _ in range(200)]))
"""


def test_the_limit_is_raised_as_far_as_it_takes():
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True)
    assert done.stdout == "200\n"


@pytest.fixture
def limits(monkeypatch):
    """A limit of 300, 500 at most, and what it was set to."""
    was_set = []

    def set_limit(kind, values):
        if values[1] > 500:
            raise ValueError("not allowed to raise maximum limit")
        was_set.append(values)

    monkeypatch.setattr(descriptors, "_open_now", lambda: 10)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (300, 500))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    return was_set


def test_it_is_left_alone_where_there_is_room(limits):
    make_room(190)
    assert limits == []
    make_room(191)
    assert limits == [(301, 500)]


@pytest.mark.filterwarnings("error")
async def test_what_it_does_not_allow_is_refused_beforehand(limits):
    order = an_order(
        replace(http_target(1), connections=200), replace(http_target(2), connections=191, name="b")
    )
    with pytest.raises(
        AgentError, match=r"^391 connections need 501 file descriptors, and an agent may have 500"
    ):
        await make_ready(order, SystemClock())
