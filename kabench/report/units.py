"""Nanoseconds and counts as a person reads them."""

from __future__ import annotations


def ms(value_ns: float | None) -> str:
    """Milliseconds with three digits; "–" where nothing can be said."""
    if value_ns is None:
        return "–"
    value = value_ns / 1e6
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"


def clock(seconds: float) -> str:
    """`4:05`, or `1:04:05`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, last = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{last:02d}" if hours else f"{minutes}:{last:02d}"


def per_cent(share: float | None) -> str:
    """`12%`; "–" where nothing can be said."""
    return "–" if share is None else f"{share:.0%}"
