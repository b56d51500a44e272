"""What is asked of targets: mixes, paths and bodies that are checked, and secrets that are written down nowhere."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kabench.backends.base import PlacedTarget, Round
from kabench.controller.orders import prepare_orders
from kabench.core.commands import COMMANDS, arguments, known
from kabench.core.identity import Kind
from kabench.core.scenario import load_scenario, override
from kabench.core.spec import HIDDEN, HttpWork, Phase, RedisWork, Scenario, Target
from kabench.errors import SpecError
from kabench.wire import messages as wire

SECRET, TOKEN = "s3cret", "Bearer t0ken"
TEXT = f"""\
name: mine
phases:
  - {{name: a, policy: default}}
targets:
  - name: cache
    kind: redis
    redis:
      user: ada
      password: {SECRET}
      mix: {{GET: 3, "SETEX __key__ 9 __data__": 1}}
  - name: web
    kind: http
    http:
      paths: {{/a: 2, "/b?c=d": 1}}
      headers: {{Authorization: {TOKEN}, Accept: text/plain}}
      method: PUT
      body: grüß
      expect_status: [200, 404]
      keep_alive: false
"""


def scenario() -> Scenario:
    return load_scenario(TEXT, "s.yaml")


def order(of: Scenario) -> wire.Prepare:
    placed = [
        PlacedTarget("cache-0", "cache", Kind.REDIS, "n", "h", 1, "test"),
        PlacedTarget("web-0", "web", Kind.HTTP, "n", "h", 2, "test"),
    ]
    round_ = Round("001-a", 1, Phase(name="a", policy="default"), (), 1)
    return prepare_orders(of, "run", round_, placed, ["n"])["n"]


def test_the_agent_is_told_all_of_it() -> None:
    told = order(scenario())
    assert told.targets[0].load == wire.RedisLoad(
        mix=(("get", 3.0), ("SETEX __key__ 9 __data__", 1.0)), user="ada", password=SECRET
    )
    assert told.targets[1].load == wire.HttpLoad(
        paths=(("/a", 2.0), ("/b?c=d", 1.0)),
        method="PUT",
        headers=(("Authorization", TOKEN), ("Accept", "text/plain")),
        body="grüß".encode(),
        keep_alive=False,
        expect_status=(200, 404),
    )


def test_a_body_may_be_no_text() -> None:
    data = scenario().model_dump(mode="json")
    data["targets"][1]["http"] |= {"body": None, "body_base64": base64.b64encode(b"\x00\xff").decode()}
    load = order(Scenario.model_validate(data)).targets[1].load
    assert isinstance(load, wire.HttpLoad)
    assert load.body == b"\x00\xff"


def test_a_target_that_is_not_to_be_filled_is_not() -> None:
    data = scenario().model_dump(mode="json")
    assert order(scenario()).targets[0].fill
    data["targets"][0]["redis"]["fill"] = False
    told = order(Scenario.model_validate(data)).targets[0]
    assert isinstance(told.load, wire.RedisLoad)
    assert not told.fill
    assert not told.load.fill


def test_secrets_are_written_down_nowhere_and_change_nothing_that_is() -> None:
    one = scenario()
    other = load_scenario(TEXT.replace(SECRET, "other").replace(TOKEN, "none"), "s.yaml")
    written = json.dumps(one.model_dump(mode="json"))
    for text in (written, repr(one), str(one.targets[0]), repr(order(one)), repr(one.model_dump())):
        assert SECRET not in text
    assert TOKEN not in written
    assert "text/plain" in written
    assert written == json.dumps(other.model_dump(mode="json"))
    assert one.fingerprint == other.fingerprint


def test_flags_leave_secrets_what_they_are() -> None:
    changed = override(scenario(), seed=7, rate_per_s=5)
    assert order(changed).targets == order(override(scenario(), rate_per_s=5)).targets
    assert SECRET in str(order(changed).targets[0].load.password)  # type: ignore[union-attr]
    assert not changed.hides


def test_a_scenario_read_from_results_knows_that_it_lacks_its_secrets() -> None:
    read = Scenario.model_validate(json.loads(json.dumps(scenario().model_dump(mode="json"))))
    assert read.hides == ["cache", "web"]
    assert read.fingerprint == scenario().fingerprint
    redis = read.targets[0].redis
    assert redis.password is not None
    assert redis.password.get_secret_value() == HIDDEN


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"password: {SECRET}", "password: 1234", f"9: targets[0].redis.password: found {HIDDEN!r}; it should be"),
        (f"password: {SECRET}", "database: 0", "7: targets[0].redis: a user without a password"),
        ("GET: 3", "GET: 3, get: 1", "10: targets[0].redis.mix: 'get' stands twice"),
        ("GET: 3", '"GET \'a": 3', '10: targets[0].redis.mix: "GET \'a" is no command: no closing quotation'),
        ("GET: 3", '" ": 3', "10: targets[0].redis.mix: ' ' is no command: it names none"),
        ("GET: 3", "GET: -3", "10: targets[0].redis.mix.GET: found -3; give a number ≥ 0"),
        ("{/a: 2,", "{a: 2,", "14: targets[1].http.paths.a: found 'a'; give a path"),
        (f"{TOKEN}", '"s3\\ncret"', f"15: targets[1].http.headers.Authorization: found {HIDDEN!r}; give a header"),
        ("Accept: text/plain", "Content-Length: '3'", "15: targets[1].http.headers: Content-Length follows"),
        ("method: PUT", "method: put", "16: targets[1].http.method: found 'put'; give a method"),
        ("body: grüß", "body_bytes: 3\n      body_base64: aa==", "13: targets[1].http: give one of body"),
        ("body: grüß", "body_base64: a", "17: targets[1].http.body_base64: not base64"),
        ("[200, 404]", "[20]", "18: targets[1].http.expect_status[0]: found 20; give a number ≥ 200"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_with_its_line(old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_scenario(TEXT.replace(old, new, 1), "s.yaml")
    assert f"s.yaml:{message}" in str(caught.value)
    assert SECRET not in str(caught.value) or "password" not in message


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        (RedisWork, "mix", {}),
        (RedisWork, "mix", {"get": 0}),
        (HttpWork, "paths", {}),
        (HttpWork, "paths", {"/": 0}),
    ],
)
def test_something_must_be_asked(model: Any, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match="has a weight above 0"):
        model.model_validate({field: value})


def test_commands_are_known_in_whatever_case() -> None:
    assert [known(name.upper()) for name in COMMANDS] == list(COMMANDS)
    assert known("GET __key__") is None
    assert arguments("SET __key__ 'a b'") == ["SET", "__key__", "a b"]


@pytest.mark.parametrize(
    ("mix", "values"), [({"get": 1}, 1), ({"lrange": 1}, 11), ({"lpush": 1, "hset": 1, "hgetall": 1}, 21)]
)
def test_how_much_a_key_stands_for(mix: dict[str, float], values: int) -> None:
    assert RedisWork(mix=mix).values_a_key == values


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ({"kind": "redis", "driver": "aiohttp"}, "the driver aiohttp is for http"),
        ({"kind": "http", "driver": "asyncio-redis"}, "the driver asyncio-redis is for redis"),
        ({"kind": "redis", "driver": "asyncio-redis", "tls": {}}, "asyncio-redis knows no TLS"),
        ({"kind": "redis", "driver": "asyncio-redis", "redis": {"resp": 3}}, "asyncio-redis speaks RESP 2 only"),
        ({"kind": "redis", "driver": "asyncio-redis", "redis": {"mix": {"PING": 1}}}, "no method for 'PING'"),
    ],
)  # fmt: skip
def test_a_library_is_asked_only_for_what_it_can(target: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Target.model_validate({"name": "t", **target})
