"""Reading `journal.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kabench.core.journal import BlockClosed, Event, RunStarted
from kabench.errors import StoreError
from kabench.store.files import storing

JOURNAL = "journal.jsonl"

_decoder = msgspec.json.Decoder(Event)


@dataclass(frozen=True)
class Journal:
    """The events that could be read, in order, and why reading stopped early ("": it did not)."""

    events: list[Event] = field(default_factory=list)
    problem: str = ""

    @property
    def run(self) -> str | None:
        """Whose journal it is."""
        first = self.events[0] if self.events else None
        return first.run if isinstance(first, RunStarted) else None

    def is_void(self, block: int) -> bool:
        """Whether a block does not count: it was judged void, or never closed."""
        closed = [event for event in self.events if isinstance(event, BlockClosed) and event.block == block]
        return not closed or not closed[-1].valid


def scan_journal(path: Path) -> Journal:
    """Read up to the first line that is no event; a last line without its end was torn, and is passed over.

    Raises:
        StoreError: the file cannot be read.
    """
    with storing(path):
        *lines, _torn = path.read_bytes().split(b"\n")
    events: list[Event] = []
    for number, line in enumerate(lines, 1):
        try:
            events.append(_decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return Journal(
                events, f"line {number} is no event ({error}); {len(events)} events before it were read"
            )
    return Journal(events)


def read_journal(folder: Path) -> list[Event]:
    """The events of the run in `folder`; empty before its first.

    Raises:
        StoreError: it is not a run's folder, or its journal is corrupt.
    """
    path = folder / JOURNAL
    if not path.is_file():
        raise StoreError(f"{folder}: not a run's folder, it has no {JOURNAL}")
    journal = scan_journal(path)
    if journal.problem:
        raise StoreError(f"{path}: {journal.problem}")
    return journal.events
