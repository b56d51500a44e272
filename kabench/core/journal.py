"""What a run writes down as it goes: `journal.jsonl`, one event a line, in order.

`results.json` is made of the journal and the agents' logs, and of nothing else: a run that was killed is read the same
way. A torn last line is passed over.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kabench.core.result import NodeRecord, RoundRecord, Tried, VoidReason


class RunStarted(msgspec.Struct, frozen=True, tag="run-started", tag_field="event"):
    """The first line: all that a resumed run needs."""

    run: str
    kabench: str
    backend: str
    placement_note: str
    scenario: dict[str, Any]
    scenario_sha256: str
    seed: int
    realtime_ns: int


class FleetReady(msgspec.Struct, frozen=True, tag="fleet-ready", tag_field="event"):
    """Agents answer; the nodes as they are. Again after a resume."""

    nodes: list[NodeRecord]
    environment: dict[str, Any]
    realtime_ns: int


class BlockStarted(msgspec.Struct, frozen=True, tag="block-started", tag_field="event"):
    """A block begins; its number is never used twice."""

    block: int
    order: list[str]
    noise_nodes: list[str]
    roles: dict[str, str]
    reserve: bool
    realtime_ns: int


class RoundStarted(msgspec.Struct, frozen=True, tag="round-started", tag_field="event"):
    """A window was armed: from here on agents may hold a log of it."""

    window: str
    block: int
    phase: str
    realtime_ns: int


class RoundEnded(msgspec.Struct, frozen=True, tag="round-ended", tag_field="event"):
    """The round's record; the logs that could be had are in the results folder."""

    record: RoundRecord


class BlockClosed(msgspec.Struct, frozen=True, tag="block-closed", tag_field="event"):
    """The block is whole and judged."""

    block: int
    valid: bool
    void: list[VoidReason]
    realtime_ns: int


class PhaseAdded(msgspec.Struct, frozen=True, tag="phase-added", tag_field="event"):
    """A phase that the scenario did not have; from the first one on, these are the run's phases."""

    phase: dict[str, Any]


class RunEnded(msgspec.Struct, frozen=True, tag="run-ended", tag_field="event"):
    """The run stopped: "finished" or "interrupted" or "failed"."""

    status: str
    realtime_ns: int
    error: str = ""


Event = (
    RunStarted
    | FleetReady
    | PhaseAdded
    | BlockStarted
    | RoundStarted
    | RoundEnded
    | BlockClosed
    | Tried
    | RunEnded
)
