"""A run's answer as plain data: what `kabench run --json` prints."""

from __future__ import annotations

from typing import Any

import msgspec

from kabench.core.result import RunResult


def run_summary(result: RunResult, folder: str) -> dict[str, Any]:
    """What `kabench merge --json` prints of the run, with its placements and its comparison."""
    placements = [
        {"phase": record.phase, "block": record.block, **msgspec.to_builtins(placement)}
        for record in result.rounds
        for placement in record.placements
    ]
    return {
        **result.summary,
        "placements": placements,
        "comparison": msgspec.to_builtins(result.comparison),
        "run": result.run,
        "status": result.status,
        "placement_note": result.placement_note,
        "folder": folder,
    }
