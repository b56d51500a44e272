"""Whether a run could start: every check of a cluster in turn, told as it is made. The trial calls agents as a run does."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from kabench.backends.base import Node
from kabench.backends.kubernetes.access import Access
from kabench.backends.kubernetes.api import Cluster, open_cluster
from kabench.backends.kubernetes.doctor import (
    Finding,
    Group,
    context_finding,
    images_finding,
    images_of,
    metrics_finding,
    rights_finding,
    runs_finding,
    separation_finding,
    some,
    workers_finding,
)
from kabench.backends.kubernetes.holding import find_runs
from kabench.backends.kubernetes.objects import RunSetup, check_scenario, schedulers
from kabench.backends.kubernetes.preflight import choose_workers
from kabench.backends.kubernetes.trial import Trial, round_pods, trial
from kabench.backends.kubernetes.workers import Worker
from kabench.clock import SystemClock
from kabench.controller.crew import Crew, sharing
from kabench.core.spec import NS_PER_S, Scenario
from kabench.errors import KabenchError

LASTS = timedelta(minutes=5)
"""The trial's namespace expires so long after its start: should we be killed, `kabench clean --expired` removes it."""
NS_PER_MS = 1_000_000

Tell = Callable[[Finding], None]


async def check_up(access: Access, scenario: Scenario, more_schedulers: Sequence[str], tell: Tell) -> None:
    """Check the cluster for a run of `scenario`, and tell each finding; what fails is a finding too.

    Args:
        access: which cluster.
        scenario: what is to run.
        more_schedulers: names that must answer beside the scenario's own.
        tell: called with every finding as it is made.

    Raises:
        SpecError: there is no such context, it is not allowed, or no cluster can do what the scenario asks.
    """
    check_scenario(scenario)
    async with open_cluster(access) as cluster:
        tell(context_finding(cluster.context))
        try:
            await _check(cluster, access, scenario, more_schedulers, tell)
        except KabenchError as error:
            tell(Finding("cluster", "problem", str(error)))


async def _check(
    cluster: Cluster, access: Access, scenario: Scenario, more_schedulers: Sequence[str], tell: Tell
) -> None:
    clock = SystemClock()
    told: list[Finding] = []

    def note(finding: Finding) -> None:
        told.append(finding)
        tell(finding)

    note(Finding("API server", "ok", f"{await cluster.version()} answers"))
    note(await rights_finding(cluster))
    nodes = await cluster.list("Node")
    note(workers_finding(nodes, scenario.agents))
    runs = await find_runs(cluster)
    note(runs_finding(runs, clock.realtime_ns(), alongside=access.alongside))
    note(metrics_finding(await cluster.groups()))
    if any(finding.level == "problem" for finding in told):
        text = "no pods were started: a run could not start as it is"
        note(Finding("trial", "note", text))
        return
    workers = await choose_workers(cluster, scenario.agents, scenario.seed, None)
    setup = _setup(scenario, workers, clock.realtime_ns())
    note(images_finding(nodes, images_of(round_pods(setup)), scenario.kubernetes.pull_policy))
    names = tuple(dict.fromkeys([*schedulers(scenario), *more_schedulers]))
    async with trial(cluster, setup, workers, names, access.transport, clock) as tried:
        for finding in tried.findings:
            note(finding)
        if tried.endpoints:
            for finding in await _call(tried, scenario, access.transport):
                note(finding)
    note(Finding("clean-up", "ok", f"the trial's namespace {setup.namespace} is gone"))


def _setup(scenario: Scenario, workers: Sequence[Worker], now_ns: int) -> RunSetup:
    """A run that only starts."""
    expires = datetime.fromtimestamp(now_ns / NS_PER_S, UTC) + LASTS
    return RunSetup(
        run=f"doctor-{secrets.token_hex(3)}",
        scenario=scenario,
        token=secrets.token_urlsafe(32),
        nodes=tuple(sorted(worker.hostname for worker in workers)),
        expires=expires.isoformat(timespec="seconds"),
    )


async def _call(tried: Trial, scenario: Scenario, transport: str) -> list[Finding]:
    """Say hello to every agent, and see which CPUs they say they have."""
    crew = Crew(SystemClock())
    try:
        failures = await crew.join(tried.endpoints)
        crew.survey(tried.nodes)
        findings = [_way(crew, {node: str(error) for node, error in failures.items()}, transport)]
        if not failures:
            findings.append(separation_finding(_groups(crew.nodes), scenario.noise.nodes))
        return findings
    finally:
        await crew.close()


def _way(crew: Crew, failures: dict[str, str], transport: str) -> Finding:
    """Whether the way to the agents works, and how long it takes there and back."""
    through = "through the API server's proxy" if transport == "proxy" else "at their pods' addresses"
    if failures:
        node, reason = next(iter(failures.items()))
        return Finding(
            "agents' API",
            "problem",
            f"{len(failures)} agents do not answer {through} ({some(list(failures))}); {node}: {reason}",
            "see what stands between: network policies, webhooks, a proxy"
            if transport == "proxy"
            else "--transport direct is for controllers inside the cluster; leave it out",
        )
    slowest_ns = max(2 * member.offset.error_ns for member in crew.members.values())
    return Finding(
        "agents' API",
        "ok",
        f"{len(crew.members)} agents answer {through}, the slowest within {slowest_ns / NS_PER_MS:.1f} ms",
    )


def _groups(nodes: Sequence[Node]) -> list[Group]:
    found = [
        Group(
            tuple(node.name for node in group),
            frozenset[int]().union(*(node.cpus for node in group)),
            group[0].boot_id,
        )
        for group in sharing(nodes)
    ]
    return sorted(found)
