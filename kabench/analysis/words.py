"""Figures and phases in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kabench.core.identity import silent_scheduler

BEST, WORST = "the best that placement could reach here", "the worst that placement could do here"
_BOUNDS = {"quiet": BEST, "noisy": WORST}


def bound_of(scenario: Mapping[str, Any], phase: str) -> str:
    """What an oracle arm stands for, since it is no scheduler that one could have; "" for any other phase."""
    pins = {str(one["name"]): one.get("pin") for one in scenario["phases"]}
    return _BOUNDS.get(str(pins.get(phase)), "")


def was_decided_by(by: str, scheduler: str) -> bool:
    """Whether a placement's `decided_by` names that scheduler; one that sends no events is believed."""
    return by in (scheduler, silent_scheduler(scheduler))


def capital(text: str) -> str:
    """The same with a capital at its start."""
    return text[:1].upper() + text[1:]


def change(ratio: float) -> str:
    """`0.38` → "62% below", `1.2` → "20% above", `7.6` → "7.6 times"."""
    if ratio >= 3:
        return f"{ratio:.1f} times"
    if abs(ratio - 1) < 0.005:
        return "equal to"
    return f"{abs(ratio - 1):.0%} {'below' if ratio < 1 else 'above'}"


def signed_percent(ratio: float) -> str:
    """`0.38` → "−62%", `1.2` → "+20%"; from a tripling on "×3.4"."""
    if ratio >= 3:
        return f"×{ratio:.1f}"
    if abs(ratio - 1) < 0.005:
        return "±0%"
    return f"{'−' if ratio < 1 else '+'}{abs(ratio - 1):.0%}"


def milliseconds(value_ns: float | None) -> str:
    """Three significant digits and never an exponent, without the unit: `0.0213`, `4.58`, `3521`; "–" for None."""
    if value_ns is None:
        return "–"
    value = value_ns / 1e6
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def span(low: float, high: float) -> str:
    """An interval of ratios."""
    return f"{low:.2f} to {high:.2f}"
