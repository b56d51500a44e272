"""From URLs and flags to a scenario: what each flag sets, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kabench.core.load_flags import (
    LoadFlags,
    describe_load,
    from_urls,
    parse_headers,
    parse_mix,
    parse_paths,
    parse_statuses,
    with_flags,
)
from kabench.core.scenario import load_scenario
from kabench.core.spec import RatePoint, Scenario, Tls
from kabench.core.target_url import parse_url
from kabench.errors import SpecError

REDIS, HTTP = "redis://:s3cret@127.0.0.1:6379/2", "http://localhost:8080/a?b=c"

FILE = """
name: mine
agents: 4
phases: [{name: a, standing: given}]
targets:
  - {name: web, kind: http, replicas: 1, address: "h:80", http: {body_bytes: 10}}
  - {name: cache, kind: redis, replicas: 1, address: "h:6379", redis: {password: hush}}
noise: {nodes: 0}
load: {rate_per_s: 100, connections: 3, arrivals: constant}
"""


def load(*urls: str, **flags: Any) -> Scenario:
    if not {"rate_per_s", "closed", "ramp", "steps"} & flags.keys():
        flags["rate_per_s"] = 1000.0
    return from_urls([parse_url(url) for url in urls], LoadFlags(**flags), seed=7)


def refused(*urls: str, **flags: Any) -> str:
    with pytest.raises(SpecError) as caught:
        load(*urls, **flags)
    return str(caught.value)


def test_urls_alone_make_a_scenario_of_one_window_that_nothing_of_ours_voids() -> None:
    scenario = load(REDIS, HTTP)
    assert scenario.standing
    assert scenario.seed == 7
    assert [phase.way for phase in scenario.phases] == ["standing:given"]
    assert (scenario.blocks.planned, scenario.blocks.reserve, scenario.noise.nodes) == (1, 0, 0)
    gates = scenario.gates
    assert gates.quiet_lag_p99_ms is gates.strangers_cpu_share is gates.sent_ratio is None
    redis, http = scenario.targets
    assert (redis.name, redis.address, redis.tls) == ("redis-127-0-0-1-6379", "127.0.0.1:6379", None)
    assert redis.redis.password is not None
    assert (redis.redis.password.get_secret_value(), redis.redis.database) == ("s3cret", 2)
    assert (http.name, http.address) == ("http-localhost-8080", "localhost:8080")
    assert http.http.paths == {"/a?b=c": 1.0}
    assert scenario.load.null_rate_per_s > 0
    assert (scenario.load.loop, scenario.load.connections, scenario.timing.warm_up_s) == ("open", 50, 1)


def test_no_output_has_the_password() -> None:
    scenario = load(REDIS)
    assert "s3cret" not in scenario.model_dump_json() + repr(scenario) + "".join(describe_load(scenario))


def test_a_tls_scheme_asks_for_tls_that_verifies() -> None:
    first, second = load("rediss://h", "https://h").targets
    assert first.tls == second.tls == Tls()
    assert load("https://h", verify=False).targets[0].tls == Tls(verify=False)
    assert load("https://h", ca_file="/ca.pem").targets[0].tls == Tls(ca_file="/ca.pem")


def test_each_flag_sets_its_field() -> None:
    scenario = load(
        REDIS,
        HTTP,
        arrivals="constant",
        duration_s=3.0,
        warm_up_s=0.0,
        connections=50,
        agents=4,
        pipeline=8,
        timeout_s=0.5,
        seed=3,
        mix="get=1,incr=2",
        keys=10,
        key_distribution="zipf",
        value_bytes=5,
        fill=False,
        method="put",
        headers=["Accept: x"],
        paths=["/=9", "/b"],
        body="hi",
        keep_alive=False,
        expect_status="200,404",
    )
    assert (scenario.load.arrivals, scenario.load.pipeline, scenario.load.timeout_ms) == ("constant", 8, 500)
    assert (scenario.timing.window_s, scenario.timing.warm_up_s) == (3, 0)
    assert (scenario.agents, scenario.load.connections, scenario.seed) == (4, 13, 3)
    redis = scenario.targets[0].redis
    assert (redis.mix, redis.keys, redis.key_distribution) == ({"get": 1, "incr": 2}, 10, "zipf")
    assert (redis.value_bytes, redis.fill) == (5, False)
    http = scenario.targets[1].http
    assert (http.method, http.headers, http.paths) == ("PUT", {"Accept": "x"}, {"/": 9, "/b": 1})
    assert (http.body, http.keep_alive, http.expect_status) == ("hi", False, (200, 404))


def test_a_rate_that_changes_is_a_profile_of_the_highest() -> None:
    ramp = load(REDIS, ramp="1000:20000").load
    assert ramp.rate_per_s == 20000
    assert ramp.profile == (RatePoint(at=0, factor=0.05), RatePoint(at=1, factor=1))
    steps = load(REDIS, steps="1000,4000").load
    assert steps.rate_per_s == 4000
    assert [(point.at, point.factor) for point in steps.profile] == [(0, 0.25), (0.5, 0.25), (0.5, 1), (1, 1)]
    assert load(REDIS, rate_per_s=5.0).load.profile == ()
    assert load(REDIS, closed=True).load.loop == "closed"


def test_a_library_driver_serves_its_own_kind_only() -> None:
    redis, http = load(REDIS, HTTP, driver="aiohttp").targets
    assert (redis.driver, http.driver) == ("wire", "aiohttp")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"rate_per_s": 5, "closed": True}, "--rate and --closed: give one of"),
        ({"ramp": "1:2", "steps": "1,2"}, "--ramp and --steps: give one of"),
        ({"closed": True, "arrivals": "poisson"}, "--arrivals: in a closed loop"),
        ({"rate_per_s": 0}, "--rate: found 0; give a number > 0"),
        ({"rate_per_s": 1e9}, "--rate: found 1000000000.0; give a number ≤ 10000000"),
        ({"ramp": "1000"}, "--ramp 1000: give FROM:TO"),
        ({"ramp": "0:0"}, "--ramp 0:0: give FROM:TO"),
        ({"ramp": "a:2"}, "--ramp a:2: 'a' is no rate"),
        ({"steps": "1000"}, "--steps 1000: give two rates or more"),
        ({"steps": "1,-2"}, "--steps 1,-2: '-2' is no rate"),
        ({"steps": "0,0"}, "--steps 0,0: give two rates or more"),
        ({"arrivals": "uniform"}, "--arrivals: found 'uniform'; give one of poisson, constant"),
        ({"agents": 0}, "--agents: found 0; give a number ≥ 1"),
        ({"connections": 0}, "--connections: found 0; give a number ≥ 1"),
        ({"pipeline": 9999}, "--pipeline: found 9999; give a number ≤ 1024"),
        ({"duration_s": 0.1}, "--duration: found 0.1; give a number ≥ 0.5"),
        ({"timeout_s": 60}, "--timeout: found 60000; give a number ≤ 30000"),
        ({"method": "GET"}, "--method: no target is http:// or https://; leave it out"),
        ({"verify": False}, "--insecure: no target is rediss:// or https://; leave it out"),
        ({"driver": "aiohttp"}, "--driver aiohttp: it speaks http only, and no target does"),
        ({"driver": "curl"}, "--driver: found 'curl'; give one of wire, asyncio-redis, aiohttp"),
        ({"mix": "get"}, "--mix get: 'get' is no COMMAND=WEIGHT"),
        ({"mix": "get=0"}, "--mix: no command has a weight above 0"),
        ({"mix": "get=1,GET=2"}, "--mix: 'get' stands twice"),
        ({"keys": 0}, "--keys: found 0; give a number ≥ 1"),
        ({"key_distribution": "zip"}, "--key-distribution: found 'zip'; did you mean 'zipf'?"),
        ({"value_bytes": -1}, "--value-size: found -1; give a number ≥ 0"),
    ],
)
def test_a_wrong_flag_is_named_with_what_would_be_right(flags: dict[str, Any], said: str) -> None:
    assert said in refused("redis://h", **flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"mix": "get=1"}, "--mix: no target is redis:// or rediss://"),
        ({"fill": False}, "--no-fill: no target is redis://"),
        ({"method": "a b"}, "--method: found 'A B'; give a method such as GET"),
        ({"headers": ["Accept"]}, "--header 'Accept': give NAME: VALUE"),
        ({"headers": ["a: 1", "A: 2"]}, "--header A: it stands twice"),
        ({"headers": ["Content-Length: 1"]}, "--header: Content-Length follows from the rest"),
        ({"paths": ["a"]}, "--path a: give a path that begins with /"),
        ({"paths": ["/a=x"]}, "--path /a=x: give PATH or PATH=WEIGHT"),
        ({"paths": ["/=0"]}, "--path: no path has a weight above 0"),
        ({"expect_status": "2xx"}, "--expect-status 2xx: give statuses such as"),
        ({"expect_status": "700"}, "--expect-status: found 700; give a number ≤ 599"),
        ({"ca_file": "/x"}, "--cacert: no target is rediss:// or https://"),
    ],
)
def test_a_wrong_flag_of_http_is_named_with_what_would_be_right(flags: dict[str, Any], said: str) -> None:
    assert said in refused("http://h", **flags)


def test_both_ways_to_trust_are_one_too_many() -> None:
    assert "--cacert and --insecure" in refused("https://h", ca_file="/x", verify=False)


def test_without_rate_and_loop_nothing_is_guessed() -> None:
    with pytest.raises(SpecError, match=r"give --rate .* or --closed"):
        from_urls([parse_url("redis://h")], LoadFlags(), seed=1)


def test_a_secret_header_is_not_told() -> None:
    said = refused("http://h", headers=["Authorization Bearer s3cret-and-long"])
    assert "s3cret-and-long" not in said


@pytest.mark.parametrize(
    ("text", "mix"),
    [
        ("get=9,set=1", {"get": 9, "set": 1}),
        (" get = 9 , set=.5", {"get": 9, "set": 0.5}),
        ('"LRANGE __key__ 0 9"=2,get=1', {"LRANGE __key__ 0 9": 2, "get": 1}),
        ("'set __key__ \"a,b=c\"'=1", {'set __key__ "a,b=c"': 1}),
        ("lrange list 0 9=2", {"lrange list 0 9": 2}),
    ],
)
def test_a_mix_is_read(text: str, mix: dict[str, float]) -> None:
    assert parse_mix(text) == mix


@pytest.mark.parametrize(
    "text", ["", ",", "get", "get=", "=1", "get=x", "get=1,,set=2", 'get=1,"set=2', "get=-1"]
)
def test_what_is_no_mix_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="--mix"):
        parse_mix(text)


def test_paths_headers_and_statuses_are_read() -> None:
    assert parse_paths(["/=9", "/a?b=3", "/a?b=3", "/c"]) == {"/": 9, "/a?b=3": 2, "/c": 1}
    assert parse_headers(["A: b: c", "X-Y:"]) == {"A": "b: c", "X-Y": ""}
    assert parse_statuses("200, 404") == [200, 404]


def test_flags_change_a_file_s_scenario_and_leave_the_rest() -> None:
    base = load_scenario(FILE, "mine.yaml")
    same = with_flags(base, LoadFlags())
    assert same == base
    changed = with_flags(
        base, LoadFlags(rate_per_s=5.0, connections=10, body="x", mix="get=1", duration_s=9.0)
    )
    assert (changed.load.rate_per_s, changed.load.connections, changed.load.arrivals) == (5, 3, "constant")
    assert (changed.targets[0].http.body, changed.targets[0].http.body_bytes) == ("x", 0)
    password = changed.targets[1].redis.password
    assert password is not None
    assert password.get_secret_value() == "hush"
    assert (changed.agents, changed.timing.window_s, changed.name) == (4, 9, "mine")
    assert with_flags(base, LoadFlags(closed=True)).load.loop == "closed"


def test_a_file_that_places_its_targets_is_refused() -> None:
    placed = load_scenario(
        "name: s\nphases: [{name: a, policy: default}]\ntargets: [{name: t, kind: http}]\n", "s.yaml"
    )
    with pytest.raises(SpecError, match="its phases place targets"):
        with_flags(placed, LoadFlags(rate_per_s=1.0))


def test_the_plan_is_told() -> None:
    lines = list(describe_load(load(REDIS, "https://h", agents=2, pipeline=4, ramp="1000:2000")))
    assert lines == [
        "target    redis-127-0-0-1-6379 (redis at 127.0.0.1:6379)",
        "target    https-h-443 (http at h:443 over TLS)",
        "load      open loop, 1,000 → 2,000/s in all, poisson arrivals; 50 connections to each target, 25 of each of 2 "
        "agents, 4 requests in flight on each",
        "window    1 s warm-up, then 10 s; seed 7",
    ]
    assert "closed loop" in list(describe_load(load(REDIS, closed=True, connections=1)))[1]


def test_the_example_has_two_rates_and_is_told_as_it_is() -> None:
    file = Path(__file__).parents[3] / "examples" / "standing.yaml"
    scenario = with_flags(load_scenario(file.read_text(), file.name), LoadFlags(agents=2))
    assert [phase.rate_per_s for phase in scenario.phases] == [1000, 4000]
    assert list(describe_load(scenario))[2:] == [
        "load      open loop, calm 1,000/s, busy 4,000/s in all, poisson arrivals; 100 connections to each target, 50 of "
        "each of 2 agents",
        "plan      2 blocks of 2 phases: 4 windows",
        "window    1 s warm-up, then 3 s; seed 1",
    ]
    searched = list(describe_load(scenario, searching=True))
    assert searched[2].startswith(
        "load      open loop, 2,400/s in all, poisson arrivals at first; 100 connections"
    )
    assert len(searched) == 4
    assert {phase.rate_per_s for phase in with_flags(scenario, LoadFlags(rate_per_s=7.0)).phases} == {None}
