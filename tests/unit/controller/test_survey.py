"""What a node is: the backend's word where it knows, else the agent's own."""

from __future__ import annotations

from kabench.backends.base import AgentEndpoint, Node
from kabench.clock import ManualClock
from kabench.controller.crew import Crew, Member
from kabench.controller.link import AgentLink, ClockOffset
from kabench.wire.messages import PROTOCOL, Hello


def member(node: str, boot_id: str, *cpus: int) -> Member:
    link = AgentLink(AgentEndpoint(node, "http://nowhere.invalid", "t"), ManualClock())
    return Member(link, Hello(PROTOCOL, "i", node, boot_id, cpus, 0, 0, "timerfd"), ClockOffset(0, 0))


def test_agents_tell_cpus_and_machine_where_the_backend_does_not_know_them() -> None:
    crew = Crew(ManualClock())
    crew.members = {"a": member("a", "agent's", 2, 3), "b": member("b", "agent's", 4)}
    known = Node("b", 1000, 1, frozenset({7}), "backend's")
    crew.survey([Node("a", 1000, 1), known, Node("silent", 1000, 1)])
    assert crew.nodes == (
        Node("a", 1000, 1, frozenset({2, 3}), "agent's"),
        known,
        Node("silent", 1000, 1),
    )
