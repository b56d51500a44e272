"""Where a phase's targets may go."""

from __future__ import annotations

import pytest

from kabench.backends.base import Node
from kabench.backends.pins import nodes_for
from kabench.core.spec import Phase
from kabench.errors import ClusterError

ONE_MACHINE = [Node(f"n{index}", 1000, 1, frozenset([index // 2]), "boot") for index in range(4)]
MACHINES = [Node(f"n{index}", 1000, 1, frozenset([0]), f"boot-{index}") for index in range(3)]
ROLES = {"n0": "noisy", "n1": "shared", "n2": "quiet", "n3": "quiet"}


def test_a_scheduler_gets_all_nodes_and_a_pin_those_of_its_role() -> None:
    assert nodes_for(Phase(name="p", scheduler="s"), ONE_MACHINE, ROLES, ["n0"]) == ONE_MACHINE
    quiet = nodes_for(Phase(name="p", pin="quiet"), ONE_MACHINE, ROLES, ["n0"])
    assert [node.name for node in quiet] == ["n2", "n3"]
    noisy = nodes_for(Phase(name="p", pin="noisy"), ONE_MACHINE, ROLES, ["n0"])
    assert [node.name for node in noisy] == ["n0"]


def test_a_pin_without_nodes_says_why() -> None:
    loud = dict.fromkeys(ROLES, "noisy")
    with pytest.raises(
        ClusterError, match=r"none: every node shares a CPU with the noise on n0, n2 \(CPUs .* 0, 1\)"
    ):
        nodes_for(Phase(name="p", pin="quiet"), ONE_MACHINE, loud, ["n0", "n2"])
    with pytest.raises(ClusterError, match="there are none beside n0, n1, n2"):
        nodes_for(Phase(name="p", pin="quiet"), MACHINES, loud, ["n0", "n1", "n2"])
    with pytest.raises(ClusterError, match="there is no noise"):
        nodes_for(Phase(name="p", pin="noisy"), MACHINES, dict.fromkeys(ROLES, "quiet"), [])
