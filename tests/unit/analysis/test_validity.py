"""Each reason that voids a block, and each fault of a target that must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from kabench.analysis.validity import CODES, judge
from kabench.core.identity import Outcomes
from kabench.core.result import AgentWindow, BlockRecord, RoundRecord
from kabench.core.spec import Gates

GATES = Gates()
PHASES = ["default", "contention-aware"]
ROLES = {"node-1": "noisy", "node-2": "shared", "node-3": "quiet"}
BLOCK = BlockRecord(4, PHASES, ["node-1"], ROLES)


def agent(name: str) -> AgentWindow:
    lag_ns = 200_000 if ROLES[name] == "quiet" else 4_000_000
    return AgentWindow(name, "sealed", ROLES[name], Outcomes(1000, 1000, 1000), lag_p99_ns=lag_ns)


def rounds() -> list[RoundRecord]:
    return [
        RoundRecord(f"004-{p}", 4, p, agents=[agent(n) for n in ROLES], strangers_cpu_share={"1": 0.1})
        for p in PHASES
    ]


def codes(records: list[RoundRecord], gates: Gates = GATES) -> list[tuple[str, str]]:
    reasons = judge(BLOCK, records, gates, PHASES, sorted(ROLES))
    assert all(reason.code in CODES and reason.detail for reason in reasons)
    return [(reason.code, reason.phase) for reason in reasons]


def changed(name: str, change: Callable[[AgentWindow], AgentWindow]) -> list[RoundRecord]:
    first, second = rounds()
    agents = [change(a) if a.agent == name else a for a in second.agents]
    return [first, replace(second, agents=agents)]


def counted(*counts: int, **classes: int) -> Callable[[AgentWindow], AgentWindow]:
    return lambda window: replace(window, outcomes=Outcomes(*counts, errors=classes))


def test_a_clean_block_is_valid() -> None:
    assert codes(rounds()) == []


B = "contention-aware"


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("node-3", lambda a: replace(a, lag_p99_ns=500_001), ["lag"]),
        ("node-3", lambda a: replace(a, lag_p99_ns=500_000), []),
        ("node-3", lambda a: replace(a, lag_p99_ns=None), ["lag"]),
        ("node-2", lambda a: replace(a, lag_p99_ns=9_000_000), []),
        ("node-1", lambda a: replace(a, status="missing"), ["missing-agent"]),
        ("node-1", lambda a: replace(a, status="unsealed", outcomes=Outcomes(9, 8, 7)), ["unsealed-log"]),
        ("node-1", counted(1000, 1000, 999), ["unreconciled"]),
        ("node-1", counted(1000, 989, 989), ["unreconciled", "not-sent"]),
        ("node-1", counted(1000, 990, 990), ["unreconciled"]),
        ("node-1", counted(1000, 1000, 990, 10, reset=9), ["unreconciled"]),
    ],
)
def test_the_generators_fault_voids(
    name: str, change: Callable[[AgentWindow], AgentWindow], expected: list[str]
) -> None:
    assert codes(changed(name, change)) == [(code, B) for code in expected]


@pytest.mark.parametrize(
    "change",
    [
        counted(1000, 1000, 0, 0, 1000),
        counted(1000, 1000, 0, 1000, connect=1000),
        counted(1000, 100, 100, 0, 0, 900),
        counted(1000, 0, 0, 0, 0, 1000),
    ],
    ids=["time-outs", "errors", "skipped", "all skipped"],
)
def test_the_targets_fault_does_not(change: Callable[[AgentWindow], AgentWindow]) -> None:
    assert codes(changed("node-3", change)) == []


@pytest.mark.parametrize(
    ("role", "expected"), [("target", []), ("agent", [("agent-ended", B)]), ("noise", [("noise-ended", B)])]
)
def test_casualties_by_their_role(role: str, expected: list[tuple[str, str]]) -> None:
    first, second = rounds()
    casualty = {"role": role, "name": "it", "node": "node-3", "at_ns": 1, "reason": "signal 9"}
    assert codes([first, replace(second, casualties=[casualty])]) == expected


def test_an_agent_that_is_not_even_listed_is_missing() -> None:
    first, second = rounds()
    assert codes([first, replace(second, agents=second.agents[1:])]) == [("missing-agent", B)]


def test_a_phase_without_a_round_is_missing() -> None:
    assert codes(rounds()[:1]) == [("missing-phase", B)]


def test_a_void_round_is_the_one_reason_that_a_block_ended_early() -> None:
    first, _ = rounds()
    late = [replace(agent, lag_p99_ns=9_000_000) for agent in first.agents]
    assert {code for code, _ in codes([replace(first, agents=late)])} == {"lag"}


def test_a_failed_round_is_the_one_reason_for_what_follows_from_it() -> None:
    failed = RoundRecord("004-default", 4, "default", error="redis-0 did not get ready in 10 s")
    assert codes([failed]) == [("round-failed", "default")]


@pytest.mark.parametrize(
    ("share", "expected"),
    [({"1": 0.15}, []), ({"0": 0.01, "1": 0.16}, [("strangers", "default")]), (None, [])],
)
def test_strangers_on_quiet_cpus(share: dict[str, float] | None, expected: list[tuple[str, str]]) -> None:
    first, second = rounds()
    assert codes([replace(first, strangers_cpu_share=share), second]) == expected


def test_gates_are_the_scenarios() -> None:
    strict = Gates(quiet_lag_p99_ms=0.1, strangers_cpu_share=0.05)
    assert {code for code, _ in codes(rounds(), strict)} == {"lag", "strangers"}


def test_without_a_quiet_node_no_lag_voids() -> None:
    block = replace(BLOCK, roles=dict.fromkeys(ROLES, "shared"))
    late = changed("node-3", lambda a: replace(a, lag_p99_ns=90_000_000))
    assert judge(block, late, GATES, PHASES, sorted(ROLES)) == []


def test_a_node_that_started_anew_voids_the_block() -> None:
    readings = [
        {"node-1": "a", "node-2": "a"},
        {"node-1": "a", "node-2": "b"},
        {"node-1": "a", "node-2": "b"},
    ]
    [reason] = judge(BLOCK, rounds(), GATES, PHASES, sorted(ROLES), readings)
    assert (reason.code, reason.phase, reason.detail) == ("machine-changed", "", "node-2 started anew")


def test_of_a_gate_that_is_null_nothing_is_asked() -> None:
    late = changed("node-3", lambda found: replace(found, lag_p99_ns=900_000_000))
    late[0] = replace(late[0], strangers_cpu_share={"1": 1.0})
    assert {code for code, _ in codes(late)} == {"lag", "strangers"}
    none = Gates(quiet_lag_p99_ms=None, strangers_cpu_share=None, sent_ratio=None)
    assert codes(late, none) == []
    lazy = changed("node-3", lambda found: replace(found, outcomes=Outcomes(1000, 0, 0)))
    assert codes(lazy, none) == [("unreconciled", B)]
