"""The charts of every shape of run: drawn without a display or a warning, the same bytes each time, and honest."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from kabench.core.identity import Metric
from kabench.core.result import RunResult, VoidReason
from kabench.errors import StoreError
from kabench.report.charts import CHARTS, draw_all, style
from kabench.report.charts.facts import CLAIM_SOURCE, Facts

LATE = VoidReason("lag", "default", "node-4: lag p99 0.81 ms (0.5 ms allowed)")


def words(chart: str, result: RunResult) -> str:
    """All text in a chart, blanks and line breaks as one blank."""
    with matplotlib.rc_context(style.RC):
        drawn = CHARTS[chart](Facts.of(result))
        drawn.draw_without_rendering()  # sets the ticks' texts
    texts = (text.get_text() for text in _texts(drawn))
    return " ".join(" ".join(texts).split())


def _texts(drawn: Figure) -> Iterator[Text]:
    for artist in drawn.findobj(Text):
        if isinstance(artist, Text) and artist.get_visible():
            yield artist


def recipes(synthetic: ModuleType) -> dict[str, RunResult]:
    recipe, build = synthetic.Recipe, synthetic.build
    controls = (synthetic.DEFAULT, synthetic.AWARE, *synthetic.CONTROLS)
    six = (*controls, synthetic.Phase(name="a-phase-with-a-name-as-long-as-it-gets-x", scheduler="mine"))
    return {
        "one phase, one kind": build(
            recipe(phases=(synthetic.DEFAULT,), targets=(synthetic.REDIS,), samples=80)
        ),
        "six phases": build(recipe(phases=six, blocks=7, samples=30)),
        "no block": build(recipe(blocks=0)),
        "all void": build(recipe(void={n: [LATE] for n in range(1, 3)}, blocks=2, samples=40)),
        "no noise": build(recipe(noise_nodes=0, roles=("quiet",) * 6, blocks=2, samples=80)),
        "no quiet node": build(recipe(roles=("noisy", "noisy", *["shared"] * 4), blocks=2, samples=20)),
        "nothing to scale an axis by": build(
            recipe(samples=5, blocks=2, targets=(synthetic.REDIS.model_copy(update={"slo": None}),))
        ),
        "too few samples": build(
            recipe(samples=5, blocks=2, backend="kubernetes", phases=synthetic.KUBERNETES)
        ),
    }


def test_every_shape_of_run_has_four_charts(synthetic: ModuleType, tmp_path: Path) -> None:
    for name, result in recipes(synthetic).items():
        folder = tmp_path / name
        folder.mkdir()
        paths = draw_all(result, folder)
        assert [path.name for path in paths] == list(CHARTS), name
        for path in paths:
            width, height = struct.unpack(">II", path.read_bytes()[16:24])
            assert 1200 <= width <= 1600, (name, path.name)
            assert 400 <= height <= 1800, (name, path.name)


def test_the_same_results_give_the_same_bytes(synthetic: ModuleType, tmp_path: Path) -> None:
    result = synthetic.build(synthetic.Recipe(targets=(synthetic.HTTP,), blocks=2, samples=60))
    contents = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        folder.mkdir()
        contents.append([path.read_bytes() for path in draw_all(result, folder)])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("chart", CHARTS)
def test_the_claim_is_never_shown_as_ours(synthetic: ModuleType, chart: str) -> None:
    text = words(chart, synthetic.build(synthetic.Recipe(blocks=2, samples=60)))
    assert "simulated placement" in text
    if chart == "latency_distribution.png":
        return  # no percentile curve was ever claimed
    assert "claim by others" in text
    assert CLAIM_SOURCE in text


def test_a_difference_shows_its_interval_and_that_it_is_no_verdict(synthetic: ModuleType) -> None:
    result = synthetic.build(synthetic.Recipe(samples=150))
    text = words("p99_comparison.png", result)
    assert "difference, no verdict" in text
    assert text.count("95% interval −") == 2
    assert "SLO 1 ms" in text
    assert "SLO 5 ms" in text
    assert f"{result.comparison.accuracy[0].placed} on noisy" in words("placement_accuracy.png", result)
    assert "chance 33%" in words("placement_accuracy.png", result)


def test_no_difference_is_stamped(synthetic: ModuleType) -> None:
    recipe = synthetic.Recipe(on_noisy={"default": 0.4, "contention-aware": 0.4}, samples=150)
    assert "no difference found" in words("p99_comparison.png", synthetic.build(recipe))


def test_too_few_blocks_are_stamped_and_shown_all_the_same(synthetic: ModuleType) -> None:
    text = words("p99_comparison.png", synthetic.build(synthetic.Recipe(blocks=3, samples=150)))
    assert "too few blocks" in text
    assert "3 of 7" in text
    assert "95% interval" not in text
    assert " ms" in text


@pytest.mark.parametrize("chart", CHARTS)
def test_a_void_run_is_stamped(synthetic: ModuleType, chart: str) -> None:
    recipe = synthetic.Recipe(blocks=2, void={1: [LATE], 2: [LATE]}, samples=40)
    assert "VOID" in words(chart, synthetic.build(recipe))


def test_the_dashboard_names_void_blocks_with_reasons(synthetic: ModuleType) -> None:
    text = words("dashboard.png", synthetic.build(synthetic.Recipe(void={3: [LATE]}, samples=60)))
    assert "block 3 void: default: node-4: lag p99 0.81 ms (0.5 ms allowed)" in text
    assert "7 valid blocks, 1 void" in text


def test_curves_end_where_fewer_than_100_samples_lie_beyond(synthetic: ModuleType) -> None:
    [kind] = Facts.of(synthetic.build(synthetic.Recipe(targets=(synthetic.REDIS,), samples=60))).kinds
    nines, values = kind.curve("default", Metric.RESPONSE)
    total = kind.requests("default")
    assert 10 ** -nines[-1] * total == pytest.approx(100)
    assert values == sorted(values)
    assert kind.curve("no such phase", Metric.RESPONSE) == ([], [])


def test_a_folder_that_is_not_there_is_a_clear_error(synthetic: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"p99_comparison\.png: cannot write the chart"):
        draw_all(synthetic.build(synthetic.Recipe(blocks=0)), tmp_path / "nowhere")


def test_a_run_on_kubernetes_shows_headroom_and_no_simulation(synthetic: ModuleType) -> None:
    recipe = synthetic.Recipe(backend="kubernetes", phases=synthetic.KUBERNETES, samples=150, blocks=10)
    result = synthetic.build(recipe)
    found = {chart: words(chart, result) for chart in CHARTS}
    for text in found.values():
        assert "simulated" not in text
        assert "kubernetes backend" in text
    assert "what placement could change here at most" in found["p99_comparison.png"]
    assert "No second scheduler was compared" in found["dashboard.png"]
    assert "Targets were bound by: default: default-scheduler" in found["dashboard.png"]
    assert "pending" not in found["placement_accuracy.png"]


def test_targets_left_pending_are_shown(synthetic: ModuleType) -> None:
    phases = (synthetic.KUBERNETES[0], synthetic.MINE)
    recipe = synthetic.Recipe(backend="kubernetes", phases=phases, samples=5, blocks=2, unplaced={"mine": 3})
    text = words("placement_accuracy.png", synthetic.build(recipe))
    assert text.count("left pending") == 1
    assert "of 10 on noisy 6 left pending" in text


def test_long_names_are_slanted_where_they_would_touch(synthetic: ModuleType) -> None:
    def slant(phases: tuple[object, ...]) -> set[float]:
        recipe = synthetic.Recipe(backend="kubernetes", phases=phases, samples=60, blocks=2)
        with matplotlib.rc_context(style.RC):
            drawn = CHARTS["dashboard.png"](Facts.of(synthetic.build(recipe)))
            drawn.draw_without_rendering()
        named = {phase.name for phase in phases}  # type: ignore[attr-defined]
        return {text.get_rotation() for text in _texts(drawn) if text.get_text() in named}

    assert slant(synthetic.KUBERNETES[:3]) == {28.0}
    assert slant((synthetic.KUBERNETES[0], synthetic.MINE)) == {0.0}
