"""What `kabench clean` and `kabench collect` do once their flags are read: runs whose controllers are gone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from kabench.backends.kubernetes.access import Access
from kabench.backends.kubernetes.api import Cluster, open_cluster
from kabench.backends.kubernetes.cleaning import remove, to_remove
from kabench.backends.kubernetes.holding import HeldRun, Holders, find_run, find_runs, holders
from kabench.cli.console import Terminal
from kabench.clock import SystemClock
from kabench.controller.collecting import Held, fetch, held, settled
from kabench.controller.crew import Crew
from kabench.core.spec import NS_PER_S
from kabench.errors import ClusterError, KabenchError
from kabench.report.tally import short_list
from kabench.store import RunStore

LOST = KabenchError.exit_code


@dataclass(frozen=True)
class Choice:
    """The flags of `kabench clean`. `discard`: logs that agents still hold may be lost."""

    run: str | None = None
    expired: bool = False
    everything: bool = False
    sure: bool = False
    discard: bool = False

    @property
    def empty(self) -> bool:
        """Nothing is to be removed."""
        return self.run is None and not self.expired and not self.everything


async def clean_up(access: Access, choice: Choice) -> int:
    """Remove the runs that are meant, or only say what there is; returns the exit code.

    Raises:
        SpecError: the flags do not go together, or the run they name is not there.
        ClusterError: the API server does not answer, or refuses.
    """
    console = Terminal(soft_wrap=True, highlight=False, markup=False)
    clock = SystemClock()
    async with open_cluster(access) as cluster:
        runs = await find_runs(cluster)
        now_ns = clock.realtime_ns()
        if choice.run is not None:
            await find_run(cluster, choice.run)
        chosen = to_remove(
            runs,
            now_ns,
            run=choice.run,
            expired=choice.expired,
            everything=choice.everything,
            sure=choice.sure,
        )
        if choice.empty or not chosen:
            _list(console, cluster, runs, now_ns)
            return 0
        kept = [run for run in chosen if not await _removed(console, cluster, access, run, choice.discard)]
    return LOST if kept else 0


def _list(console: Terminal, cluster: Cluster, runs: list[HeldRun], now_ns: int) -> None:
    """Print what there is, and what would remove it."""
    if not runs:
        console.print(f"{cluster.context} holds no runs")
        return
    console.print(f"{cluster.context} holds {_counted(len(runs), 'run')}:")
    for run in runs:
        console.print(f"  {run.describe(now_ns)}")
    console.print("nothing was removed; --run RUN removes one, --expired those whose time is over, --all all")


async def _removed(console: Terminal, cluster: Cluster, access: Access, run: HeldRun, discard: bool) -> bool:
    """Remove one run; False, with the reason printed, where it stays."""
    began_ns = SystemClock().monotonic_ns()
    try:
        if not discard:
            refusal = await _refusal(cluster, access, run)
            if refusal:
                console.print(f"{run.run} stays: {refusal}")
                return False
        await remove(cluster, run.namespace)
    except ClusterError as error:
        console.print(f"{run.run} stays: {error}")
        return False
    seconds = (SystemClock().monotonic_ns() - began_ns) / NS_PER_S
    console.print(f"removed {run.run} in {seconds:.1f} s")
    return True


async def _refusal(cluster: Cluster, access: Access, run: HeldRun) -> str:
    """Why the run must not be removed yet: its agents hold logs that nobody else has; "" where they hold none."""
    found = await holders(cluster, run, access.transport)
    async with _crew(found) as (crew, unknown):
        there = await held(crew, run.run)
    unknown |= there.unknown
    what = []
    if there.total:
        what.append(f"agents still hold {_counted(there.total, 'log')} ({_by_node(there)})")
    if unknown:
        node, reason = next(iter(unknown.items()))
        those = f"agent on {node} holds" if len(unknown) == 1 else f"agents on {len(unknown)} nodes hold"
        what.append(f"it is not known what the {those} ({node}: {reason})")
    if not what:
        return ""
    return f"{'; '.join(what)}. kabench collect {run.run} fetches logs; --discard drops them"


async def collect_run(access: Access, run: str, out: Path) -> int:
    """Fetch what the agents of a run still hold into OUT/RUN; returns the exit code.

    Raises:
        SpecError: the cluster holds no such run.
        ClusterError: the API server does not answer, or refuses.
        StoreError: the folder cannot be written, or the run's controller lives and writes it.
    """
    console = Terminal(soft_wrap=True, highlight=False, markup=False)
    async with open_cluster(access) as cluster:
        found_run = await find_run(cluster, run)
        found = await holders(cluster, found_run, access.transport)
    with contextlib.ExitStack() as held_open:
        folder = out / run
        # before anything else: whoever writes it is the run's controller, and fetches by itself
        store = held_open.enter_context(RunStore.open(folder)) if folder.is_dir() else None
        async with _crew(found) as (crew, unknown):
            await settled(crew, lambda nodes: console.print(f"a window runs on {short_list(nodes)}: waiting"))
            if store is None and (await held(crew, run)).total:
                store = held_open.enter_context(RunStore.create(out, run))
            fetched = await fetch(crew, store) if store else await held(crew, run)
        _tell_fetched(console, run, fetched, store)
    unknown |= fetched.unknown
    for node, reason in unknown.items():
        console.print(f"{node}: {reason}")
    return LOST if unknown else 0


def _tell_fetched(console: Terminal, run: str, fetched: Held, store: RunStore | None) -> None:
    if store is None or not fetched.total:
        console.print(f"nothing to fetch: no agent that answers holds a log of {run}")
        return
    console.print(f"fetched {_counted(fetched.total, 'log')} ({_by_node(fetched)}) into {store.folder}")
    if store.journal():
        console.print(f"results.json is made anew; kabench chart {store.folder} draws it")
    else:
        console.print(f"the run's journal is elsewhere; kabench merge {store.folder} adds the logs up")


@contextlib.asynccontextmanager
async def _crew(found: Holders) -> AsyncIterator[tuple[Crew, dict[str, str]]]:
    """The agents that answer, and why others do not, by node."""
    crew = Crew(SystemClock())
    try:
        failures = await crew.join(found.endpoints)
        yield crew, {**found.mute, **{node: str(error) for node, error in failures.items()}}
    finally:
        await crew.close()


def _by_node(found: Held) -> str:
    return short_list([f"{node}: {count}" for node, count in found.logs.items() if count])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
