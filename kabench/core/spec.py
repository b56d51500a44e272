"""The scenario: one benchmark, described whole. Pure: text and flags come in, checked models go out.

The agent does not import this module (pydantic stays out of its image).
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.json_schema import SkipJsonSchema

from kabench import __version__
from kabench.core.identity import NULL_TARGET, Kind

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
PolicyName = Literal["default", "contention-aware"]
StressorKind = Literal["stress-cache", "stress-membw", "stress-cpu", "own"]
OWN = "own"
"""A stressor that is the user's: a pod of theirs."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Requests(_Model):
    """What a pod requests, as a scheduler sees it. Never a limit."""

    cpu_millis: int = Field(
        default=100, ge=0, le=1_000_000, description="CPU request in thousandths of a core"
    )
    memory_mib: int = Field(default=64, ge=0, le=1_048_576, description="memory request in MiB")


class Phase(_Model):
    """One arm of the comparison: exactly one of `policy` (local), `scheduler` (Kubernetes) and `pin` (both)."""

    name: Name
    policy: PolicyName | None = Field(default=None, description="placement policy of the local backend")
    scheduler: str | None = Field(default=None, min_length=1, description="schedulerName on Kubernetes")
    pin: Literal["quiet", "noisy"] | None = Field(
        default=None, description="oracle arm: all targets on such nodes"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Phase:
        if sum(way is not None for way in (self.policy, self.scheduler, self.pin)) != 1:
            raise ValueError("give exactly one of policy, scheduler, pin")
        return self

    @property
    def way(self) -> str:
        """`policy:default`, `scheduler:mine`, `pin:quiet`: equal ways make an A/A pair."""
        for kind in ("policy", "scheduler", "pin"):
            value = getattr(self, kind)
            if value is not None:
                return f"{kind}:{value}"
        raise AssertionError("validated")


class Slo(_Model):
    """The promise a target makes."""

    p99_ms: float = Field(gt=0, description="99% of the responses within so many milliseconds")


class RedisWork(_Model):
    """GET/SET over a key space."""

    keys: int = Field(default=1000, ge=1, le=1_000_000)
    value_bytes: int = Field(default=64, ge=1, le=1_048_576)
    get_ratio: float = Field(default=0.9, ge=0, le=1)


class HttpWork(_Model):
    """Requests of the HTTP echo."""

    path: str = Field(default="/", pattern=r"^/[!-~]*$")
    body_bytes: int = Field(default=0, ge=0, le=1_048_576)
    cpu_us: int = Field(
        default=0, ge=0, le=100_000, description="CPU time that the echo burns for each request"
    )


class OwnPod(_Model):
    """A pod of the user's own, on Kubernetes: the manifest says what runs, kabench where and under which scheduler."""

    manifest: str = Field(
        min_length=1,
        description="a file with one Pod, Deployment or (noise) Job; its path from the scenario's folder",
    )
    # Labels, annotations and spec of the manifest's pod. It is put in when the scenario is read from its file, so that
    # results and resumed runs hold it; files do not give it.
    template: SkipJsonSchema[dict[str, Any]] = {}


class TargetPod(OwnPod):
    """A target of the user's own, and where it listens."""

    port: int = Field(ge=1, le=65535, description="where the protocol of the target's kind is spoken")


class Target(_Model):
    """A workload under test: `replicas` pods of one kind, placed afresh in every round.

    `pod` makes it the user's own; `requests` are its manifest's then.
    """

    name: Name
    kind: Literal[Kind.REDIS, Kind.HTTP]
    replicas: int = Field(default=4, ge=1, le=1000)
    requests: Requests = Requests()
    slo: Slo | None = None
    redis: RedisWork = RedisWork()
    http: HttpWork = HttpWork()
    pod: TargetPod | None = Field(
        default=None, description="a workload of your own instead of the built-in one"
    )

    @model_validator(mode="after")
    def _not_reserved(self) -> Target:
        if self.name == NULL_TARGET:
            raise ValueError(f"{NULL_TARGET!r} is the agents' own")
        return self


class Stressor(_Model):
    """One pod of noise on every noisy node; decoys request the same on the other nodes.

    Kind `own` is a pod of the user's: it has a name, and its manifest's requests; `workers` then say nothing.
    """

    kind: StressorKind
    workers: int = Field(default=1, ge=1, le=8)
    requests: Requests = Requests(cpu_millis=500, memory_mib=128)
    name: Name | None = Field(default=None, description="of a stressor of kind own")
    pod: OwnPod | None = Field(default=None, description="of a stressor of kind own")

    @model_validator(mode="after")
    def _own_or_built_in(self) -> Stressor:
        given = [self.name is not None, self.pod is not None]
        if self.kind == OWN and not all(given):
            raise ValueError("kind own needs a name and a pod: {manifest: FILE}")
        if self.kind != OWN and any(given):
            raise ValueError(f"name and pod are of kind own; leave them out, or the kind {self.kind}")
        if self.name in get_args(StressorKind):
            raise ValueError(f"the name {self.name!r} is that of a built-in stressor; give another")
        return self

    @property
    def label(self) -> str:
        """What its work is counted under."""
        return self.name or self.kind


class Noise(_Model):
    """The noisy neighbours; which nodes they are on is drawn anew for every block. `nodes: 0` leaves them out."""

    nodes: int = Field(default=2, ge=0)
    stressors: tuple[Stressor, ...] = (Stressor(kind="stress-cache"), Stressor(kind="stress-membw"))

    @model_validator(mode="after")
    def _own_names_differ(self) -> Noise:
        names = [stressor.name for stressor in self.stressors if stressor.name is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the name {twice[0]!r} stands twice")
        return self


class Load(_Model):
    """What the agents ask of the targets together."""

    arrivals: Literal["poisson", "constant"] = "poisson"
    rate_per_s: float = Field(default=2400, gt=0, le=1_000_000, description="in all, over agents and targets")
    connections: int = Field(default=1, ge=1, le=256, description="of each agent to each target")
    pipeline: int = Field(default=1, ge=1, le=64, description="requests in flight on one connection (Redis)")
    max_in_flight: int = Field(
        default=1024, ge=1, le=65536, description="of one agent; what is due beyond it is skipped"
    )
    timeout_ms: float = Field(default=1000, gt=0, le=30_000)
    null_rate_per_s: float = Field(default=50, ge=0, le=10_000, description="of each agent at its null echo")


class Images(_Model):
    """What runs on a cluster's nodes. Names are pinned; the results say which digests answered to them."""

    agent: str = Field(
        default=f"kabench-agent:{__version__}", min_length=1, description="agent, echo, null echo, decoys"
    )
    noise: str = Field(default=f"kabench-noise:{__version__}", min_length=1, description="stress-ng")
    redis: str = Field(default="redis:7.4.2", min_length=1)


class Kubernetes(_Model):
    """What only a run on Kubernetes needs."""

    images: Images = Images()
    pull_policy: Literal["IfNotPresent", "Never", "Always"] = "IfNotPresent"
    agent_requests: Requests = Requests(cpu_millis=100, memory_mib=192)


class Blocks(_Model):
    """How often every phase is measured."""

    planned: int = Field(default=8, ge=1, le=1000)
    reserve: int = Field(default=2, ge=0, le=1000, description="blocks that may replace void ones")


class Timing(_Model):
    """The one warm-up and window that hold for all phases."""

    window_s: float = Field(default=5, ge=0.5, le=600)
    warm_up_s: float = Field(default=1, ge=0, le=60)
    ready_timeout_s: float = Field(default=10, gt=0, le=600)
    budget_s: float | None = Field(
        default=None, gt=0, description="no reserve block starts that would end after it"
    )


class Gates(_Model):
    """What voids a block: about the generator and the environment, equal for all arms, blind to the outcome."""

    quiet_lag_p99_ms: float = Field(default=0.5, gt=0)
    strangers_cpu_share: float = Field(default=0.15, gt=0, le=1)
    sent_ratio: float = Field(default=0.99, gt=0, le=1)
    equivalence_margin: float = Field(
        default=0.10, gt=0, lt=1, description="ratios within 1/(1+m) … 1+m are equivalent"
    )


class Scenario(_Model):
    """A benchmark. Phase 1 is the baseline (A), phase 2 the candidate (B)."""

    name: Name
    seed: int = Field(default=1, ge=0, lt=2**63)
    agents: int = Field(default=6, ge=1, le=1000)
    phases: tuple[Phase, ...] = Field(min_length=1)
    targets: tuple[Target, ...] = Field(min_length=1)
    noise: Noise = Noise()
    load: Load = Load()
    blocks: Blocks = Blocks()
    timing: Timing = Timing()
    gates: Gates = Gates()
    kubernetes: Kubernetes = Kubernetes()

    @model_validator(mode="after")
    def _names_differ(self) -> Scenario:
        for what, names in (
            ("phases", [p.name for p in self.phases]),
            ("targets", [t.name for t in self.targets]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}: the name {twice[0]!r} stands twice")
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what may not differ between merged runs: all but the seed, the number of blocks and the budget."""
        content = self.model_dump(mode="json", exclude={"seed": True, "blocks": True, "timing": {"budget_s"}})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
