"""How a run decides what comes next: tables over journals, no clock."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kabench.controller.run import Progress
from kabench.core.journal import BlockClosed, BlockStarted
from kabench.core.spec import Scenario


def scenario(
    planned: int = 3, reserve: int = 2, budget_s: float | None = None, phases: Sequence[str] = ("a",)
) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "s",
            "phases": [{"name": name, "policy": "default"} for name in phases],
            "targets": [{"name": "r", "kind": "redis"}],
            "blocks": {"planned": planned, "reserve": reserve},
            "timing": {"budget_s": budget_s},
        }
    )


@pytest.mark.parametrize(
    ("valid", "void", "wants", "reserve"),
    [
        (0, 0, True, False),
        (2, 0, True, False),
        (3, 0, False, True),
        (2, 1, True, True),  # one void block, replaced
        (1, 3, True, True),
        (1, 4, False, True),  # the reserve is used up
        (0, 5, False, True),
    ],
)
def test_reserve_blocks_replace_void_ones(valid: int, void: int, wants: bool, reserve: bool) -> None:
    progress = Progress(valid=valid, void=void)
    assert progress.wants_block(scenario(), 0.0) is wants
    assert progress.next_is_reserve(scenario()) is reserve


def test_a_reserve_block_that_would_end_after_the_budget_does_not_start() -> None:
    progress = Progress(valid=2, void=1, rounds=2, spent_s=24.0)
    assert progress.wants_block(scenario(budget_s=100), 88.0)
    assert not progress.wants_block(scenario(budget_s=100), 88.1)


def test_a_reserve_block_needs_time_for_all_of_its_rounds_though_void_ones_ended_early() -> None:
    progress = Progress(valid=2, void=1, rounds=3, spent_s=30.0)
    two = scenario(phases=("a", "b"), budget_s=100)
    assert progress.wants_block(two, 80.0)
    assert not progress.wants_block(two, 80.1)


def test_a_planned_block_starts_whatever_the_budget_says() -> None:
    assert Progress(valid=1, rounds=1, spent_s=10.0).wants_block(scenario(budget_s=5), 50.0)


def test_a_resumed_run_goes_on_after_its_last_whole_block_and_never_reuses_a_number() -> None:
    def begun(block: int) -> BlockStarted:
        return BlockStarted(block, ["a"], [], {}, False, 0)

    journal = [
        begun(1),
        BlockClosed(1, True, [], 0),
        begun(2),
        BlockClosed(2, False, [], 0),
        begun(3),  # interrupted
    ]
    progress = Progress.of(journal)
    assert (progress.valid, progress.void, progress.interrupted, progress.last_block) == (1, 1, 1, 3)
    assert progress.wants_block(scenario(planned=2, reserve=1), 0.0)
    assert progress.next_is_reserve(scenario(planned=2, reserve=1))
    assert not progress.next_is_reserve(scenario(planned=3, reserve=1))  # the interrupted one does not count
