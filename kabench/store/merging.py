"""`kabench merge`: whatever logs the paths hold, summed up without loss, each window once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from kabench.core.identity import Metric
from kabench.core.merge import Corrupt, Merge, summary
from kabench.core.merged_log import read_merged
from kabench.core.seconds import Seconds, csv_lines
from kabench.errors import LogError, SpecError
from kabench.store.collect import Found, FoundLog, choose, find, read
from kabench.store.files import lines_of, write_atomic
from kabench.store.hgrm import percentile_table

SERIES = "series.csv"

Following = Callable[[Sequence[FoundLog]], Iterable[FoundLog]]
"""Gives the logs back one by one, and sees how far the merge has come."""


@dataclass(frozen=True)
class MergeReport:
    """What was merged.

    Attributes:
        summary: what `--json` prints.
        corrupt: files that could not be read whole, and why.
        unjudged: names of the logs without a journal; they were counted.
        windows: how many agents' windows were counted, void ones included.
        ignored: how many files held nothing new.
        files: what was written.
    """

    summary: dict[str, Any]
    corrupt: list[Corrupt]
    unjudged: list[str]
    windows: int
    ignored: int
    files: list[Path] = field(default_factory=list)


@dataclass
class Gathered:
    """A merge as it grows, and what a reader must know beside it."""

    merge: Merge = field(default_factory=Merge)
    corrupt: list[Corrupt] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    ignored: int = 0

    def report(self, files: list[Path]) -> MergeReport:
        """The figures."""
        figures = summary(self.merge.parts, self.corrupt, self.unjudged)
        return MergeReport(
            figures,
            sorted(set(self.corrupt)),
            figures["unjudged"],
            len(self.merge.members),
            self.ignored,
            files,
        )


def merge_paths(
    paths: Iterable[Path],
    out: Path,
    allow_different: bool = False,
    *,
    series: bool = False,
    following: Following = iter,
) -> MergeReport:
    """Merge all logs that the paths hold and write `merged.json`, `merged.hlog` and the `.hgrm` into `out`.

    Nothing is written when there is nothing to merge. With `series`, `series.csv` has every second of every target, of the
    agents' logs among them: merged logs hold no seconds. `following` is asked for the logs, one by one.

    Raises:
        SpecError: a path does not exist, holds no log, or the runs are of different scenarios (unless allowed).
        StoreError: `out` cannot be written.
    """
    given = list(paths)
    seconds = Seconds() if series else None
    gathered = gather(find(given), seconds, following)
    if not gathered.merge.members and not gathered.corrupt:
        raise SpecError(f"no agent's log (*.hlog) under {', '.join(str(path) for path in given)}")
    if not allow_different:
        gathered.merge.refuse_mixture()
    if not gathered.merge.members:
        return gathered.report([])
    files = _write(gathered, out)
    if seconds is not None:
        write_atomic(out / SERIES, "".join(csv_lines(seconds.records())).encode())
        files.append(out / SERIES)
    return gathered.report(files)


def gather(found: Found, seconds: Seconds | None = None, following: Following = iter) -> Gathered:
    """Sum up what was found, one log at a time; their intervals also second by second, where that is wanted."""
    gathered = Gathered(corrupt=list(found.corrupt))
    chosen = choose(found.logs, gathered.corrupt)
    gathered.ignored = len(found.logs) - len(chosen)
    for log in following(chosen):
        _add_log(gathered, found, log, seconds)
    _add_merged(gathered, found)
    return gathered


def _add_log(gathered: Gathered, found: Found, log: FoundLog, seconds: Seconds | None) -> None:
    try:
        totals = read(log, seconds)
    except LogError as error:
        gathered.corrupt.append(Corrupt(log.name, str(error)))
        return
    if totals.problem:
        gathered.corrupt.append(Corrupt(log.name, totals.problem))
    journal = found.journals.get(log.window_id.run)
    if journal is None:
        gathered.unjudged.append(log.name)
    void = journal is not None and journal.is_void(log.block)
    gathered.merge.add_window(totals, log.sha256, judged=journal is not None, void=void)


def _add_merged(gathered: Gathered, found: Found) -> None:
    """Add what merged logs hold beyond the agents' logs; the largest first, since it may contain others."""
    merges: list[tuple[int, str, Merge]] = []
    for name, path in found.merged:
        try:
            with path.open("rb") as file:
                merge = Merge.of_merged(*read_merged(lines_of(file)))
        except OSError as error:
            gathered.corrupt.append(Corrupt(name, f"cannot be read: {error.strerror}"))
        except LogError as error:
            gathered.corrupt.append(Corrupt(name, str(error)))
        else:
            merges.append((-len(merge.members), name, merge))
    for _, name, merge in sorted(merges, key=lambda entry: entry[:2]):
        try:
            if not gathered.merge.add(merge):
                gathered.ignored += 1
            elif not all(member.judged for member in merge.members.values()):
                gathered.unjudged.append(name)
        except LogError as error:
            gathered.corrupt.append(Corrupt(name, str(error)))


def _write(gathered: Gathered, out: Path) -> list[Path]:
    figures = msgspec.json.encode(summary(gathered.merge.parts, gathered.corrupt, gathered.unjudged))
    files = {
        "merged.json": msgspec.json.format(figures, indent=2) + b"\n",
        "merged.hlog": gathered.merge.to_bytes(),
    }
    for (void, phase, kind), totals in sorted(gathered.merge.parts.items()):
        for metric in (Metric.RESPONSE, Metric.SERVICE):
            if not void and metric in totals.histograms:
                files[f"{phase}.{kind}.{metric}.hgrm"] = percentile_table(totals.histograms[metric])
    for name, data in files.items():
        write_atomic(out / name, data)
    return [out / name for name in files]
