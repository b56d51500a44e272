"""Who watches a run: what the controller tells as it goes, and nobody needs for the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kabench.backends.base import Node
from kabench.core.result import RoundRecord, RunResult, VoidReason
from kabench.wire.messages import Interval


class Observer(Protocol):
    """Called from the run's event loop, in the order of events; a call must return at once and not raise."""

    def plan(self, lines: Sequence[str]) -> None:
        """What is about to be done, for a reader; before anything is started."""
        ...

    def stage(self, text: str) -> None:
        """The step that begins now: start, noise, probe, place, prepare, measure, collect."""
        ...

    def fleet(self, nodes: Sequence[Node]) -> None:
        """The nodes are up and their agents answer."""
        ...

    def block_started(
        self, block: int, total: int, order: Sequence[str], noise_nodes: Sequence[str], reserve: bool
    ) -> None:
        """A block begins; `total` blocks are planned, and a `reserve` one replaces a void one."""
        ...

    def round_started(self, block: int, phase: str, index: int, total_rounds: int, seconds: float) -> None:
        """A round begins, the `index`-th (from 1) of its block's; `seconds` are its warm-up and window."""
        ...

    def interval(self, agent: str, interval: Interval) -> None:
        """An agent closed an interval."""
        ...

    def round_ended(self, record: RoundRecord) -> None:
        """A round is over and its logs are collected."""
        ...

    def block_closed(self, block: int, valid: bool, reasons: Sequence[VoidReason]) -> None:
        """A block is judged."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...

    def finished(self, result: RunResult) -> None:
        """The results are written; also of a run that was cut short."""
        ...


class NullObserver:
    """Watches nothing: for callers that want the result alone, and to inherit from."""

    def plan(self, lines: Sequence[str]) -> None:
        """Nothing."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def fleet(self, nodes: Sequence[Node]) -> None:
        """Nothing."""

    def block_started(
        self, block: int, total: int, order: Sequence[str], noise_nodes: Sequence[str], reserve: bool
    ) -> None:
        """Nothing."""

    def round_started(self, block: int, phase: str, index: int, total_rounds: int, seconds: float) -> None:
        """Nothing."""

    def interval(self, agent: str, interval: Interval) -> None:
        """Nothing."""

    def round_ended(self, record: RoundRecord) -> None:
        """Nothing."""

    def block_closed(self, block: int, valid: bool, reasons: Sequence[VoidReason]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def finished(self, result: RunResult) -> None:
        """Nothing."""
