"""What `kabench run` does once its flags are read: choose the parts, run, print, draw."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from kabench.backends.base import Backend
from kabench.backends.kubernetes.access import Access, current_context
from kabench.backends.kubernetes.naming import KIND_CONTEXT
from kabench.cli.cancelling import run_cancellable
from kabench.cli.console import Terminal, say
from kabench.cli.sources import is_built_in, load_source, seconds
from kabench.clock import SystemClock
from kabench.controller.run import run_benchmark
from kabench.core.journal import RunStarted
from kabench.core.plan import Costs, describe_plan, fit_duration, quick
from kabench.core.result import RunResult
from kabench.core.scenario import override, with_arms
from kabench.core.spec import Scenario
from kabench.errors import AgentError, KabenchError, MeasurementError, SpecError, StoreError
from kabench.report.as_json import run_summary
from kabench.report.tables import print_result
from kabench.report.terminal import LiveObserver, PlainObserver, TerminalObserver
from kabench.store import RunStore, read_result

INTERRUPTED = 130
REFRESH_S = 0.5


@dataclass(frozen=True)
class Request:
    """The flags of `kabench run`; None where one was not given."""

    source: str = "seed"
    agents: int | None = None
    backend: str = "auto"
    quick: bool = False
    duration: str | None = None
    blocks: int | None = None
    rate_per_s: float | None = None
    phases: tuple[str, ...] = ()
    seed: int | None = None
    out: Path = Path("results")
    resume: str | None = None
    as_json: bool = False
    cluster: Access = field(default_factory=Access)

    def scenario(self, backend: Backend) -> Scenario:
        """The scenario that the flags ask for; `--quick` leaves what other flags ask for.

        Raises:
            SpecError: the scenario or a flag is wrong.
        """
        source = load_source(self.source)
        if is_built_in(self.source):
            source = with_arms(source, backend.arms)
        scenario = override(
            source,
            agents=self.agents,
            rate_per_s=self.rate_per_s,
            phases=self.phases,
            seed=self.seed,
            arms=backend.arms,
        )
        if self.quick:
            count = len(scenario.phases) if self.phases else backend.quick_arms
            scenario = quick(scenario, phases=count, costs=backend.costs)
        scenario = override(scenario, blocks=self.blocks)
        if self.duration is None:
            return scenario
        if self.blocks is not None:
            raise SpecError("--duration and --blocks: give one of them, since --duration chooses the blocks")
        return fit_duration(scenario, seconds(self.duration), backend.costs)

    @property
    def changes(self) -> bool:
        """Whether a flag asks for another scenario than the one of the run that is resumed."""
        given = (self.agents, self.duration, self.blocks, self.rate_per_s, self.seed)
        return (
            self.source != "seed" or self.quick or bool(self.phases) or any(one is not None for one in given)
        )


def execute(request: Request) -> int:
    """Run, print and draw; returns the exit code.

    Raises:
        KabenchError: the run could not be done, or not to its end.
    """
    store, scenario, backend = _resumed(request) if request.resume else _begun(request)
    with store:
        # with --json, stdout is for the result alone
        told = Terminal(stderr=request.as_json, soft_wrap=request.as_json)
        resume = request.resume is not None

        def work() -> RunResult:
            return watched(
                scenario,
                told,
                lambda observer: run_benchmark(scenario, backend, store, observer, resume=resume),
                lines=_opening(scenario, backend, store),
                live=not request.as_json,
                costs=backend.costs,
            )

        result, code = as_far_as_it_came(work, store, told)
        if result is None:
            return code
        if code == INTERRUPTED:
            told.print(
                f"interrupted; what was measured is in {store.folder}", highlight=False, soft_wrap=True
            )
        tell(result, store.folder, as_json=request.as_json)
    return code


def as_far_as_it_came(
    work: Callable[[], RunResult], store: RunStore, told: Console
) -> tuple[RunResult | None, int]:
    """Do the work. Interrupted, its result is what was measured until then (None: nothing), and its code says so.

    Raises:
        KabenchError: it failed; where something was measured, the message says where that is.
    """
    try:
        result = work()
    except KeyboardInterrupt:
        found = partial(store)
        if found is None:
            told.print("interrupted before anything was measured", highlight=False)
        return found, INTERRUPTED
    except KabenchError as error:
        if partial(store) is None:
            raise
        raise type(error)(f"{error}\nwhat was measured is in {store.folder}") from error
    return result, exit_code(result)


def _begun(request: Request) -> tuple[RunStore, Scenario, Backend]:
    """A new run."""
    backend = choose_backend(request.backend, request.cluster)
    scenario = request.scenario(backend)
    return RunStore.create(request.out, new_run_id()), scenario, backend


def _resumed(request: Request) -> tuple[RunStore, Scenario, Backend]:
    """An earlier run, which goes on as it was planned."""
    assert request.resume is not None
    if request.changes:
        raise SpecError("--resume: a run goes on with its own scenario; leave out what would change it")
    named = Path(request.resume)
    folder = named if named.is_dir() else request.out / request.resume
    if not folder.is_dir():
        raise SpecError(f"--resume {request.resume}: no such run in {request.out}")
    store = RunStore.open(folder)
    try:
        opening = next(iter(store.journal()), None)
        if not isinstance(opening, RunStarted):
            raise StoreError(
                f"{folder}: its journal does not begin with a run's start, so there is nothing to go on with"
            )
        scenario = Scenario.model_validate(opening.scenario)
        if scenario.hides:
            raise SpecError(
                f"--resume: results keep no secrets, and {', '.join(scenario.hides)} needs one; start a new run"
            )
        return (
            store,
            scenario,
            choose_backend(opening.backend, request.cluster),
        )
    except BaseException:
        store.close()
        raise


def choose_backend(name: str, access: Access) -> Backend:
    """The backend of that name; `auto` is Kubernetes where the current context is our own kind cluster, else local.

    Raises:
        SpecError: there is none of that name, or a flag is for another one.
    """
    if name == "auto":
        name = "kubernetes" if access.context or current_context(access) == KIND_CONTEXT else "local"
    if name == "local":
        from kabench.backends.local import LocalBackend

        if access != Access():
            raise SpecError("--context and the like are for --backend kubernetes; leave them out, or give it")
        return LocalBackend()
    if name == "kubernetes":
        from kabench.backends.kubernetes.backend import KubernetesBackend

        access.check()
        return KubernetesBackend(access)
    raise SpecError(f"--backend {name}: give one of auto, local, kubernetes")


def new_run_id() -> str:
    """`20260102-030405-a1b2`: runs sort by their time (UTC), and two of one second differ."""
    now = datetime.fromtimestamp(SystemClock().realtime_ns() / 1e9, UTC)
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def watched(
    scenario: Scenario,
    told: Console,
    work: Callable[[TerminalObserver], Coroutine[Any, Any, RunResult]],
    *,
    lines: Sequence[str],
    live: bool,
    costs: Costs,
    plain: type[PlainObserver] = PlainObserver,
) -> RunResult:
    """Run with whatever view suits where the output goes.

    Args:
        scenario: what runs.
        told: where the view is.
        work: the run, watched by what it is given.
        lines: the plan, for a reader.
        live: whether a view that is drawn anew may be had, where `told` is a terminal.
        costs: what a round takes beside its window.
        plain: tells of the run where there is no such view.

    Raises:
        KeyboardInterrupt: a signal came.
        KabenchError: the run could not be done, or not to its end.
    """
    now_ns = SystemClock().monotonic_ns
    if told.is_terminal and live:
        view = LiveObserver(scenario, told, now_ns, costs)
        view.plan(lines)
        with view:
            return run_cancellable(_ticking(work(view), view.refresh), lambda: view.stage("stopping"))
    teller = plain(scenario, told, now_ns, costs)
    teller.plan(lines)
    return run_cancellable(work(teller), lambda: teller.stage("stopping"))


def _opening(scenario: Scenario, backend: Backend, store: RunStore) -> list[str]:
    note = f" ({backend.placement_note})" if backend.placement_note else ""
    return [
        f"run       {store.run} on the {backend.name} backend{note}",
        *describe_plan(scenario, backend.costs),
    ]


async def _ticking(work: Coroutine[Any, Any, RunResult], tick: Callable[[], None]) -> RunResult:
    """Do the work, and call `tick` twice a second meanwhile."""
    loop = asyncio.get_running_loop()
    handle: asyncio.Handle

    def again() -> None:
        nonlocal handle
        tick()
        handle = loop.call_later(REFRESH_S, again)

    handle = loop.call_soon(again)
    try:
        return await work
    finally:
        handle.cancel()


def partial(store: RunStore) -> RunResult | None:
    """What an unfinished run has measured; None where it did not come so far."""
    try:
        found = read_result(store.folder)
    except KabenchError:
        return None
    return found if found.rounds or found.cells else None


def tell(result: RunResult, folder: Path, *, as_json: bool, correct_ns: int | None = None) -> None:
    """Draw the charts, and print the result."""
    from kabench.report.charts import draw_all

    if result.rounds:
        draw_all(result, folder)
    if as_json:
        say_json(run_summary(result, str(folder)))
    else:
        print_result(Terminal(), result, folder, correct_ns)


def say_json(figures: dict[str, Any]) -> None:
    """Print plain data."""
    say(msgspec.json.format(msgspec.json.encode(figures), indent=2).decode())


def exit_code(result: RunResult) -> int:
    """0, or 4 where an agent or a target was lost, or 3 where nothing can be compared that was to be."""
    if any(_lost(result)):
        return AgentError.exit_code
    effects = [contrast for contrast in result.comparison.contrasts if contrast.role == "effect"]
    withheld = [kind.withheld for contrast in effects for kind in contrast.kinds]
    if not result.comparison.valid_blocks or (effects and all(withheld)):
        return MeasurementError.exit_code
    return 0


def _lost(result: RunResult) -> Iterator[bool]:
    for record in result.rounds:
        yield bool(record.error)
        yield any(casualty["role"] in ("agent", "target") for casualty in record.casualties)
        yield any(agent.status != "sealed" for agent in record.agents)
