"""What controller and agent say to each other.

====== ================================== =============================== =======================================
verb   path                               body → answer                   meaning
====== ================================== =============================== =======================================
GET    /v1/hello                          – → Hello                       who the agent is; its clock, read twice or more
POST   /v1/prepare                        Prepare → Prepared              reach the targets, fill, connect, plan
POST   /v1/arm                            Arm → Armed                     start at an instant of the agent's own clock
POST   /v1/abort                          – → Status                      give up what is prepared or running
GET    /v1/status                         – → Status                      where the session stands; renews the lease
GET    /v1/windows                        – → Windows                     the logs held
GET    /v1/windows/{window}/stream        – → lines of Interval           as they close, until the window is sealed
GET    /v1/windows/{window}/log           – → the log's bytes             with its SHA-256 in `SHA256_HEADER`
POST   /v1/windows/{window}/ack           Ack → Status                    the log is safe elsewhere: delete it
POST   /v1/probe                          Probe → Contention              how contended the node is; refused in a window
====== ================================== =============================== =======================================

Every call carries the run's token in `TOKEN_HEADER`; without it the answer is 401 and nothing else.
A refusal is a `Refusal` with status 4xx (409: not in this state; 422: cannot be done) or 5xx.
All instants are nanoseconds of the agent's monotonic clock unless a name says otherwise.
"""

from __future__ import annotations

import msgspec

from kabench.core.contention import Contention as Contention  # the answer to Probe
from kabench.core.health import Health
from kabench.core.identity import Outcomes

PROTOCOL = 1
TOKEN_HEADER = "X-Kabench-Token"  # the API server keeps `Authorization` for itself
SHA256_HEADER = "X-Kabench-Sha256"


class Hello(msgspec.Struct, frozen=True):
    """The agent introduces itself.

    Attributes:
        protocol: its `PROTOCOL`.
        instance: drawn at its start: another one means that the agent was restarted.
        node: the node it runs on.
        boot_id: of the node's kernel; equal ids mean one machine.
        cpus: the CPUs it may run on.
        monotonic_ns, realtime_ns: its clocks, read while answering.
        pacer: "timerfd" or "call_later".
        capabilities: drivers ("redis", "http") and abilities ("probe", "null-echo").
        environment: versions and settings worth keeping: python, uvloop, kernel, hz, autogroup, governor, smt, …
    """

    protocol: int
    instance: str
    node: str
    boot_id: str
    cpus: tuple[int, ...]
    monotonic_ns: int
    realtime_ns: int
    pacer: str
    capabilities: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class RedisLoad(msgspec.Struct, frozen=True, tag="redis", tag_field="kind"):
    """Commands by weight over a key space of `keys` keys with values of `value_bytes`.

    Attributes:
        mix: (a name of `core.commands.COMMANDS` or a command's text, weight).
        key_distribution: "uniform" or "zipf".
        fill: whether what is read was filled: nil is an error then.
        user, password: "" without.
        resp: version of the protocol, 2 or 3.
    """

    keys: int = 1000
    value_bytes: int = 64
    mix: tuple[tuple[str, float], ...] = (("get", 9.0), ("set", 1.0))
    key_distribution: str = "uniform"
    fill: bool = True
    user: str = ""
    password: str = ""
    database: int = 0
    resp: int = 2

    def __repr__(self) -> str:
        """Without the password: reprs end up in logs."""
        return f"RedisLoad({self.keys}, {self.value_bytes}, {self.mix}, …)"


class HttpLoad(msgspec.Struct, frozen=True, tag="http", tag_field="kind"):
    """Requests with paths by weight.

    Attributes:
        paths: (path, weight).
        method: "" for GET, or POST where there is a body.
        headers: (name, value), beside those that every request needs.
        body, body_bytes: the body, or how long one of no matter what is.
        keep_alive: False asks the server to close after every reply.
        expect_status: what is no error; empty: below 400.
    """

    paths: tuple[tuple[str, float], ...] = (("/", 1.0),)
    method: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    body_bytes: int = 0
    keep_alive: bool = True
    expect_status: tuple[int, ...] = ()

    def __repr__(self) -> str:
        """Without headers, which may hold secrets."""
        return f"HttpLoad({self.paths}, {self.method!r}, …)"


class Tls(msgspec.Struct, frozen=True):
    """Speak TLS, and check the certificate as this says; `ca_file` is a file where the agent runs."""

    verify: bool = True
    ca_file: str | None = None
    server_name: str | None = None


class Target(msgspec.Struct, frozen=True):
    """One replica to drive, and this agent's share of its load.

    Attributes:
        name, workload, node: the cell's part of the identity.
        host, port: where it listens.
        load: what to ask of it; its tag is the kind.
        rate_per_s: mean arrivals a second from this agent.
        connections: of this agent to it.
        pipeline: requests in flight on one connection.
        fill: whether this agent fills the key space (one agent does, before any window).
        driver: "wire", or the client library that speaks to it.
        tls: None in the clear.
    """

    name: str
    workload: str
    node: str
    host: str
    port: int
    load: RedisLoad | HttpLoad
    rate_per_s: float
    connections: int = 1
    pipeline: int = 1
    fill: bool = False
    driver: str = "wire"
    tls: Tls | None = None


class Prepare(msgspec.Struct, frozen=True):
    """All an agent needs to run one window without the controller.

    Attributes:
        run, scenario_sha256, window, phase, block: the log's identity.
        seed: this agent's own for this block; equal for all phases of it, so that they see the same arrivals.
        arrivals: "poisson" or "constant".
        targets: what to drive.
        warm_up_ns: driven and not recorded, right before the window.
        window_ns: length of the window. A request belongs to it by its due time.
        interval_ns: a line of the log.
        timeout_ns: from issued; also the longest drain after the window.
        max_in_flight: of the whole agent; what is due beyond it is skipped.
        null_rate_per_s: arrivals at the null echo; 0 leaves it out.
        ready_timeout_ns: how long to wait for targets.
        loop: "open": requests leave by the schedule; "closed": each connection sends when it has its reply, and rates and
            arrivals say nothing.
        profile: (part of the window, factor of every rate there), ascending; the rate changes evenly between two. Empty
            where it stays.
        lease_ns: without a word from the controller for so long, a session that is not in a window ends.
    """

    protocol: int
    run: str
    scenario_sha256: str
    window: str
    phase: str
    block: int
    seed: int
    arrivals: str
    targets: tuple[Target, ...]
    warm_up_ns: int
    window_ns: int
    timeout_ns: int
    max_in_flight: int
    interval_ns: int = 1_000_000_000
    null_rate_per_s: float = 0.0
    ready_timeout_ns: int = 10_000_000_000
    lease_ns: int = 60_000_000_000
    loop: str = "open"
    profile: tuple[tuple[float, float], ...] = ()


class Prepared(msgspec.Struct, frozen=True):
    """The agent is ready to be armed; `planned` counts each target's arrivals due in the window (null echo included)."""

    window: str
    planned: dict[str, int]
    filled: dict[str, int] = {}


class Arm(msgspec.Struct, frozen=True):
    """Measure from `start_ns` on (the warm-up ends there)."""

    window: str
    start_ns: int


class Armed(msgspec.Struct, frozen=True):
    """Accepted at `now_ns`; the warm-up begins at `start_ns - warm_up_ns`."""

    window: str
    start_ns: int
    now_ns: int


class KindInterval(msgspec.Struct, frozen=True):
    """All targets of one kind in one interval, for the live view; `response` is an encoded histogram ("" if empty)."""

    outcomes: Outcomes
    response: str = ""


class Interval(msgspec.Struct, frozen=True):
    """A closed interval, one line of the stream. `index` counts from the window's start; drain intervals follow on.

    The last line has `sealed=True` and the window's totals.
    """

    window: str
    index: int
    kinds: dict[str, KindInterval]
    health: Health
    lag_p99_ns: int | None = None
    sealed: bool = False


class WindowState(msgspec.Struct, frozen=True):
    """A log the agent holds: of which run, how long, and whether it is sealed."""

    run: str
    window: str
    bytes: int
    sealed: bool
    sha256: str = ""


class Windows(msgspec.Struct, frozen=True):
    """The logs held, in the order of their names."""

    windows: tuple[WindowState, ...]


class Ack(msgspec.Struct, frozen=True):
    """The log with this digest (of the whole file) is safe."""

    sha256: str


class Status(msgspec.Struct, frozen=True):
    """Where the session stands: idle, preparing, prepared, armed, running, draining, sealed."""

    state: str
    window: str = ""
    error: str = ""


class Probe(msgspec.Struct, frozen=True):
    """Probe the node's contention for `duration_ns`."""

    duration_ns: int = 100_000_000


class Refusal(msgspec.Struct, frozen=True):
    """Why a call was refused, in a sentence for the user."""

    error: str
