"""Connections that stand out, over all agents."""

from __future__ import annotations

from kabench.analysis.connections import ENOUGH, apart
from kabench.core.hlog import ConnectionFigure, Extremes
from kabench.core.result import AgentWindow

US = 1_000


def window(
    agent: str, fast_us: int, slow_us: int, requests: int = 1000, local: str = "127.0.0.1:4"
) -> AgentWindow:
    extremes = Extremes(
        ConnectionFigure(0, f"{local}000" if local else "", requests, fast_us * US),
        ConnectionFigure(7, f"{local}007" if local else "", requests, slow_us * US),
    )
    return AgentWindow(agent, "sealed", "quiet", connections={"redis-1": extremes})


def test_connections_much_alike_are_not_named() -> None:
    assert apart([window("a", 100, 150), window("b", 110, 190)]) == []
    assert apart([AgentWindow("a", "sealed", "quiet")]) == []


def test_the_slowest_of_all_agents_is_named_against_the_fastest_of_all() -> None:
    (found,) = apart([window("a", 100, 150), window("b", 120, 450)])
    assert (found.target, found.slowest.agent, found.fastest.agent) == ("redis-1", "b", "a")
    assert found.ratio == 4.5
    assert str(found) == (
        "redis-1: its slowest connection (127.0.0.1:4007 of b, 1,000 requests) took 0.45 ms on average, "
        "4.5 times the fastest (127.0.0.1:4000 of a, 1,000 requests, 0.1 ms)"
    )


def test_twice_is_much_and_less_is_not() -> None:
    assert apart([window("a", 100, 199)]) == []
    assert len(apart([window("a", 100, 200)])) == 1


def test_a_mean_of_few_requests_says_nothing() -> None:
    assert apart([window("a", 100, 900, requests=ENOUGH - 1)]) == []
    assert len(apart([window("a", 100, 900, requests=ENOUGH)])) == 1


def test_a_connection_without_an_address_has_its_number() -> None:
    (found,) = apart([window("a", 100, 900, local="")])
    assert "number 7 of a" in str(found)
