"""A run's answer as plain data: what `kabench run --json` prints."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from kabench.analysis.connections import apart
from kabench.analysis.instrument import all_proofs, run_doubts
from kabench.analysis.loading import is_standing, loaded_of
from kabench.core.result import RunResult
from kabench.report.load import load_doubts, not_reached


def run_summary(result: RunResult, folder: str) -> dict[str, Any]:
    """What `kabench merge --json` prints of the run, with its placements, its comparison and the instrument's proof.

    `doubts` says why a figure may be the generator's, `not_reached` where less than the asked rate reached a target, and
    `connections_apart` which connection was much slower than the fastest.

    Raises:
        LogError: a histogram in the results is corrupt.
    """
    placements = [
        {"phase": record.phase, "block": record.block, **msgspec.to_builtins(placement)}
        for record in result.rounds
        for placement in record.placements
    ]
    agents = all_proofs(result)
    if is_standing(result):
        found = loaded_of(result)
        doubts, short = load_doubts(found, agents), not_reached(found)
    else:
        doubts, short = run_doubts(result), []
    return {
        **result.summary,
        "instrument": [dataclasses.asdict(agent) for agent in agents],
        "doubts": [str(doubt) for doubt in doubts],
        "connections_apart": [
            str(one) for one in apart(w for record in result.rounds for w in record.agents)
        ],
        "not_reached": short,
        "placements": placements,
        "comparison": msgspec.to_builtins(result.comparison),
        "run": result.run,
        "status": result.status,
        "placement_note": result.placement_note,
        "folder": folder,
    }
