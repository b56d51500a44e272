"""What `kabench load`'s flags ask for: a scenario made of URLs, or one from a file with the flags in place of what it says.

Pure. Flags come in as they were given; what is wrong with one is told with what would be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kabench.core.identity import Kind
from kabench.core.scenario import checked
from kabench.core.spec import REVEAL, Scenario
from kabench.core.target_url import TargetUrl, names_of
from kabench.core.yaml_source import Path
from kabench.errors import SpecError

PHASE = "load"
WINDOW_S, WARM_UP_S, TIMEOUT_S = 10.0, 1.0, 2.0
CONNECTIONS = 50
IN_FLIGHT = 16_384
"""Of each agent: a stop of almost a second at 20,000/s, so that waiting shows as time and not as skipped requests. With more
of them, those at the end of the queue would time out before a server that is beyond its limit got to them, all of them."""

READY_S = 2.0
LONGEST_READY_S = 60
CONNECTS_PER_S = 500
"""How long targets may take to answer, and beyond it for their connections."""

SCHEMES_OF = {
    Kind.REDIS: "redis:// or rediss://",
    Kind.HTTP: "http:// or https://",
    "tls": "rediss:// or https://",
}

_NUMBER = re.compile(r"\d+(\.\d+)?|\.\d+")
_ENTRY = re.compile(r"""(?:[^,"']|"[^"]*"|'[^']*')+""")
_ENTRIES = re.compile(rf"{_ENTRY.pattern}(?:,{_ENTRY.pattern})*")


@dataclass(frozen=True)
class LoadFlags:
    """The flags, None or empty where not given; times in seconds. What a scenario does not check is checked here.

    Attributes:
        rate_per_s: in all, over agents and targets.
        ramp, steps: `FROM:TO`, and `R1,R2,…`.
        connections: to each target, over all agents.
        mix: `COMMAND=WEIGHT,…`.
        headers: `NAME: VALUE`.
        paths: `PATH[=WEIGHT]`.
        body, body_base64: what is sent, as text or otherwise.
        expect_status: `200,404`.
        fill, keep_alive, verify: None where nothing was said.
    """

    rate_per_s: float | None = None
    closed: bool = False
    arrivals: str | None = None
    ramp: str | None = None
    steps: str | None = None
    duration_s: float | None = None
    warm_up_s: float | None = None
    connections: int | None = None
    pipeline: int | None = None
    timeout_s: float | None = None
    agents: int | None = None
    seed: int | None = None
    driver: str | None = None
    mix: str | None = None
    keys: int | None = None
    key_distribution: str | None = None
    value_bytes: int | None = None
    fill: bool | None = None
    method: str | None = None
    headers: Sequence[str] = ()
    paths: Sequence[str] = ()
    body: str | None = None
    body_base64: str | None = None
    keep_alive: bool | None = None
    expect_status: str | None = None
    ca_file: str | None = None
    verify: bool | None = None

    @property
    def rates(self) -> bool:
        """Whether one of them says how often to ask."""
        return self.rate_per_s is not None or self.ramp is not None or self.steps is not None


@dataclass
class _Changes:
    """A scenario's plain form on its way to another, and which flag set what."""

    data: dict[str, Any]
    flags: dict[Path, str] = field(default_factory=dict)

    def put(self, flag: str, path: Path, value: Any) -> None:
        """Set what is at `path`; None is nothing given."""
        if value is None:
            return
        self.flags[path] = flag
        place: Any = self.data
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value


def from_urls(urls: Sequence[TargetUrl], flags: LoadFlags, *, seed: int) -> Scenario:
    """A scenario of one window on the servers at `urls`; its gates void nothing.

    Args:
        urls: the targets.
        flags: what to ask of them.
        seed: where the flags give none.

    Raises:
        SpecError: a flag is wrong, or says nothing about any of these targets.
    """
    if not (flags.rates or flags.closed):
        raise SpecError(
            "give --rate (requests leave by a schedule) or --closed (each waits for the reply before it)"
        )
    targets = [_target(name, url) for name, url in zip(names_of(urls), urls, strict=True)]
    base: dict[str, Any] = {
        "name": PHASE,
        "seed": seed,
        "agents": 1,
        "phases": [{"name": PHASE, "standing": "given"}],
        "targets": targets,
        "noise": {"nodes": 0, "stressors": []},
        "load": {"timeout_ms": TIMEOUT_S * 1000, "max_in_flight": IN_FLIGHT},
        "blocks": {"planned": 1, "reserve": 0},
        "timing": {"window_s": WINDOW_S, "warm_up_s": WARM_UP_S},
        "gates": {"quiet_lag_p99_ms": None, "strangers_cpu_share": None, "sent_ratio": None},
    }
    changes = _Changes(base)
    _apply(changes, flags, connections=CONNECTIONS if flags.connections is None else flags.connections)
    load, timing = base["load"], base["timing"]
    connecting_s = max(0, load["connections"]) * len(targets) / CONNECTS_PER_S
    timing["ready_timeout_s"] = min(LONGEST_READY_S, round(READY_S + connecting_s))
    return checked(base, changes.flags)


def with_flags(scenario: Scenario, flags: LoadFlags) -> Scenario:
    """The scenario of a file, with flags in place of what it says.

    Raises:
        SpecError: it places its targets, or a flag is wrong.
    """
    if not scenario.standing:
        raise SpecError(
            "its phases place targets: give them standing: given and each target an address, or use kabench run"
        )
    changes = _Changes(scenario.model_dump(mode="json", context=REVEAL))
    _apply(changes, flags, connections=flags.connections)
    return checked(changes.data, changes.flags)


def _target(name: str, url: TargetUrl) -> dict[str, Any]:
    target: dict[str, Any] = {"name": name, "kind": str(url.kind), "replicas": 1, "address": url.address}
    target["tls"] = {} if url.tls else None
    target["redis"], target["http"] = {}, {}
    if url.kind is Kind.REDIS:
        target["redis"] = {"user": url.user, "password": url.password, "database": url.database}
    else:
        target["http"] = {"paths": {url.path: 1.0}}
    return target


def _apply(changes: _Changes, flags: LoadFlags, *, connections: int | None) -> None:
    """Put all flags in; those of a protocol into its targets."""
    put = changes.put
    _load(changes, flags)
    put("--agents", ("agents",), flags.agents)
    put("--seed", ("seed",), flags.seed)
    put("--duration", ("timing", "window_s"), flags.duration_s)
    put("--warmup", ("timing", "warm_up_s"), flags.warm_up_s)
    put("--pipeline", ("load", "pipeline"), flags.pipeline)
    put("--timeout", ("load", "timeout_ms"), None if flags.timeout_s is None else flags.timeout_s * 1000)
    if connections is not None:
        agents = max(1, changes.data["agents"])
        each = math.ceil(connections / agents)
        put("--connections", ("load", "connections"), each)
    for kind, given in ((Kind.REDIS, _redis(flags)), (Kind.HTTP, _http(flags)), ("tls", _tls(flags))):
        used = {name: value for name, (_, value) in given.items() if value is not None}
        flag = next((given[name][0] for name in used), "")
        hit = False
        for index, target in enumerate(changes.data["targets"]):
            if (target["tls"] is None) if kind == "tls" else (target["kind"] != kind):
                continue
            hit = True
            if "body" in given:  # one replaces the other
                target["http"] |= {"body": None, "body_base64": None, "body_bytes": 0}
            for name, (flag_, value) in given.items():
                put(flag_, ("targets", index, str(kind), name), value)
        if used and not hit:
            raise SpecError(f"{flag}: no target is {SCHEMES_OF[kind]}; leave it out")
    _drivers(changes, flags.driver)


def _load(changes: _Changes, flags: LoadFlags) -> None:
    """Rate, profile and loop."""
    given = [
        name
        for name, value in (
            ("--rate", flags.rate_per_s),
            ("--ramp", flags.ramp),
            ("--steps", flags.steps),
            ("--closed", flags.closed or None),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise SpecError(f"{given[0]} and {given[1]}: give one of --rate, --ramp, --steps and --closed")
    if flags.closed and flags.arrivals is not None:
        raise SpecError("--arrivals: in a closed loop requests leave when replies come; leave it out")
    put = changes.put
    put("--arrivals", ("load", "arrivals"), flags.arrivals)
    for phase in changes.data["phases"] if given else ():
        phase["rate_per_s"] = None  # a file's phases may have rates of their own
    if flags.closed:
        put("--closed", ("load", "loop"), "closed")
    elif given:
        rates = _rates(flags)
        reference = max(rate for _, rate in rates)
        put(given[0], ("load", "rate_per_s"), reference)
        profile = [{"at": at, "factor": rate / reference} for at, rate in rates] if len(rates) > 1 else []
        put(given[0], ("load", "profile"), profile)
        put(given[0], ("load", "loop"), "open")


def _rates(flags: LoadFlags) -> list[tuple[float, float]]:
    """(part of the window, requests a second): a single one holds throughout."""
    if flags.ramp is not None:
        ends = [
            _number("--ramp", flags.ramp, text, "FROM:TO, as in 1000:20000") for text in flags.ramp.split(":")
        ]
        if len(ends) != 2 or not max(ends):
            raise SpecError(f"--ramp {flags.ramp}: give FROM:TO, as in 1000:20000")
        return [(0.0, ends[0]), (1.0, ends[1])]
    if flags.steps is not None:
        wanted = "two rates or more, as in 1000,2000,5000"
        rates = [_number("--steps", flags.steps, text, wanted) for text in flags.steps.split(",")]
        if len(rates) < 2 or not max(rates):
            raise SpecError(f"--steps {flags.steps}: give {wanted}")
        count = len(rates)
        return [
            point for i, rate in enumerate(rates) for point in ((i / count, rate), ((i + 1) / count, rate))
        ]
    assert flags.rate_per_s is not None
    return [(0.0, flags.rate_per_s)]


def _number(flag: str, given: str, text: str, wanted: str) -> float:
    if not _NUMBER.fullmatch(text.strip()):
        raise SpecError(f"{flag} {given}: {text.strip()!r} is no rate; give {wanted}")
    return float(text)


Given = Mapping[str, tuple[str, Any]]
"""By field of the scenario: the flag, and what it says."""


def _redis(flags: LoadFlags) -> Given:
    return {
        "mix": ("--mix", None if flags.mix is None else parse_mix(flags.mix)),
        "keys": ("--keys", flags.keys),
        "key_distribution": ("--key-distribution", flags.key_distribution),
        "value_bytes": ("--value-size", flags.value_bytes),
        "fill": ("--no-fill", flags.fill),
    }


def _http(flags: LoadFlags) -> Given:
    bodies = {}
    if flags.body is not None or flags.body_base64 is not None:
        bodies = {
            "body": ("--body", flags.body),
            "body_base64": ("--body", flags.body_base64),
        }
    return {
        "method": ("--method", None if flags.method is None else flags.method.upper()),
        "headers": ("--header", parse_headers(flags.headers) or None),
        "paths": ("--path", parse_paths(flags.paths) or None),
        **bodies,
        "keep_alive": ("--no-keep-alive", flags.keep_alive),
        "expect_status": (
            "--expect-status",
            None if flags.expect_status is None else parse_statuses(flags.expect_status),
        ),
    }


def _tls(flags: LoadFlags) -> Given:
    if flags.ca_file is not None and flags.verify is False:
        raise SpecError("--cacert and --insecure: give one of them")
    return {"ca_file": ("--cacert", flags.ca_file), "verify": ("--insecure", flags.verify)}


def _drivers(changes: _Changes, driver: str | None) -> None:
    """A library's driver serves one kind of target only; the others stay on the wire."""
    if driver is None:
        return
    speaks = {"asyncio-redis": Kind.REDIS, "aiohttp": Kind.HTTP}.get(driver)
    hit = False
    for index, target in enumerate(changes.data["targets"]):
        if speaks in (None, target["kind"]):
            hit = True
            changes.put("--driver", ("targets", index, "driver"), driver)
    if not hit:
        raise SpecError(f"--driver {driver}: it speaks {speaks} only, and no target does")


def parse_mix(text: str) -> dict[str, float]:
    """`get=9,set=1` and `"lrange list 0 9"=2` as weights by command.

    Raises:
        SpecError: it is not that.
    """
    wanted = "give COMMAND=WEIGHT,…, as in get=9,set=1 or '\"LRANGE __key__ 0 9\"=1'"
    mix: dict[str, float] = {}
    if not _ENTRIES.fullmatch(text):
        raise SpecError(f"--mix {text}: {wanted}")
    for entry in _ENTRY.findall(text):
        command, _, weight = entry.rpartition("=")
        name = command.strip()
        if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
            name = name[1:-1]
        if not name or not _NUMBER.fullmatch(weight.strip()):
            raise SpecError(f"--mix {text}: {entry.strip()!r} is no COMMAND=WEIGHT; {wanted}")
        if name in mix:
            raise SpecError(f"--mix {text}: {name!r} stands twice")
        mix[name] = float(weight)
    return mix


def parse_headers(lines: Sequence[str]) -> dict[str, str]:
    """`Name: value` lines as headers.

    Raises:
        SpecError: one is not that, or stands twice.
    """
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            shown = line if len(line) < 20 else f"{line[:16]}…"
            raise SpecError(f"--header {shown!r}: give NAME: VALUE, as in 'Accept: text/html'")
        if name.strip().lower() in {other.lower() for other in headers}:
            raise SpecError(f"--header {name.strip()}: it stands twice")
        headers[name.strip()] = value.strip()
    return headers


def parse_paths(given: Sequence[str]) -> dict[str, float]:
    """`/path`, `/path=3` and `/path?query=x` as weights by path.

    After a `?` an `=` is the query's own: such a path has weight 1, and more by being given again.

    Raises:
        SpecError: one is no path.
    """
    paths: dict[str, float] = {}
    for text in given:
        path, weight = text, 1.0
        if "?" not in text and "=" in text:
            path, _, number = text.rpartition("=")
            if not _NUMBER.fullmatch(number):
                raise SpecError(f"--path {text}: give PATH or PATH=WEIGHT, as in /=9 or /search=1")
            weight = float(number)
        if not path.startswith("/"):
            raise SpecError(f"--path {text}: give a path that begins with /")
        paths[path] = paths.get(path, 0.0) + weight
    return paths


def parse_statuses(text: str) -> list[int]:
    """`200,404` as numbers.

    Raises:
        SpecError: it is not that.
    """
    codes = [code.strip() for code in text.split(",")]
    if not all(code.isascii() and code.isdecimal() and len(code) == 3 for code in codes):
        raise SpecError(f"--expect-status {text}: give statuses such as 200 or 200,404")
    return [int(code) for code in codes]


def describe_load(scenario: Scenario, *, searching: bool = False) -> Iterator[str]:
    """What will be done, for a reader; without passwords. A search begins at the scenario's rate."""
    load, timing = scenario.load, scenario.timing
    for target in scenario.targets:
        tls = " over TLS" if target.tls else ""
        driver = "" if target.driver == "wire" else f", driver {target.driver}"
        yield f"target    {target.name} ({target.kind} at {target.address}{tls}{driver})"
    agents, each = scenario.agents, load.connections
    total = (
        f"{_count(each * agents, 'connection')} to each target"
        if len(scenario.targets) > 1
        else (_count(each * agents, "connection"))
    )
    if agents > 1:
        total += f", {each} of each of {agents} agents"
    if load.pipeline > 1:
        total += f", {load.pipeline} requests in flight on each"
    at_first = " at first" if searching else ""
    yield f"load      {_how(scenario, searching=searching)}{at_first}; {total}"
    phases, blocks = len(scenario.phases), scenario.blocks.planned
    if phases * blocks > 1 and not searching:
        yield f"plan      {_count(blocks, 'block')} of {_count(phases, 'phase')}: {blocks * phases} windows"
    yield f"window    {timing.warm_up_s:g} s warm-up, then {timing.window_s:g} s; seed {scenario.seed}"


def _how(scenario: Scenario, *, searching: bool) -> str:
    load = scenario.load
    if load.loop == "closed":
        return "closed loop (each request waits for the reply before it)"
    if not searching and any(phase.rate_per_s for phase in scenario.phases):
        own = [f"{phase.name} {phase.rate_per_s or load.rate_per_s:,.10g}/s" for phase in scenario.phases]
        return f"open loop, {', '.join(own)} in all, {load.arrivals} arrivals"
    if not load.profile:
        return f"open loop, {load.rate_per_s:,.10g}/s in all, {load.arrivals} arrivals"
    rates = [load.rate_per_s * point.factor for point in load.profile]
    steps = [rate for index, rate in enumerate(rates) if not index or rate != rates[index - 1]]
    return f"open loop, {' → '.join(f'{rate:,.10g}' for rate in steps)}/s in all, {load.arrivals} arrivals"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
