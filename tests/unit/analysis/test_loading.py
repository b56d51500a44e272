"""What a load run found: sums, rates, and why an offered rate was not reached."""

from __future__ import annotations

from types import ModuleType

import pytest

from kabench.analysis.loading import factor_at, is_standing, loaded_of, mean_factor, shortfalls
from kabench.analysis.pooling import AT_ONCE, added
from kabench.core.histogram import Histogram
from kabench.core.identity import Metric
from kabench.core.result import RunResult
from kabench.errors import LogError


def test_kinds_come_first_and_several_targets_of_one_below_it(synthetic: ModuleType) -> None:
    targets = (synthetic.A_REDIS, synthetic.B_REDIS, synthetic.A_SERVER)
    recipe = synthetic.LoadRecipe(targets=targets, samples=50, seconds=2, agents=3)
    result: RunResult = synthetic.build_load(recipe)
    assert is_standing(result)
    found = loaded_of(result)
    assert [(one.kind, one.target, one.address) for one in found] == [
        ("redis", "", ""),
        ("redis", "redis-1", "127.0.0.1:6379"),
        ("redis", "redis-2", "[::1]:6380"),
        ("http", "", ""),
    ]
    assert [one.outcomes.sent for one in found] == [600, 300, 300, 300]
    assert [one.histogram(Metric.RESPONSE).total for one in found] == [600, 300, 300, 300]
    assert [one.asked_per_s for one in found] == [300, 150, 150, 150]
    assert [one.per_s(one.outcomes.ok) for one in found] == [300, 150, 150, 150]


def test_a_run_that_places_targets_is_none(synthetic: ModuleType) -> None:
    assert not is_standing(synthetic.build(synthetic.Recipe(blocks=1, samples=5)))


@pytest.mark.parametrize(
    ("points", "mean"),
    [
        ([], 1.0),
        ([(0.0, 0.5), (1.0, 1.0)], 0.75),
        ([(0.0, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)], 0.75),
        ([(0.5, 2.0)], 2.0),
        ([(0.5, 1.0), (0.75, 0.0)], 0.5 + 0.125),
    ],
)
def test_a_profiles_mean_is_its_area(points: list[tuple[float, float]], mean: float) -> None:
    assert mean_factor(points) == pytest.approx(mean)
    steps = 20_000
    assert sum(factor_at(points, (n + 0.5) / steps) for n in range(steps)) / steps == pytest.approx(
        mean, rel=1e-3
    )


def test_a_rate_that_was_reached_is_not_called_short(synthetic: ModuleType) -> None:
    (loaded,) = loaded_of(synthetic.build_load())
    assert shortfalls(loaded) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"skipped": 3000}, "6,000 of 24,000 requests (25.0%) were skipped"),
        ({"load": {"rate_per_s": 4000}}, "4,000/s asked, 2,000/s planned"),
        ({"lag_ns": 400_000_000}, "the agents were late by 20"),
        ({"wait_ns": 400_000_000}, "half of the requests waited 20"),
    ],
)
def test_what_fell_short_is_said_with_its_reason(
    synthetic: ModuleType, changes: dict[str, object], said: str
) -> None:
    (loaded,) = loaded_of(synthetic.build_load(synthetic.LoadRecipe(**changes)))
    (line,) = shortfalls(loaded)
    assert said in line


def test_a_closed_loop_offers_no_rate_that_could_be_missed(synthetic: ModuleType) -> None:
    recipe = synthetic.LoadRecipe(load={"loop": "closed", "rate_per_s": 9e6})
    (loaded,) = loaded_of(synthetic.build_load(recipe))
    assert loaded.asked_per_s is None
    assert shortfalls(loaded) == []


def test_any_number_of_histograms_is_added_and_a_corrupt_one_is_refused() -> None:
    texts = []
    for value_ns in range(1, 2 * AT_ONCE + 4):
        one = Histogram()
        one.record(value_ns, value_ns)
        texts.append(one.encode())
    total = added(iter(texts))
    assert total.total == sum(range(1, 2 * AT_ONCE + 4))
    assert total.max_ns == 2 * AT_ONCE + 3
    assert added([]).total == 0
    with pytest.raises(LogError, match="base64"):
        added([*texts, "HIST!"])
