"""What is said of synthetic runs whose truth is known: never more than their design allows."""

from __future__ import annotations

import math
from types import ModuleType

import pytest
from msgspec.structs import replace

from kabench.analysis.comparison import compare, contrast_pairs
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric
from kabench.core.result import Comparison, RoundRecord, RunResult, VoidReason

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


def test_a_run_that_others_made_void_or_left_too_few_blocks_of_says_what_to_do(synthetic: ModuleType) -> None:
    advice = "run again when it is quiet"
    for blocks in (2, 8):
        void = comparison(synthetic, blocks=blocks, void={1: LATE, 2: LATE})
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
    again = compare(
        result.scenario, result.placement_note, result.blocks, result.rounds, result.cells[::-1], result.nodes
    )
    assert again == result.comparison


@pytest.mark.parametrize(
    ("ways", "pairs"),
    [
        (["policy:default"], []),
        (["policy:default", "policy:default"], [("a/a", "p0", "p1")]),
        (["policy:default", "pin:quiet", "pin:noisy"], [("effect", "p0", "p1"), ("oracle", "p2", "p1")]),
        (["scheduler:a", "scheduler:b", "scheduler:a"], [("effect", "p0", "p1"), ("a/a", "p0", "p2")]),
        (["standing:given", "standing:given"], []),
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

    def notes(unknown: int) -> list[str]:
        rounds = [replace(one, strangers_cpu_share=None) for one in result.rounds[:unknown]]
        rounds += result.rounds[unknown:]
        return compare(result.scenario, "", result.blocks, rounds, result.cells, []).notes

    assert "CPU use by other processes could not be read in 3 rounds." in notes(3)
    assert any("not known on this backend" in note for note in notes(4))
    assert not any("CPU use" in note or "not known" in note for note in notes(0))


def on_kubernetes(synthetic: ModuleType, **recipe: object) -> Comparison:
    given = {"backend": "kubernetes", "phases": synthetic.KUBERNETES, "samples": 150, "blocks": 10}
    found: Comparison = synthetic.build(synthetic.Recipe(**(given | recipe))).comparison
    return found


def test_an_oracle_as_the_second_phase_is_headroom_and_no_scheduler(synthetic: ModuleType) -> None:
    found = on_kubernetes(synthetic)
    assert found.headline.startswith(
        "The best that placement could reach here (oracle-quiet) against default, p99 response time: redis −"
    )
    assert found.headline.endswith("No second scheduler was compared.")
    assert "better" not in found.headline
    assert outcomes(found) == {"headroom"}
    for verdict in found.verdicts:
        assert verdict.sentence.endswith(
            "Oracle-quiet is the best that placement could reach here, and no scheduler."
        )
    default, quiet, noisy, again = synthetic.KUBERNETES
    worst = on_kubernetes(synthetic, phases=(default, noisy, quiet, again))
    assert worst.headline.startswith("The worst that placement could do here (oracle-noisy) against default")
    assert outcomes(worst) == {"headroom"}


def test_where_placement_gains_nothing_the_best_is_equivalent(synthetic: ModuleType) -> None:
    found = on_kubernetes(synthetic, on_noisy={"default": 0.0, "default-again": 0.0})
    assert outcomes(found) == {"equivalent"}


def test_the_control_that_is_missing_is_named(synthetic: ModuleType) -> None:
    found = on_kubernetes(synthetic, phases=synthetic.KUBERNETES[:3])
    assert "No verdict: the run has no A/A arm. No second" in found.headline
    default, _, _, again = synthetic.KUBERNETES
    found = on_kubernetes(synthetic, phases=(default, synthetic.MINE, again))
    assert "No verdict: the run has no oracle arms." in found.headline
    found = on_kubernetes(synthetic, phases=(default, synthetic.MINE))
    assert "No verdict: the run has no controls (oracle and A/A arms)." in found.headline


def two_schedulers(synthetic: ModuleType, **recipe: object) -> Comparison:
    default, *controls = synthetic.KUBERNETES
    phases = (default, synthetic.MINE, *controls)
    steady = {"default": 0.4, "default-again": 0.4, "mine": 0.0}
    return on_kubernetes(synthetic, phases=phases, on_noisy=steady, **({"samples": 300} | recipe))


def test_a_scheduler_that_leaves_targets_pending_cannot_be_called_better(synthetic: ModuleType) -> None:
    assert outcomes(two_schedulers(synthetic)) == {"better"}
    found = two_schedulers(synthetic, unplaced={"mine": 1})
    assert outcomes(found) == {"inconclusive"}
    assert "mine left 10 targets pending, so it cannot be called better" in found.headline
    assert any("Targets left pending: mine 10." in note for note in found.notes)
    assert outcomes(two_schedulers(synthetic, unplaced={"default": 1})) == {"better"}


def test_a_run_on_kubernetes_says_who_bound_its_targets(synthetic: ModuleType) -> None:
    result = synthetic.build(
        synthetic.Recipe(
            backend="kubernetes", phases=(*synthetic.KUBERNETES[:1], synthetic.MINE), samples=5, blocks=2
        )
    )
    assert "Targets were bound by: default: default-scheduler; mine: my-scheduler." in result.comparison.notes
    assert not any("asks for the scheduler" in note for note in result.comparison.notes)
    silent, other = "schedulerName my-scheduler (no event)", "default-scheduler"
    by = iter([silent, other, other])

    def bound(record: RoundRecord) -> RoundRecord:
        if record.phase != "mine":
            return record
        placements = [replace(one, decided_by=next(by, "my-scheduler")) for one in record.placements]
        return replace(record, placements=placements)

    rounds = [bound(record) for record in result.rounds]
    found = compare(result.scenario, "", result.blocks, rounds, result.cells, [])
    [told] = [note for note in found.notes if "asks for" in note]
    assert told == (
        "mine asks for the scheduler my-scheduler, but of its targets were bound: 2 by default-scheduler."
    )
    assert found.accuracy[1].decided_by == {other: 2, "my-scheduler": 13, silent: 1}


def test_nodes_that_are_one_machine_are_named_so(synthetic: ModuleType) -> None:
    result = synthetic.build(synthetic.Recipe(backend="kubernetes", blocks=2, samples=5))

    def told(*boot_ids: str) -> str:
        nodes = [replace(n, boot_id=b) for n, b in zip(result.nodes, boot_ids, strict=False)]
        notes = compare(result.scenario, "", result.blocks, result.rounds, result.cells, nodes).notes
        return next((note for note in notes if "machine" in note), "")

    assert told(*"aaaaaa").startswith("The 6 nodes are one machine (one boot id): they share its kernel")
    assert told(*"aaabbb").startswith(
        "The 6 nodes are 2 machines (by boot id): those on one share its kernel"
    )
    assert "CPU contention" in told(*"aaabbb")
    assert told(*"abcdef") == ""
    assert told("", "") == ""
