"""What a run would apply, as an example to read, or to ask an API server about."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence

from ruamel.yaml import YAML

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.naming import SYSTEM_NAMESPACE
from kabench.backends.kubernetes.objects import (
    RunSetup,
    check_scenario,
    decoy_pods,
    noise_pods,
    run_objects,
    scheduler_canary,
    schedulers,
    target_pods,
)
from kabench.backends.kubernetes.refusals import Refused
from kabench.core.identity import window_name
from kabench.core.spec import Phase, Scenario

RUN, TOKEN, EXPIRES = "example", "every-run-draws-its-own", "2026-01-01T00:00:00Z"
HEADER = "# An example: the run, the token, the time and the workers' names are made up.\n"
BLOCK = 1
NOISE_S = 60


def example_objects(scenario: Scenario) -> list[Object]:
    """What a run of `scenario` applies on workers `worker-1` and so on: what stays, and each phase's round of one block.

    Raises:
        SpecError: no cluster can do what the scenario asks.
    """
    check_scenario(scenario)
    nodes = tuple(f"worker-{number:0{len(str(scenario.agents))}}" for number in range(1, scenario.agents + 1))
    setup = RunSetup(RUN, scenario, TOKEN, nodes, EXPIRES)
    loud, quiet = nodes[: scenario.noise.nodes], nodes[scenario.noise.nodes :]
    found = [*run_objects(setup), *(scheduler_canary(setup, name) for name in schedulers(scenario))]
    for phase in scenario.phases:
        window = window_name(BLOCK, phase.name)
        found += noise_pods(setup, loud, NOISE_S, window)
        found += decoy_pods(setup, quiet if loud else (), NOISE_S, window)
        found += target_pods(setup, phase, BLOCK, _candidates(phase, loud, quiet))
    return found


def as_yaml(objects: Sequence[Object]) -> str:
    """The objects as kubectl reads them, each a document."""
    yaml = YAML()
    yaml.width = 120
    text = io.StringIO()
    yaml.dump_all(objects, text)
    return HEADER + text.getvalue()


async def asked(cluster: Cluster, objects: Sequence[Object]) -> AsyncIterator[tuple[Object, str]]:
    """Have the API server check the objects without keeping any; each with what it says, "" where it agrees.

    An object is checked in a namespace that is there: the run's own is not. That is the controller's, where Pod Security is
    as in a run's, or else `default`.

    Raises:
        ClusterError: the server does not answer.
    """
    namespace = SYSTEM_NAMESPACE if await cluster.get("Namespace", SYSTEM_NAMESPACE) else "default"
    for one in objects:
        metadata = one["metadata"]
        moved = {**metadata, "namespace": namespace} if "namespace" in metadata else metadata
        try:
            await cluster.apply({**one, "metadata": moved}, dry_run=True)
        except Refused as error:
            yield one, str(error)
        else:
            yield one, ""


def _candidates(phase: Phase, loud: Sequence[str], quiet: Sequence[str]) -> Sequence[str]:
    if phase.pin is None:
        return [*loud, *quiet]
    return loud if phase.pin == "noisy" else quiet
