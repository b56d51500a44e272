"""What the run's objects are called, and the labels by which they are found again. Pure."""

from __future__ import annotations

from collections.abc import Mapping

DOMAIN = "kabench.dev"
FIELD_MANAGER = "kabench"

MANAGED_BY = "app.kubernetes.io/managed-by"
RUN, ROLE, WORKLOAD, REPLICA, BLOCK, PHASE = (
    f"{DOMAIN}/{name}" for name in ("run", "role", "workload", "replica", "block", "phase")
)
EXPIRES = f"{DOMAIN}/expires"
"""Annotation of a run's namespace: the instant (RFC 3339, UTC) after which `kabench clean --expired` removes it."""

AGENT, TARGET, NOISE, DECOY, CANARY = ("agent", "target", "noise", "decoy", "canary")
"""Values of ROLE. None tells a node's role: noise and decoys are pods like any others to a scheduler."""

AGENTS = "kabench-agent"
"""The DaemonSet, and the container of the agent in its pods."""
TOKEN_SECRET, TOKEN_KEY = "kabench-token", "token"
QUOTA = "kabench"

AGENT_PORT, REDIS_PORT, HTTP_PORT = 7300, 6379, 8080

SYSTEM_NAMESPACE = "kabench-system"
CONTROLLER = "kabench-controller"
"""The service account, in SYSTEM_NAMESPACE, that has the rights a run needs; its cluster role and binding too."""

OUR_CONTEXTS = frozenset({"kind-kabench", "kabench-test"})
"""Clusters that this project makes itself; any other context must be allowed by its name."""
KIND_CONTEXT = "kind-kabench"


def namespace_of(run: str) -> str:
    """The namespace of a run."""
    return f"kabench-{run}"


def run_labels(run: str, role: str = "") -> dict[str, str]:
    """Labels of an object of `run`."""
    labels = {MANAGED_BY: "kabench", RUN: run}
    if role:
        labels[ROLE] = role
    return labels


def selector(labels: Mapping[str, str]) -> str:
    """A label selector that all of `labels` must match."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
