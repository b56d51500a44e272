"""Names, addresses and folders of the cluster. Pure, but for the places it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kabench.backends.simulation import slot_cpus

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "tests" / "cluster"
FOLDER = REPOSITORY / ".cluster"
CACHE = REPOSITORY / ".cache" / "cluster"
# Socket paths end after 107 bytes, and a checkout's path may be long.
RUN = Path("/run/kabench-cluster")
OWNER = RUN / "owner"
LOCK = Path("/run/kabench-cluster.lock")

KUBECONFIG = FOLDER / "kubeconfig"
PKI = FOLDER / "pki"
LOGS = FOLDER / "logs"
CONFIG = FOLDER / "config"
STATE = FOLDER / "state.json"
BEFORE = RUN / "before.json"  # what the machine was like: outside the checkout, which may be deleted

CONTEXT = "kabench-test"
WORKERS = 6
BRIDGE = "kabench0"
NAMESPACES = Path("/run/netns")
CONTROL_NAMESPACE = "kabench-control"
CGROUPS = "kabench-test-"
"""What our cgroups' names begin with."""

NETWORK = "10.201.0.0/16"  # all of the below; refused where the machine already has a route into it
BRIDGE_ADDRESS = "10.201.0.1"
CONTROL_ADDRESS = "10.201.0.2"
SERVICES = "10.201.200.0/24"
API_SERVICE_ADDRESS = "10.201.200.1"  # the API server's own, since no kube-proxy forwards it
API_PORT = 443  # the same as the Service's
API_URL = f"https://{CONTROL_ADDRESS}:{API_PORT}"


def cgroup(name: str) -> str:
    """The cgroup `name`, a folder at the top of each hierarchy.

    There is none above them all: a group's weight is divided over the CPUs by its load, so that noise on one CPU would take
    it from the pods on the other.
    """
    return f"{CGROUPS}{name}"


@dataclass(frozen=True)
class Worker:
    """One worker, by its number from 1."""

    number: int

    @property
    def name(self) -> str:
        """The node's name."""
        return f"worker-{self.number}"

    @property
    def address(self) -> str:
        """Its address on the bridge, which is the node's InternalIP."""
        return f"10.201.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        """The subnet of its pods."""
        return f"10.201.{100 + self.number}.0/24"

    @property
    def namespace(self) -> str:
        """Its network namespace."""
        return f"kabench-{self.name}"

    @property
    def link(self) -> str:
        """The host's end of its veth pair."""
        return f"kabench-w{self.number}"

    @property
    def folder(self) -> Path:
        """What it keeps on the disk."""
        return FOLDER / self.name

    @property
    def run(self) -> Path:
        """Its socket's folder."""
        return RUN / self.name

    @property
    def socket(self) -> Path:
        """Its containerd's socket."""
        return self.run / "containerd.sock"


def workers() -> list[Worker]:
    """All workers."""
    return [Worker(number) for number in range(1, WORKERS + 1)]


def cpu_sets(cpus: Sequence[int]) -> dict[str, frozenset[int]]:
    """The CPUs of each worker: contiguous shares, and neighbours share one CPU where there are fewer than workers."""
    return {worker.name: own for worker, own in zip(workers(), slot_cpus(cpus, WORKERS), strict=True)}
