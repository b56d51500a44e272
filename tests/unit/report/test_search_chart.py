"""The chart of a search for the highest rate, from its tries."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import matplotlib
import msgspec
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from kabench.core.result import RunResult, Tried
from kabench.report.charts import draw_all, search, style
from kabench.report.charts.search import SearchFacts


def searched(synthetic: ModuleType, *tries: Tried) -> RunResult:
    result = synthetic.build_load(synthetic.LoadRecipe(samples=10, seconds=2))
    return msgspec.structs.replace(result, journal=[msgspec.to_builtins(tried) for tried in tries])


def tried(rate: float, outcome: str, p99_ms: float | None, ok: float | None = None) -> Tried:
    times = {"p50": 100_000, "p99": None if p99_ms is None else int(p99_ms * 1e6)}
    detail = "" if outcome == "holds" else "p99 was too long"
    return Tried("p99 < 5ms", f"r{rate:g}", rate, outcome, detail, times, 0.0, rate if ok is None else ok)


TRIES = (
    tried(1000, "holds", 1.2),
    tried(2000, "holds", 1.5),
    tried(4000, "slo", 9.0, 3500),
    tried(8000, "generator", 50.0, 5000),
)


def drawn(facts: SearchFacts) -> tuple[Figure, str]:
    with matplotlib.rc_context(style.RC):
        figure = search.draw(facts)
        figure.draw_without_rendering()
    texts = [t.get_text() for t in figure.findobj(Text) if isinstance(t, Text) and t.get_visible()]
    return figure, " ".join(" ".join(texts).split())


def test_a_search_has_its_own_chart_under_the_same_name(synthetic: ModuleType, tmp_path: Path) -> None:
    result = searched(synthetic, *TRIES)
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (path,) = draw_all(result, folder)
        assert path.name == "latency.png"
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    (plain,) = draw_all(searched(synthetic), tmp_path)
    assert plain.read_bytes() != contents[0]


def test_tries_are_drawn_by_rate_and_what_the_generator_limited_is_on_no_line(synthetic: ModuleType) -> None:
    figure, text = drawn(SearchFacts.of(searched(synthetic, *reversed(TRIES))))
    assert "The highest rate that holds p99 < 5ms" in text
    assert "2,000/s holds p99 < 5ms" in text
    assert "SLO 5 ms" in text
    assert "4 tries" in text
    assert "1,000" in text
    assert "$" not in text
    times = next(ax for ax in figure.axes if ax.get_ylabel().startswith("response"))
    p99 = next(line for line in times.lines if line.get_color() == style.phase_style(1).color)
    assert [list(point) for point in p99.get_xydata()] == [[1000, 1.2], [2000, 1.5], [4000, 9.0]]
    points = [c for c in times.collections if isinstance(c, PathCollection)]
    assert len(points) == 8


def test_what_is_withheld_is_not_drawn(synthetic: ModuleType) -> None:
    facts = SearchFacts.of(searched(synthetic, tried(100, "holds", None), tried(200, "lost", None, 0)))
    assert facts.names == ["p50"]
    figure, _ = drawn(facts)
    points = [c for ax in figure.axes for c in ax.collections if isinstance(c, PathCollection)]
    assert len(points) == 2 + 1  # a median each, and what was answered
    nothing = msgspec.structs.replace(tried(100, "lost", None, 0), quantiles_ns={})
    assert "WITHHELD" in drawn(SearchFacts.of(searched(synthetic, nothing)))[1]
