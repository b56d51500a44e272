"""More connections than the system allows are refused before anything is started."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from kabench.backends.local import limits
from kabench.core.load_flags import LoadFlags, from_urls
from kabench.core.spec import Scenario
from kabench.core.target_url import parse_url
from kabench.errors import ClusterError


@pytest.fixture
def file_limit() -> Iterator[tuple[int, int]]:
    """The process's own limit, which the test may change."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def scenario(connections: int, agents: int = 1) -> Scenario:
    urls = [parse_url("http://a/"), parse_url("redis://b")]
    return from_urls(urls, LoadFlags(closed=True, connections=connections, agents=agents), seed=1)


def test_the_soft_limit_is_raised_for_the_agents_to_inherit(file_limit: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, file_limit[1]))
    limits.allow_connections(scenario(100))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == limits.files_of_agent(scenario(100)) == 264
    limits.allow_connections(scenario(5))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 264


def test_beyond_the_hard_limit_it_says_how_many_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1064))
    with pytest.raises(
        ClusterError, match=r"needs 1066 open files, and a process may have 1064.* give 500 connections"
    ):
        limits.allow_connections(scenario(501))


def test_more_connections_than_local_ports_are_refused() -> None:
    limits.check_ports(scenario(14_000, agents=2), 28_000)
    with pytest.raises(
        ClusterError, match=r"28002 to one address need as many local ports, and there are 28000"
    ):
        limits.check_ports(scenario(28_001, agents=2), 28_000)


def test_the_ports_are_read_and_unknown_ones_refuse_nothing() -> None:
    assert limits.local_ports(lambda: "32768\t60999\n") == 28_232
    assert limits.local_ports(lambda: "?") is None
    limits.check_ports(scenario(60_000 // 4), None)
