"""What is said of synthetic runs whose truth is known: never more than their design allows."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
from msgspec.structs import replace

from kabench.analysis.comparison import compare, contrast_pairs
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric
from kabench.core.result import Comparison, RunResult, VoidReason

STEADY = {"default": 0.9, "default-again": 0.9, "contention-aware": 0.0}
LATE = [VoidReason("lag", "default", "late")]


def comparison(synthetic: ModuleType, **recipe: object) -> Comparison:
    found: RunResult = synthetic.build(synthetic.Recipe(**{"samples": 150, "on_noisy": STEADY, **recipe}))
    return found.comparison


def outcomes(found: Comparison) -> set[str]:
    return {verdict.outcome for verdict in found.verdicts}


def controlled(synthetic: ModuleType) -> tuple[object, ...]:
    return (synthetic.DEFAULT, synthetic.AWARE, *synthetic.CONTROLS)


def test_without_controls_there_is_a_difference_and_no_verdict(synthetic: ModuleType) -> None:
    found = comparison(synthetic)
    assert outcomes(found) == {"difference"}
    assert "No verdict: the run has no controls" in found.headline
    assert found.headline.startswith("Simulated placement: contention-aware against default")
    assert any("CPU contention" in note for note in found.notes)


def test_with_controls_that_work_it_is_better(synthetic: ModuleType) -> None:
    found = comparison(synthetic, phases=controlled(synthetic))
    assert outcomes(found) == {"better"}
    oracle = next(c for c in found.contrasts if c.role == "oracle")
    assert (oracle.a, oracle.b) == ("oracle-noisy", "oracle-quiet")
    assert all(kind.high is not None and kind.high < 1 for kind in oracle.kinds)


def test_the_other_way_round_it_is_worse(synthetic: ModuleType) -> None:
    phases = (synthetic.AWARE, synthetic.DEFAULT, *synthetic.CONTROLS)
    assert outcomes(comparison(synthetic, phases=phases)) == {"worse"}


def test_where_the_oracles_do_not_differ_there_is_no_verdict(synthetic: ModuleType) -> None:
    found = comparison(synthetic, phases=controlled(synthetic), on_noisy={**STEADY, "oracle-noisy": 0.0})
    assert outcomes(found) == {"difference"}
    assert all("this host cannot separate its nodes" in verdict.sentence for verdict in found.verdicts)


def test_where_a_a_differs_there_is_no_verdict(synthetic: ModuleType) -> None:
    found = comparison(synthetic, phases=controlled(synthetic), on_noisy={**STEADY, "default-again": 0.0})
    assert outcomes(found) == {"difference"}
    assert all("same placement differ" in verdict.sentence for verdict in found.verdicts)


def test_equal_arms_are_equivalent_within_the_margin(synthetic: ModuleType) -> None:
    calm = dict.fromkeys(("default", "default-again", "contention-aware"), 0.0)
    found = comparison(synthetic, phases=controlled(synthetic), on_noisy=calm, samples=400, blocks=8)
    assert outcomes(found) == {"equivalent"}


def test_what_service_time_does_not_show_is_not_claimed(synthetic: ModuleType) -> None:
    found = comparison(synthetic, service_flat=True)
    assert outcomes(found) == {"no difference found"}
    assert "which the service time does not show: not claimed" in found.headline


def test_an_arm_with_errors_cannot_be_called_better(synthetic: ModuleType) -> None:
    errors = {"contention-aware": 0.02}
    assert outcomes(comparison(synthetic, error_share=errors)) == {"none"}
    found = comparison(synthetic, phases=controlled(synthetic), error_share=errors)
    assert outcomes(found) == {"inconclusive"}
    assert "2.00% errors, so it cannot be called better" in found.verdicts[0].sentence


@pytest.mark.parametrize(
    ("kinds", "blocks", "enough"), [(2, 6, False), (2, 7, True), (1, 5, False), (1, 6, True)]
)
def test_blocks_that_are_needed(synthetic: ModuleType, kinds: int, blocks: int, enough: bool) -> None:
    targets = (synthetic.REDIS, synthetic.HTTP)[:kinds]
    found = comparison(synthetic, targets=targets, blocks=blocks)
    assert outcomes(found) == ({"difference"} if enough else {"none"})
    assert found.headline.startswith("Too few blocks") != enough
    assert all(len(kind.blocks) == blocks for kind in found.contrasts[0].kinds)  # shown all the same


def test_a_run_that_others_made_void_says_what_to_do(synthetic: ModuleType) -> None:
    advice = "run again when it is quiet"
    void = comparison(synthetic, blocks=2, void={1: LATE, 2: LATE})
    assert advice in " ".join(void.notes)
    some = comparison(synthetic, blocks=8, void={1: LATE})
    assert advice not in " ".join(some.notes)


def test_unequal_voiding_allows_no_statement(synthetic: ModuleType) -> None:
    one = comparison(synthetic, blocks=10, void={1: LATE})
    assert outcomes(one) == {"difference"}
    assert (one.valid_blocks, one.void_blocks) == (9, 1)
    two = comparison(synthetic, blocks=10, void={1: LATE, 2: LATE})
    assert outcomes(two) == {"none"}
    assert "voided unequally (2 for default, 0 for contention-aware)" in two.verdicts[0].sentence


@pytest.mark.parametrize(
    ("recipe", "start"),
    [
        ({"blocks": 0}, "Nothing was measured"),
        ({"blocks": 2, "void": {1: LATE, 2: LATE}}, "Void: none of 2 blocks is valid (most often: lag)"),
        ({"blocks": 7, "roles": ("noisy", "noisy", *["shared"] * 4)}, "No headline: no node was quiet"),
        ({"blocks": 7, "samples": 5}, "No headline: too few blocks to compare: 0 of 7; 7 more have too few"),
    ],
)
def test_headlines_where_nothing_can_be_compared(
    synthetic: ModuleType, recipe: dict[str, object], start: str
) -> None:
    found = comparison(synthetic, **recipe)
    assert found.headline.startswith(start)
    assert outcomes(found) <= {"none"}


def test_one_phase_is_described(synthetic: ModuleType) -> None:
    found = comparison(synthetic, phases=(synthetic.DEFAULT,), blocks=2)
    assert found.headline == "Described, not compared: default is the only phase."
    assert found.contrasts == []
    assert found.verdicts == []


def test_points_are_p99s_of_what_quiet_agents_saw_in_valid_blocks(synthetic: ModuleType) -> None:
    result = synthetic.build(synthetic.Recipe(blocks=7, samples=150, void={2: LATE}))
    [contrast] = result.comparison.contrasts
    redis = contrast.kinds[0]
    assert [point.block for point in redis.blocks] == [1, 3, 4, 5, 6, 7]
    pooled = Histogram()
    for record in result.cells:
        cell = record.cell
        quiet = result.blocks[2].roles[cell.agent] == "quiet"
        if quiet and (cell.phase, cell.block, cell.kind) == ("default", 3, "redis"):
            pooled.add(Histogram.decode(record.histograms[Metric.RESPONSE]))
    point = redis.blocks[1]
    assert point.a_ns == pooled.quantile_ns(0.99)
    assert point.log_ratio == pytest.approx(math.log(point.b_ns / point.a_ns))


def test_the_order_of_cells_changes_nothing(synthetic: ModuleType) -> None:
    result = synthetic.build(synthetic.Recipe(blocks=7, samples=60))
    again = compare(result.scenario, result.placement_note, result.blocks, result.rounds, result.cells[::-1])
    assert again == result.comparison


@pytest.mark.parametrize(
    ("ways", "pairs"),
    [
        (["policy:default"], []),
        (["policy:default", "policy:default"], [("a/a", "p0", "p1")]),
        (["policy:default", "pin:quiet", "pin:noisy"], [("effect", "p0", "p1"), ("oracle", "p2", "p1")]),
        (["scheduler:a", "scheduler:b", "scheduler:a"], [("effect", "p0", "p1"), ("a/a", "p0", "p2")]),
    ],
)
def test_contrasts_that_phases_allow(ways: list[str], pairs: list[tuple[str, str, str]]) -> None:
    phases = [{"name": f"p{i}", **dict([way.split(":")])} for i, way in enumerate(ways)]
    assert contrast_pairs({"phases": phases}) == pairs


def test_placement_accuracy_counts_valid_blocks_only(synthetic: ModuleType) -> None:
    recipe = synthetic.Recipe(blocks=4, samples=5, void={4: LATE}, on_noisy={"default": 1.0})
    result = synthetic.build(recipe)
    default, aware = result.comparison.accuracy
    assert (default.placed, default.on_noisy, default.by_block) == (24, 24, [1.0, 1.0, 1.0])
    assert default.chance_noisy == pytest.approx(2 / 6)
    assert aware.placed == aware.on_noisy + aware.on_shared + aware.on_quiet == 24


def test_unknown_strangers_are_noted(synthetic: ModuleType) -> None:
    result = synthetic.build(synthetic.Recipe(blocks=2, samples=5))
    rounds = [replace(record, strangers_cpu_share=None) for record in result.rounds]
    found = compare(result.scenario, "", result.blocks, rounds, result.cells)
    assert "CPU use by other processes could not be read in 4 rounds." in found.notes
