"""Scenarios from text: what is right is read as it stands, what is wrong is named with its line and field."""

from __future__ import annotations

import pytest

from kabench.core.scenario import load_scenario, override
from kabench.core.spec import Scenario
from kabench.errors import SpecError
from kabench.scenarios import built_in, names

GOOD = """\
name: mine
phases:
  - {name: a, policy: default}
  - name: b
    policy: contention-aware
targets:
  - name: cache
    kind: redis
    replicas: 2
load:
  rate_per_s: 100
"""


def messages(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_scenario(text, "s.yaml")
    return str(caught.value).splitlines()


def test_a_scenario_is_read_with_its_defaults() -> None:
    scenario = load_scenario(GOOD, "s.yaml")
    assert [phase.way for phase in scenario.phases] == ["policy:default", "policy:contention-aware"]
    assert (scenario.targets[0].kind, scenario.targets[0].replicas) == ("redis", 2)
    assert (scenario.load.rate_per_s, scenario.agents, scenario.noise.nodes) == (100, 6, 2)


def test_the_seed_benchmark_has_its_five_phases_and_promises() -> None:
    assert "seed" in names()
    scenario = load_scenario(built_in("seed"), "seed.yaml")
    assert {phase.name: phase.way for phase in scenario.phases} == {
        "default": "policy:default",
        "contention-aware": "policy:contention-aware",
        "oracle-quiet": "pin:quiet",
        "oracle-noisy": "pin:noisy",
        "default-again": "policy:default",
    }
    promises = {t.name: (t.kind, t.replicas, t.slo.p99_ms) for t in scenario.targets if t.slo}
    assert promises == {"redis-latency-test": ("redis", 4, 1), "http-echo": ("http", 4, 5)}
    assert [stressor.kind for stressor in scenario.noise.stressors] == ["stress-cache", "stress-membw"]
    assert (scenario.noise.nodes, scenario.agents) == (2, 6)
    assert scenario.blocks.planned >= 10


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "rate_per_s: 100",
            "rat_per_s: 1",
            "11: load.rat_per_s: unknown field 'rat_per_s'; did you mean 'rate_per_s'?",
        ),
        ("rate_per_s: 100", "rate_per_s: -5", "11: load.rate_per_s: found -5; give a number > 0"),
        (
            "rate_per_s: 100",
            "rate_per_s: .inf",
            "11: load.rate_per_s: found inf; it should be a finite number",
        ),
        ("rate_per_s: 100", "timeout_ms: 40000", "11: load.timeout_ms: found 40000; give a number ≤ 30000"),
        ("name: mine", "name: mine\nagents: 0", "2: agents: found 0; give a number ≥ 1"),
        ("name: mine", "name: mine\nagents: true", "2: agents: found True; it should be a valid integer"),
        (
            "name: mine",
            "name: mine\nagents: 1",
            "1: noise.nodes: found 2; give at most 1, since there are no more nodes (agents: 1)",
        ),
        (
            "name: mine",
            "name: Mine!",
            "1: name: found 'Mine!'; give 1 to 40 lower-case letters, digits and inner dashes",
        ),
        ("name: mine", "nam: mine", "1: name: missing; give it"),
        (
            "policy: contention-aware",
            "policy: contention",
            "5: phases[1].policy: found 'contention'; did you mean 'contention-aware'?; "
            "give one of default, contention-aware",
        ),
        (
            "policy: contention-aware",
            "pin: quiet\n    policy: default",
            "4: phases[1]: give exactly one of policy, scheduler, pin, standing",
        ),
        ("name: b", "name: a", "2: phases: the name 'a' stands twice"),
        (
            "kind: redis",
            "kind: rediss",
            "8: targets[0].kind: found 'rediss'; did you mean 'redis'?; give one of redis, http",
        ),
        ("name: cache", "name: null-echo", "7: targets[0]: 'null-echo' is the agents' own"),
        ("replicas: 2", "replicas: '2'", "9: targets[0].replicas: found '2'; it should be a valid integer"),
        (
            "replicas: 2",
            "http: {paths: {x: 1}}",
            "9: targets[0].http.paths.x: found 'x'; give a path that begins with / and has no blanks",
        ),
    ],
)
def test_an_error_names_line_field_and_what_is_right(old: str, new: str, message: str) -> None:
    assert f"s.yaml:{message}" in messages(GOOD.replace(old, new, 1))


def test_all_errors_are_found_at_once_in_the_order_of_their_lines() -> None:
    text = GOOD.replace("policy: contention-aware", "policy: none").replace("replicas: 2", "replicas: 0")
    assert [line.split(": ")[0] for line in messages(text)] == ["s.yaml:5", "s.yaml:9"]


def test_many_errors_are_counted_rather_than_shown() -> None:
    text = GOOD + "".join(f"wrong-{number}: 1\n" for number in range(13))
    assert messages(text)[-1] == "… and 3 more"
    assert len(messages(text)) == 11


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml:1: a scenario is a mapping of fields (name, phases, targets, …)"),
        ("- a\n", "s.yaml:1: a scenario is a mapping of fields (name, phases, targets, …)"),
        ("name: x\nphases: [\n", "s.yaml:3: not YAML: "),
        ("name: x\nseed: 1\nname: y\n", "s.yaml:3: found duplicate key \"name\""),
        ("name: &n [*n]\n", "s.yaml:1: it contains itself"),
        ("name: \x01\n", "s.yaml: not YAML: unacceptable character"),
        ("1: 2\n", "s.yaml:1: 1: unknown field '1'"),
    ],
)  # fmt: skip
def test_what_is_no_scenario_at_all_is_said_in_a_line(text: str, message: str) -> None:
    assert any(line.startswith(message) for line in messages(text))


@pytest.fixture
def seed() -> Scenario:
    return load_scenario(built_in("seed"), "seed.yaml")


def test_flags_override_the_scenario(seed: Scenario) -> None:
    changed = override(seed, agents=4, rate_per_s=10.5, blocks=3, seed=9)
    assert (changed.agents, changed.load.rate_per_s, changed.blocks.planned, changed.seed) == (4, 10.5, 3, 9)
    assert changed.phases == seed.phases
    assert override(seed) == seed


def test_a_phase_flag_takes_the_scenarios_phase_then_a_known_arm_then_what_it_says(seed: Scenario) -> None:
    own = override(seed, phases=["default=pin:noisy"])
    chosen = override(
        own, phases=["default", "oracle-quiet", "mine=scheduler:my-scheduler", "x=policy:default"]
    )
    assert [(phase.name, phase.way) for phase in chosen.phases] == [
        ("default", "pin:noisy"),
        ("oracle-quiet", "pin:quiet"),
        ("mine", "scheduler:my-scheduler"),
        ("x", "policy:default"),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"agents": 0}, "--agents: found 0; give a number ≥ 1"),
        ({"agents": 1}, "noise.nodes: found 2; give at most 1, since there are no more nodes (agents: 1)"),
        ({"rate_per_s": -1.0}, "--rate: found -1.0; give a number > 0"),
        ({"rate_per_s": float("nan")}, "--rate: found nan; it should be a finite number"),
        ({"blocks": 0}, "--blocks: found 0; give a number ≥ 1"),
        ({"seed": -1}, "--seed: found -1; give a number ≥ 0"),
        ({"phases": ["defalt"]}, "--phase defalt: no such phase; did you mean 'default'?"),
        ({"phases": ["a=pin:loud"]}, "--phase: found 'loud'; give one of quiet, noisy"),
        ({"phases": ["a=pin"]}, "--phase a=pin: give NAME=policy:NAME, NAME=scheduler:NAME or NAME=pin:quiet|noisy"),
        ({"phases": ["a=node:x"]}, "--phase a=node:x: give NAME=policy:NAME"),
        ({"phases": ["default", "default"]}, "phases: the name 'default' stands twice"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_named(seed: Scenario, flags: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        override(seed, **flags)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)


def test_an_unknown_built_in_scenario_names_those_there_are() -> None:
    with pytest.raises(SpecError, match="no built-in scenario; those are: seed"):
        built_in("sead")


def test_the_fingerprint_holds_for_more_blocks_and_another_seed_only(seed: Scenario) -> None:
    assert override(seed, seed=7, blocks=20).fingerprint == seed.fingerprint
    assert override(seed, rate_per_s=1).fingerprint != seed.fingerprint
