"""Whether a block counts, by whose fault something went wrong.

What is the generator's or the environment's fault voids the whole block, for every arm alike: to drop the bad rounds of
one arm would bias the ratio. What is the target's fault (time-outs, errors, requests skipped because too many were in
flight, a target that ended) is a result and stays. The gates are absolute, the same for every arm, and nothing here
reads a target's response or service time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kabench.core.result import AgentWindow, BlockRecord, RoundRecord, VoidReason
from kabench.core.spec import NS_PER_MS, Gates

CODES: Mapping[str, str] = {
    "interrupted": "The run ended before the block was whole.",
    "round-failed": "A round could not be carried out, so its arm was not measured.",
    "missing-phase": "A phase of the scenario has no round in the block.",
    "missing-agent": "An agent that should have measured did not report.",
    "unsealed-log": "An agent's log was cut before its window had ended.",
    "unreconciled": "An agent's counts do not add up, so requests were lost in the instrument.",
    "not-sent": "An agent sent less of its plan than the gate asks, for reasons of its own.",
    "lag": "A quiet agent was late at sending by more than the gate allows.",
    "agent-ended": "An agent's process ended in the round.",
    "noise-ended": "A stressor ended before its time, so the arms of the block did not meet the same noise.",
    "strangers": "Processes that are not ours used more of a quiet CPU than the gate allows.",
    "machine-changed": "A node started anew (its boot id changed), so the block spans two conditions.",
}
"""What may void a block, one sentence each."""


def judge(
    block: BlockRecord,
    rounds: Sequence[RoundRecord],
    gates: Gates,
    expected_phases: Sequence[str],
    expected_agents: Sequence[str],
    boot_ids: Sequence[Mapping[str, str]] = (),
) -> list[VoidReason]:
    """Every reason against `block`, in the order of its rounds; none: the block is valid.

    Lag is held against agents on quiet nodes only, because those make the headline. An agent beside the noise is late
    by nature, and shows it in its own cells. Where no node is quiet, no lag can void the block: it then carries no
    headline either, which the comparison says. A share of the CPUs that could not be read voids nothing.

    Args:
        block: its roles tell which agents are quiet.
        rounds: the rounds of this block that ended.
        gates: the limits; None sets none.
        expected_phases: all phases that it should have measured.
        expected_agents: all agents that should have reported in every round.
        boot_ids: boot id by node, each time it was read during the block.
    """
    reasons = [
        reason for record in rounds for reason in _round_reasons(block, record, gates, expected_agents)
    ]
    if not reasons:  # a round that is void ends its block: that the others are missing is a consequence
        measured = {record.phase for record in rounds}
        reasons += [
            VoidReason("missing-phase", phase, f"{phase} was not measured in block {block.block}")
            for phase in expected_phases
            if phase not in measured
        ]
    return reasons + list(_restarted(boot_ids))


def _round_reasons(
    block: BlockRecord, record: RoundRecord, gates: Gates, expected_agents: Sequence[str]
) -> Iterator[VoidReason]:
    if record.error:
        yield VoidReason("round-failed", record.phase, record.error)
    for casualty in record.casualties:
        if casualty.get("role") in ("agent", "noise"):
            detail = f"{casualty.get('name', '?')} on {casualty.get('node', '?')}: {casualty.get('reason', 'ended')}"
            yield VoidReason(f"{casualty['role']}-ended", record.phase, detail)
    agents = {agent.agent: agent for agent in record.agents}
    for name in expected_agents:
        agent = agents.get(name)
        if agent is None or agent.status == "missing":
            if not record.error:
                yield VoidReason("missing-agent", record.phase, f"{name} did not report")
        elif agent.status != "sealed":
            yield VoidReason("unsealed-log", record.phase, f"{name}: the log was cut")
        else:
            yield from _agent_reasons(record.phase, agent, gates, quiet=block.roles.get(name) == "quiet")
    allowed = gates.strangers_cpu_share
    for cpu, share in sorted((record.strangers_cpu_share or {}).items()):
        if allowed is not None and share > allowed:
            limit = f"{allowed:.0%} allowed"
            yield VoidReason("strangers", record.phase, f"CPU {cpu}: {share:.0%} used by others ({limit})")


def _agent_reasons(phase: str, agent: AgentWindow, gates: Gates, *, quiet: bool) -> Iterator[VoidReason]:
    counts = agent.outcomes
    if not counts.reconciled:
        detail = (
            f"{agent.agent}: planned {counts.planned} = sent {counts.sent} + skipped {counts.skipped}, and sent = "
            f"ok {counts.ok} + error {counts.error} + time-out {counts.timeout} do not both hold"
        )
        yield VoidReason("unreconciled", phase, detail)
    due = counts.planned - counts.skipped  # what was skipped is the target's back-pressure
    if gates.sent_ratio is not None and counts.sent < gates.sent_ratio * due:
        yield VoidReason("not-sent", phase, f"{agent.agent}: sent {counts.sent} of {due}")
    allowed_ms = gates.quiet_lag_p99_ms
    if quiet and counts.planned and allowed_ms is not None:
        limit = f"{allowed_ms:g} ms allowed"
        if agent.lag_p99_ns is None:
            yield VoidReason("lag", phase, f"{agent.agent}: no lag was recorded")
        elif agent.lag_p99_ns > allowed_ms * NS_PER_MS:
            lag_ms = agent.lag_p99_ns / NS_PER_MS
            yield VoidReason("lag", phase, f"{agent.agent}: lag p99 {lag_ms:.2f} ms ({limit})")


def _restarted(boot_ids: Sequence[Mapping[str, str]]) -> Iterator[VoidReason]:
    seen: dict[str, str] = {}
    for reading in boot_ids:
        for node, boot_id in sorted(reading.items()):
            if seen.setdefault(node, boot_id) != boot_id:
                yield VoidReason("machine-changed", "", f"{node} started anew")
                seen[node] = boot_id
