"""The scenario: one benchmark, described whole. Pure: text and flags come in, checked models go out.

The agent does not import this module (pydantic stays out of its image).
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    StringConstraints,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from kabench import __version__
from kabench.core.commands import ELEMENTS, arguments, known
from kabench.core.identity import NULL_TARGET, Kind

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
PolicyName = Literal["default", "contention-aware"]
StressorKind = Literal["stress-cache", "stress-membw", "stress-cpu", "own"]
WAYS = ("policy", "scheduler", "pin", "standing")
"""How a phase can say where its targets go."""
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
    """One arm: exactly one of `policy` (local), `scheduler` (Kubernetes), `pin` (both) and `standing`."""

    name: Name
    policy: PolicyName | None = Field(default=None, description="placement policy of the local backend")
    scheduler: str | None = Field(default=None, min_length=1, description="schedulerName on Kubernetes")
    pin: Literal["quiet", "noisy"] | None = Field(
        default=None, description="oracle arm: all targets on such nodes"
    )
    standing: Literal["given"] | None = Field(
        default=None, description="nothing is placed: every target stands at its address already"
    )
    rate_per_s: float | None = Field(
        default=None,
        gt=0,
        le=10_000_000,
        description="of a standing phase: in place of load.rate_per_s",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Phase:
        if sum(getattr(self, kind) is not None for kind in WAYS) != 1:
            raise ValueError(f"give exactly one of {', '.join(WAYS)}")
        if self.rate_per_s is not None and self.standing is None:
            raise ValueError("rate_per_s is of a standing phase: arms that are compared meet the same load")
        return self

    @property
    def way(self) -> str:
        """`policy:default`, `scheduler:mine`, `pin:quiet`: equal ways make an A/A pair."""
        for kind in WAYS:
            value = getattr(self, kind)
            if value is not None:
                return f"{kind}:{value}"
        raise AssertionError("validated")


class Slo(_Model):
    """The promise a target makes."""

    p99_ms: float = Field(gt=0, description="99% of the responses within so many milliseconds")


HIDDEN = "**********"
"""What stands for a secret wherever a scenario is written down."""
REVEAL = {"reveal": True}
"""The context in which a dump has secrets: for what stays in memory."""


def _hide(value: SecretStr, info: SerializationInfo) -> str:
    return value.get_secret_value() if info.context == REVEAL else HIDDEN


Secret = Annotated[SecretStr, PlainSerializer(_hide, return_type=str)]
Weight = Annotated[float, Field(ge=0)]


def _weights(what: str) -> AfterValidator:
    """At least one choice, and one that is chosen."""

    def check(weights: dict[str, float]) -> dict[str, float]:
        if not any(weights.values()):
            raise ValueError(f"no {what} has a weight above 0")
        return weights

    return AfterValidator(check)


class RedisWork(_Model):
    """Commands on a key space of so many strings, counters, lists and hashes each, by relative weight.

    A command is one of `commands.COMMANDS`, or a text with `__key__` and `__data__` in it.
    """

    mix: Annotated[dict[str, Weight], _weights("command")] = Field(
        default={"get": 9.0, "set": 1.0}, description="commands, each with its weight"
    )
    keys: int = Field(default=1000, ge=1, le=10_000_000)
    key_distribution: Literal["uniform", "zipf"] = "uniform"
    value_bytes: int = Field(default=64, ge=0, le=1_048_576)
    fill: bool = Field(
        default=True, description="write what reads ask for beforehand; without it, nil is no error"
    )
    user: str | None = None
    password: Secret | None = None
    database: int = Field(default=0, ge=0)
    resp: Literal[2, 3] = Field(default=2, description="version of the protocol")

    @field_validator("mix")
    @classmethod
    def _names(cls, mix: dict[str, float]) -> dict[str, float]:
        """Commands known by name in one spelling, texts that are commands."""
        named: dict[str, float] = {}
        for text, weight in mix.items():
            name = known(text) or text
            if name == text:
                arguments(text)
            if name in named:
                raise ValueError(f"{name!r} stands twice")
            named[name] = weight
        return named

    @property
    def values_a_key(self) -> int:
        """How many values a key of the key space stands for, lists and hashes included."""
        lists, hashes = {"lpush", "lrange"} & self.mix.keys(), {"hset", "hgetall"} & self.mix.keys()
        return 1 + ELEMENTS * (bool(lists) + bool(hashes))

    @model_validator(mode="after")
    def _user_has_password(self) -> RedisWork:
        if self.user is not None and self.password is None:
            raise ValueError("a user without a password; give both, or the password alone")
        return self


HttpPath = Annotated[str, StringConstraints(pattern=r"^/[!-~]*$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[ \t!-~\u0080-\u00ff]*$")]
OUR_HEADERS = ("connection", "content-length", "transfer-encoding")
"""What follows from how a request is sent."""
SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token")


class HttpWork(_Model):
    """Requests, one at a time on a connection; which path one asks for is drawn by weight."""

    method: str | None = Field(
        default=None,
        pattern=r"^[A-Z]+$",
        description="GET where none is given, or POST where there is a body",
    )
    paths: Annotated[dict[HttpPath, Weight], _weights("path")] = Field(
        default={"/": 1.0}, description="paths, each with its weight"
    )
    headers: dict[HeaderName, HeaderValue] = {}
    body: str | None = Field(default=None, description="sent as UTF-8")
    body_base64: str | None = Field(default=None, description="a body that is no text")
    body_bytes: int = Field(default=0, ge=0, le=1_048_576, description="a body of so many x")
    keep_alive: bool = Field(default=True, description="ask on one connection again and again")
    expect_status: tuple[Annotated[int, Field(ge=200, le=599)], ...] = Field(
        default=(), description="what is no error; below 400 where none is given"
    )
    cpu_us: int = Field(
        default=0, ge=0, le=100_000, description="CPU time that the echo burns for each request"
    )

    @field_validator("headers")
    @classmethod
    def _not_ours(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in OUR_HEADERS:
                raise ValueError(f"{name} follows from the rest; leave it out")
        return headers

    @field_serializer("headers")
    def _hide_secrets(self, headers: dict[str, str], info: SerializationInfo) -> dict[str, str]:
        if info.context == REVEAL:
            return headers
        return {name: HIDDEN if name.lower() in SECRET_HEADERS else value for name, value in headers.items()}

    @field_validator("body_base64")
    @classmethod
    def _is_base64(cls, body: str | None) -> str | None:
        if body is not None:
            try:
                base64.b64decode(body, validate=True)
            except ValueError as error:
                raise ValueError(f"not base64: {error}") from error
        return body

    @model_validator(mode="after")
    def _one_body(self) -> HttpWork:
        if sum([self.body is not None, self.body_base64 is not None, self.body_bytes > 0]) > 1:
            raise ValueError("give one of body, body_base64, body_bytes")
        return self


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


class Tls(_Model):
    """How a target's certificate is checked. Without one of these, a target is spoken to in the clear."""

    verify: bool = Field(default=True, description="refuse a certificate that does not prove who answers")
    ca_file: str | None = Field(
        default=None, description="authorities to trust instead of the system's, a file where the agents run"
    )
    server_name: str | None = Field(default=None, description="asked for instead of the target's host")


Driver = Literal["wire", "asyncio-redis", "aiohttp"]
"""Who speaks to a target: our own code on the wire, or a client library, as an application on it would."""


class Target(_Model):
    """A workload under test: `replicas` pods of one kind, placed afresh in every round.

    `pod` makes it the user's own; `requests` are its manifest's then. `address` makes it one server that stands already.
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
    address: str | None = Field(
        default=None,
        pattern=r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):[0-9]{1,5}$",
        description="HOST:PORT of a server that stands already, in phases that are standing",
    )
    tls: Tls | None = None
    driver: Driver = "wire"

    @model_validator(mode="after")
    def _not_reserved(self) -> Target:
        if self.name == NULL_TARGET:
            raise ValueError(f"{NULL_TARGET!r} is the agents' own")
        return self

    @model_validator(mode="after")
    def _driver_can(self) -> Target:
        if self.driver == "aiohttp" and self.kind is not Kind.HTTP:
            raise ValueError("the driver aiohttp is for http")
        if self.driver == "asyncio-redis":
            if self.kind is not Kind.REDIS:
                raise ValueError("the driver asyncio-redis is for redis")
            if self.tls is not None:
                raise ValueError("asyncio-redis knows no TLS; use the driver wire")
            if self.redis.resp != 2:
                raise ValueError("asyncio-redis speaks RESP 2 only; use the driver wire")
            unknown = [text for text in self.redis.mix if known(text) is None]
            if unknown:
                raise ValueError(f"asyncio-redis has no method for {unknown[0]!r}; use the driver wire")
        return self

    @model_validator(mode="after")
    def _stands_once(self) -> Target:
        if self.address is not None and (self.pod is not None or self.replicas != 1):
            raise ValueError("a target with an address is one server: give replicas: 1, and no pod")
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


class RatePoint(_Model):
    """Where the offered rate is at some part of the window; between two points it changes evenly."""

    at: float = Field(ge=0, le=1, description="part of the window that has passed")
    factor: float = Field(ge=0, description="times rate_per_s")


class Load(_Model):
    """What the agents ask of the targets together.

    In an open loop requests leave by a schedule, whatever the targets do. In a closed loop every connection sends its next
    request once it has a reply: `rate_per_s` and `arrivals` then say nothing, and response times hide queueing.
    """

    loop: Literal["open", "closed"] = "open"
    arrivals: Literal["poisson", "constant"] = "poisson"
    rate_per_s: float = Field(
        default=2400, gt=0, le=10_000_000, description="in all, over agents and targets"
    )
    profile: tuple[RatePoint, ...] = Field(
        default=(), description="how the rate changes within the window; two points at one instant are a step"
    )
    connections: int = Field(default=1, ge=1, le=20_000, description="of each agent to each target")
    pipeline: int = Field(
        default=1, ge=1, le=1024, description="requests in flight on one connection (Redis)"
    )
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

    window_s: float = Field(default=5, ge=0.5, le=86_400)
    warm_up_s: float = Field(default=1, ge=0, le=600)
    ready_timeout_s: float = Field(default=10, gt=0, le=600)
    budget_s: float | None = Field(
        default=None, gt=0, description="no reserve block starts that would end after it"
    )


class Gates(_Model):
    """What voids a block: about the generator and the environment, equal for all arms, blind to the outcome.

    Of a gate that is null, nothing is asked.
    """

    quiet_lag_p99_ms: float | None = Field(default=0.5, gt=0)
    strangers_cpu_share: float | None = Field(default=0.15, gt=0, le=1)
    sent_ratio: float | None = Field(default=0.99, gt=0, le=1)
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
    def _standing_or_placed(self) -> Scenario:
        standing = [phase.name for phase in self.phases if phase.standing]
        if standing and len(standing) < len(self.phases):
            raise ValueError(f"phases: {standing[0]!r} is standing, others are not; give all or none")
        for target in self.targets:
            if standing and target.address is None:
                raise ValueError(
                    f"targets: {target.name!r} has no address, and phase {standing[0]!r} places nothing"
                )
            if not standing and target.address is not None:
                raise ValueError(f"targets: {target.name!r} has an address; its phases are standing: given")
        return self

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
    def standing(self) -> bool:
        """Whether nothing is placed: every target stands already."""
        return any(phase.standing for phase in self.phases)

    @property
    def hides(self) -> list[str]:
        """Targets whose secrets were not written down where this scenario was read from."""
        return [
            target.name
            for target in self.targets
            if HIDDEN in target.http.headers.values()
            or (target.redis.password and target.redis.password.get_secret_value() == HIDDEN)
        ]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what may not differ between merged runs: all but the seed, the number of blocks and the budget."""
        content = self.model_dump(mode="json", exclude={"seed": True, "blocks": True, "timing": {"budget_s"}})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
