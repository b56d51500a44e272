"""One look for all charts: made for a README's width of some 800 pixels, for greyscale and for the colour-blind.

Phases differ by colour, marker and line; roles of nodes by lightness and hatch. The colours are Okabe and Ito's.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

DPI = 100
INK = "#1a1a1a"
MUTED = "#5f6368"
FAINT = "#c9ccd1"
CLAIM = "#74777b"
SLO = "#7a1f5c"
BAD = "#c1121f"

RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same
    "font.size": 14,
    "axes.titlesize": 16,
    "axes.labelsize": 14,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": "#e6e8eb",
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 13,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class PhaseStyle(NamedTuple):
    """How a phase looks wherever it appears."""

    color: str
    marker: str
    line: Literal["-", "-."] | tuple[float, tuple[float, ...]]


PHASES = (
    PhaseStyle("#D55E00", "o", "-"),
    PhaseStyle("#0072B2", "D", "-"),
    PhaseStyle("#009E73", "^", "-."),
    PhaseStyle("#CC79A7", "v", (0, (6, 1))),
    PhaseStyle("#B8860B", "s", (0, (3, 1, 1, 1))),
    PhaseStyle("#56B4E9", "P", (0, (1, 1))),
)

ROLES = {"noisy": ("#D55E00", "///"), "shared": ("#bdbdbd", "..."), "quiet": ("#cfe6f5", "")}
"""Colour and hatch of a node's role."""


def phase_style(index: int) -> PhaseStyle:
    """The look of the scenario's phase number `index`; beyond six they come again."""
    return PHASES[index % len(PHASES)]


def figure(width_px: int, height_px: int) -> Figure:
    """An empty figure with automatic layout."""
    made = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI)
    made.set_layout_engine("constrained", w_pad=0.14, h_pad=0.1, wspace=0.02, hspace=0.02)
    FigureCanvasAgg(made)
    return made


def save(made: Figure, path: Path) -> None:
    """Write a PNG without a date or a version in it."""
    made.savefig(path, format="png", metadata={"Software": None})


def bare(ax: Axes) -> None:
    """No axes, only what is put on them."""
    ax.set_axis_off()
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)


def free(text: Text) -> Text:
    """A text that the automatic layout makes no room for: it lies within its panel, or in room that is kept for it."""
    text.set_in_layout(False)
    return text


def wrap(text: str, columns: int) -> str:
    """Broken into lines at blanks."""
    return "\n".join(textwrap.wrap(text, columns, break_long_words=False))


def milliseconds(value_ns: float) -> str:
    """Two or three significant digits: `0.31 ms`, `4.2 ms`, `45 ms`."""
    value = value_ns / 1e6
    return f"{value:.2f} ms" if value < 1 else f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def log_ms(ax: Axes) -> None:
    """A logarithmic axis in milliseconds with plain numbers."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    steps = (1, 2, 5) if high / low < 400 else (1,)
    ax.yaxis.set_major_locator(LogLocator(10, steps))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y")


def slo(ax: Axes, limits_ms: Iterable[float]) -> None:
    """A dashed line at each promised p99, named in the margin where no data can be."""
    for limit_ms in sorted(set(limits_ms)):
        ax.axhline(limit_ms, color=SLO, linewidth=1.6, linestyle=(0, (5, 3)), zorder=1)
        ax.annotate(
            f"SLO\n{limit_ms:g} ms",
            (1, limit_ms),
            (5, 0),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            fontsize=12,
            color=SLO,
        )


def title(made: Figure, text: str) -> None:
    """The chart's own heading, at the left."""
    made.suptitle(text, x=0.012, ha="left", fontsize=22, fontweight="bold")


def foot(made: Figure, text: str) -> None:
    """What the chart rests on, in small, beneath it."""
    made.supxlabel(text, fontsize=12, color=MUTED, x=0.012, ha="left")


def empty(ax: Axes, stamp: str, detail: str = "", columns: int = 44) -> None:
    """A panel with nothing to draw says so, and why."""
    bare(ax)
    free(ax.text(0.5, 0.58, stamp, ha="center", va="center", fontsize=22, color=MUTED, fontweight="bold"))
    free(ax.text(0.5, 0.5, wrap(detail, columns), ha="center", va="top", fontsize=13, color=MUTED))
