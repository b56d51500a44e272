"""What a run would apply: read as kubectl reads it, and asked of a server that refuses some of it."""

from __future__ import annotations

from typing import Any, cast

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.naming import ROLE, TARGET
from kabench.backends.kubernetes.refusals import Refused
from kabench.backends.kubernetes.rendering import TOKEN, as_yaml, asked, example_objects
from kabench.core.scenario import KUBERNETES_ARMS, load_scenario, override, with_arms
from kabench.core.spec import Scenario
from kabench.errors import SpecError
from kabench.scenarios import built_in


def seed() -> Scenario:
    return with_arms(load_scenario(built_in("seed"), "seed.yaml"), KUBERNETES_ARMS)


class Server:
    """Answers as `Cluster` does: keeps nothing, and refuses what it was told to."""

    def __init__(self, namespaces: set[str], refuse: str = "") -> None:
        self.namespaces, self.refuse = namespaces, refuse
        self.seen: list[dict[str, Any]] = []

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return {"metadata": {"name": name}} if kind == "Namespace" and name in self.namespaces else None

    async def apply(self, wanted: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        assert dry_run
        self.seen.append(wanted)
        if wanted["kind"] == self.refuse:
            raise Refused(403, "no", f"{self.refuse} is refused")
        return wanted


async def ask(server: Server, objects: list[dict[str, Any]]) -> list[str]:
    return [refusal async for _, refusal in asked(cast(Cluster, server), objects)]


def bound_to(pod: dict[str, Any]) -> list[str]:
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    found: list[str] = required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"]
    return found


def test_the_yaml_is_what_the_objects_are_and_has_no_anchors() -> None:
    objects = example_objects(seed())
    text = as_yaml(objects)
    assert list(YAML(typ="safe", pure=True).load_all(text)) == objects
    assert text.startswith("# An example")
    assert "&" not in text.replace("sleep infinity & wait", "")
    for one in objects:
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_every_phase_has_its_round_and_pins_their_nodes() -> None:
    objects = example_objects(seed())
    targets = [one for one in objects if one["kind"] == "Pod" and one["metadata"]["labels"][ROLE] == TARGET]
    assert len(targets) == 4 * 8
    every = [f"worker-{number}" for number in range(1, 7)]
    nodes = {one["metadata"]["name"].partition("-1-1-")[2]: bound_to(one) for one in targets}
    assert nodes.pop("") == every  # other replicas than the first
    assert nodes == {
        "default": every,
        "oracle-quiet": every[2:],
        "oracle-noisy": every[:2],
        "default-again": every,
    }


def test_no_token_is_shown_and_workers_sort_by_number() -> None:
    text = as_yaml(example_objects(override(seed(), agents=12)))
    assert "worker-01" in text
    assert "worker-12" in text
    assert text.count("token: ") == 1
    assert TOKEN == "every-run-draws-its-own"


def test_what_no_cluster_can_do_is_not_rendered() -> None:
    with pytest.raises(SpecError, match="policy is of the local backend"):
        example_objects(override(seed(), phases=["p=policy:default"]))


@pytest.mark.parametrize(
    ("there", "namespace"), [({"kabench-system", "default"}, "kabench-system"), ({"default"}, "default")]
)
async def test_objects_are_asked_about_in_a_namespace_that_is_there(there: set[str], namespace: str) -> None:
    objects = example_objects(seed())
    server = Server(there)
    assert await ask(server, objects) == [""] * len(objects)
    assert {one["metadata"].get("namespace") for one in server.seen} == {None, namespace}
    assert {one["metadata"].get("namespace") for one in objects} == {None, "kabench-example"}


async def test_a_refusal_is_told_and_the_others_are_asked_all_the_same() -> None:
    objects = example_objects(seed())
    answers = await ask(Server({"default"}, refuse="DaemonSet"), objects)
    assert [answer for answer in answers if answer] == ["DaemonSet is refused"]
    assert answers[[one["kind"] for one in objects].index("DaemonSet")]
