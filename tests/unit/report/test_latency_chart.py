"""The chart of a load run: what it says, in every shape of run, and the same bytes each time."""

from __future__ import annotations

import struct
from pathlib import Path
from types import ModuleType

import matplotlib
import msgspec
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from kabench.core.result import RunResult
from kabench.report.charts import LOAD_CHARTS, draw_all, style
from kabench.report.charts.load_facts import LoadFacts


def drawn(result: RunResult) -> tuple[Figure, str]:
    with matplotlib.rc_context(style.RC):
        figure = LOAD_CHARTS["latency.png"](LoadFacts.of(result))
        figure.draw_without_rendering()
    texts = [t.get_text() for t in figure.findobj(Text) if isinstance(t, Text) and t.get_visible()]
    return figure, " ".join(" ".join(texts).split())


STEPS = [
    {"at": 0, "factor": 0.2},
    {"at": 0.5, "factor": 0.2},
    {"at": 0.5, "factor": 1},
    {"at": 1, "factor": 1},
]


def recipes(synthetic: ModuleType) -> dict[str, RunResult]:
    recipe, build = synthetic.LoadRecipe, synthetic.build_load
    targets = (synthetic.A_REDIS, synthetic.B_REDIS, synthetic.A_SERVER)
    one = build(recipe(samples=300))
    return {
        "one target": one,
        "steps, errors, two kinds": build(
            recipe(targets=targets, samples=300, skipped=24, errors=3, load={"profile": STEPS})
        ),
        "closed": build(recipe(load={"loop": "closed", "connections": 50}, samples=300)),
        "too few": build(recipe(samples=3, seconds=3)),
        "without seconds": msgspec.structs.replace(one, seconds=[]),
        "nothing": msgspec.structs.replace(one, seconds=[], cells=[]),
        "an hour": build(recipe(samples=20, seconds=3600, agents=1)),
    }


def test_every_shape_of_load_has_one_chart_instead_of_the_four(synthetic: ModuleType, tmp_path: Path) -> None:
    for name, result in recipes(synthetic).items():
        contents = []
        for folder in (tmp_path / name, tmp_path / f"{name} again"):
            folder.mkdir()
            (path,) = draw_all(result, folder)
            contents.append(path.read_bytes())
        assert path.name == "latency.png"
        width, height = struct.unpack(">II", contents[0][16:24])
        assert (width, height) == (1400, 1180), name
        assert contents[0] == contents[1], name


def test_the_spectrum_shows_both_times_on_the_axis_of_nines(synthetic: ModuleType) -> None:
    figure, text = drawn(synthetic.build_load())
    assert "response time (from when it was due)" in text
    assert "service time (from the send)" in text
    assert "wait and lag: what timing from the send leaves out" in text
    assert "percentile of 24,000 requests" in text
    assert "127.0.0.1:6379" in text
    spectrum = next(ax for ax in figure.axes if "percentile" in ax.get_xlabel())
    service, response = (line.get_xydata() for line in spectrum.lines)
    nines = float(spectrum.get_xticks()[2])
    assert nines == pytest.approx(2)
    assert spectrum.get_xticklabels()[2].get_text() == "p99"
    at_p99 = [min(line, key=lambda point: abs(point[0] - nines))[1] for line in (service, response)]
    assert at_p99[1] == pytest.approx(30, rel=0.05)
    assert at_p99[0] < 0.3
    assert float(response[-1][0]) == pytest.approx(2.38, abs=0.01)  # 100 of 24,000 lie beyond


def test_the_rate_asked_for_steps_where_the_profile_does(synthetic: ModuleType) -> None:
    figure, text = drawn(synthetic.build_load(synthetic.LoadRecipe(load={"profile": STEPS}, seconds=10)))
    (panel,) = (ax for ax in figure.axes if ax.get_ylabel() == "requests/s")
    asked = [float(value) for value in panel.lines[0].get_ydata()]
    assert asked == [pytest.approx(400)] * 5 + [pytest.approx(2000)] * 5
    assert "asked" in text
    assert "failed" not in text


def test_the_drain_is_not_drawn_and_few_requests_have_no_p99_in_a_second(synthetic: ModuleType) -> None:
    facts = LoadFacts.of(synthetic.build_load(synthetic.LoadRecipe(samples=40, seconds=5)))
    (course,) = facts.panels[0].courses
    assert course.at_s == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert course.p99_ms == course.service_p99_ms == [None] * 5
    assert None not in course.p50_ms
    assert None not in course.max_ms
    many = LoadFacts.of(synthetic.build_load(synthetic.LoadRecipe(samples=1000, seconds=5)))
    assert None not in many.panels[0].courses[0].p99_ms


def test_a_last_second_that_is_short_has_a_rate_all_the_same(synthetic: ModuleType) -> None:
    result = synthetic.build_load(synthetic.LoadRecipe(seconds=2))
    record = msgspec.structs.replace(result.seconds[0], window_ns=1_500_000_000, ok=[100, 50, 0])
    (course,) = LoadFacts.of(msgspec.structs.replace(result, seconds=[record])).panels[0].courses
    assert course.ok_per_s == [100, 100]
    assert course.at_s == [0.5, 1.25]


def test_a_kind_with_several_targets_is_drawn_by_its_sum(synthetic: ModuleType) -> None:
    targets = (synthetic.A_REDIS, synthetic.B_REDIS)
    result = synthetic.build_load(synthetic.LoadRecipe(targets=targets, samples=100, seconds=2))
    (panel,) = LoadFacts.of(result).panels
    assert panel.title == "redis  ·  2 targets"
    (course,) = panel.courses
    assert course.ok_per_s == [float(ok) for ok in result.seconds[0].ok[:2]]
    assert result.seconds[0].target == ""


def test_doubts_and_shortfalls_stand_in_the_chart(synthetic: ModuleType) -> None:
    recipe = synthetic.LoadRecipe(null_p99_ns=300_000, cpu_share=0.95, skipped=3000)
    _, text = drawn(synthetic.build_load(recipe))
    assert text.count("the generator may be the tail") == 3  # the stamp, and two reasons
    assert "offered not reached" in text
    _, calm = drawn(synthetic.build_load())
    assert "may be the tail" not in calm
    assert "lag p99 0.020 ms, null echo p99 0.040 ms, CPU 20%" in calm


def test_a_closed_loop_says_that_it_hides_queueing_and_asks_no_rate(synthetic: ModuleType) -> None:
    _, text = drawn(synthetic.build_load(synthetic.LoadRecipe(load={"loop": "closed"})))
    assert "closed loop: hides queueing" in text
    assert "asked" not in text
    assert "null echo's lag p99 0.020 ms" in text


def test_a_run_that_was_cut_short_says_so(synthetic: ModuleType) -> None:
    result = synthetic.build_load(synthetic.LoadRecipe(samples=50, seconds=2))
    assert "the run was interrupted" in drawn(msgspec.structs.replace(result, status="interrupted"))[1]
    assert "the run was" not in drawn(result)[1]


def test_more_phases_than_fit_are_named_as_left_out(synthetic: ModuleType) -> None:
    result = synthetic.build_load(synthetic.LoadRecipe(samples=20, seconds=2))
    names = [f"load-{number}" for number in range(5)]
    scenario = result.scenario | {"phases": [{"name": name, "standing": "given"} for name in names]}
    cells = [
        msgspec.structs.replace(record, cell=msgspec.structs.replace(record.cell, phase=name))
        for name in names
        for record in result.cells
    ]
    facts = LoadFacts.of(msgspec.structs.replace(result, scenario=scenario, cells=cells))
    assert [panel.title for panel in facts.panels] == [f"redis  ·  load-{number}" for number in range(3)]
    assert facts.left_out == 2
