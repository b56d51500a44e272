"""What `kabench load` does once its flags are read: make the scenario, run it on this machine, print."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from kabench.analysis.rate_search import Promise, parse_promise
from kabench.backends.base import Node
from kabench.backends.local import LocalBackend
from kabench.cli.console import Terminal
from kabench.cli.session import as_far_as_it_came, new_run_id, say_json, tell, watched
from kabench.cli.sources import load_source
from kabench.controller.run import run_benchmark
from kabench.controller.search import find_rate
from kabench.core.load_flags import LoadFlags, describe_load, from_urls, with_flags
from kabench.core.plan import Costs
from kabench.core.result import RoundRecord, RunResult, VoidReason
from kabench.core.spec import Scenario
from kabench.core.target_url import parse_url
from kabench.errors import ClusterError, SpecError
from kabench.report.as_json import run_summary
from kabench.report.search import print_search, search_summary, tries_of, try_line
from kabench.report.terminal import PlainObserver, TerminalObserver
from kabench.store import RunStore
from kabench.wire.messages import Interval

COSTS = Costs(round_s=0.6, start_s=1.0)
"""Nothing is placed, and no node is probed."""
NS_PER_S = 1_000_000_000
FIRST_RATE_PER_S, TRY_S = 1000.0, 5.0
"""Where a search begins, and the window of each try."""


class LoadLines(PlainObserver):
    """One line for the window, and what is out of the ordinary once: a round that failed is told by the command's end."""

    def __init__(
        self, scenario: Scenario, console: Console, now_ns: Callable[[], int], costs: Costs = COSTS
    ) -> None:
        super().__init__(scenario, console, now_ns, costs)
        self._notes: list[str] = []

    def fleet(self, nodes: Sequence[Node]) -> None:
        """Nothing: the plan names the agents."""
        TerminalObserver.fleet(self, nodes)

    def round_ended(self, record: RoundRecord) -> None:
        """Tell the window, and what was kept back until it was known whether it failed."""
        notes, self._notes = self._notes, []
        for note in notes:
            if not record.error or record.error not in note:
                self.tell(note)
        if record.error:
            TerminalObserver.round_ended(self, record)
        else:
            self._window(record)

    def block_closed(self, block: int, valid: bool, reasons: Sequence[VoidReason]) -> None:
        """Tell why it does not stand, unless that is the command's error."""
        super().block_closed(block, valid, [one for one in reasons if one.code != "round-failed"])

    def note(self, text: str) -> None:
        """Keep it back for a moment."""
        self._notes.append(text)

    def tell(self, text: str) -> None:
        """Print it."""
        super().note(text)

    def _window(self, record: RoundRecord) -> None:
        super().round_ended(record)


class SearchLines(LoadLines):
    """The tries have lines of their own."""

    def interval(self, agent: str, interval: Interval) -> None:
        """Nothing: a try is short."""
        TerminalObserver.interval(self, agent, interval)

    def _window(self, record: RoundRecord) -> None:
        TerminalObserver.round_ended(self, record)


@dataclass(frozen=True)
class LoadRequest:
    """What is to be loaded, how, and where the results go.

    Attributes:
        correct_s: also show a closed loop's response times corrected for this interval.
        find_rate: the promise that is to hold at the rate that is searched.
    """

    targets: tuple[str, ...]
    flags: LoadFlags
    out: Path = Path("results")
    as_json: bool = False
    correct_s: float | None = None
    find_rate: str | None = None

    def scenario(self) -> Scenario:
        """The scenario that targets and flags ask for.

        Raises:
            SpecError: a target or a flag is wrong.
        """
        files = [target for target in self.targets if names_file(target)]
        if files and len(self.targets) > 1:
            raise SpecError(f"{files[0]}: a scenario names all its targets; give it alone, or URLs")
        if files:
            try:
                scenario = with_flags(load_source(files[0]), self.flags)
            except SpecError as error:
                told = str(error)
                raise SpecError(
                    told if told.startswith((files[0], "-")) else f"{files[0]}: {told}"
                ) from error
        else:
            urls = [parse_url(target) for target in self.targets]
            scenario = from_urls(urls, self._search_flags(), seed=secrets.randbits(31))
        if self.find_rate is not None and (scenario.load.loop == "closed" or scenario.load.profile):
            raise SpecError("--find-rate: it chooses the rates itself, in an open loop of one rate a window")
        if self.correct_s is not None and scenario.load.loop != "closed":
            raise SpecError("--correct: an open loop needs no correction; leave it out")
        return scenario

    def _search_flags(self) -> LoadFlags:
        """With what a search begins where the flags do not say."""
        flags = self.flags
        if self.find_rate is None:
            return flags
        if not (flags.rates or flags.closed):
            flags = replace(flags, rate_per_s=FIRST_RATE_PER_S)
        return flags if flags.duration_s is not None else replace(flags, duration_s=TRY_S)


def names_file(target: str) -> bool:
    """Whether a target is a scenario's file rather than a URL."""
    return "://" not in target and target.endswith((".yaml", ".yml"))


def execute(request: LoadRequest) -> int:
    """Run, print and draw; returns the exit code.

    Raises:
        KabenchError: nothing could be measured.
    """
    scenario = request.scenario()
    promise = None if request.find_rate is None else parse_promise(request.find_rate)
    with RunStore.create(request.out, new_run_id()) as store:
        told = Terminal(stderr=request.as_json, soft_wrap=request.as_json)
        result, code = as_far_as_it_came(lambda: _run(request, scenario, promise, store, told), store, told)
        if result is None:
            return code
        if not result.cells:
            raise ClusterError(next(_errors(result), "nothing was measured"))
        _tell(request, result, store.folder)
    return code


def _run(
    request: LoadRequest, scenario: Scenario, promise: Promise | None, store: RunStore, told: Console
) -> RunResult:
    lines = [f"run       {store.run}", *describe_load(scenario, searching=promise is not None)]
    backend = LocalBackend()

    def work(observer: TerminalObserver) -> Coroutine[Any, Any, RunResult]:
        if promise is None:
            return run_benchmark(scenario, backend, store, observer)
        return find_rate(
            scenario, promise, backend, store, observer, lambda tried: _told(observer, try_line(tried))
        )

    plain = LoadLines if promise is None else SearchLines
    return watched(scenario, told, work, lines=lines, live=not request.as_json, costs=COSTS, plain=plain)


def _told(observer: TerminalObserver, line: str) -> None:
    """A try: at once where lines are printed, for as long as there is room where a view is drawn."""
    if isinstance(observer, LoadLines):
        observer.tell(line)
    else:
        observer.note(line)


def _tell(request: LoadRequest, result: RunResult, folder: Path) -> None:
    """A search is told by its tries, anything else by its figures."""
    from kabench.report.charts import draw_all

    tries = tries_of(result)
    if not tries:
        tell(result, folder, as_json=request.as_json, correct_ns=_ns(request.correct_s))
        return
    draw_all(result, folder)
    if request.as_json:
        say_json(run_summary(result, str(folder)) | {"search": search_summary(tries)})
        return
    console = Terminal()
    print_search(console, tries)
    if result.status != "finished":
        console.print(f"The run was {result.status}; these are the tries until then.", style="yellow")
    console.print(f"files     {folder}", highlight=False, markup=False, soft_wrap=True)


def _errors(result: RunResult) -> Iterator[str]:
    yield from (record.error for record in result.rounds if record.error)
    yield from (reason.detail for block in result.blocks for reason in block.void)


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * NS_PER_S)
