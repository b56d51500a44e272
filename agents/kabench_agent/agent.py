"""The agent itself: one session at a time, the logs it holds, the canary beside it. `service` is its HTTP side."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from types import TracebackType

from kabench.clock import Clock
from kabench.core.contention import Contention
from kabench.core.identity import NAME, NULL_TARGET
from kabench.core.session import IN_WINDOW, Event, Session, State
from kabench.errors import AgentError
from kabench.wire.messages import Arm, Armed, Prepare, Prepared, Status, Windows
from kabench_agent.live import Live
from kabench_agent.prepare import make_ready
from kabench_agent.probe import Canary
from kabench_agent.spool import HeldLog, Spool, check_names
from kabench_agent.window import EngineFactory, Identity, Window

logger = logging.getLogger("kabench_agent")

TICK_S = 0.5
"""How often the lease is looked at; nothing hangs on the exact instant."""

LONGEST_TIMEOUT_NS = 30_000_000_000
"""Half of the histograms' highest value, so that a late due time still fits."""

PROBE_NS = range(1_000_000, 10_000_000_001)


class UnableError(AgentError):
    """What was asked cannot be done, now or later: not a matter of the session's state."""


class UnknownError(AgentError):
    """No such window."""


class Agent:
    """Does what the controller asks. Enter it as a context: leaving ends everything it started.

    Args:
        identity: who it is.
        clock: its clock.
        spool: where logs are kept.
        canary: probes the node.
        engine_factory: makes an engine for an order.
    """

    def __init__(
        self, identity: Identity, clock: Clock, spool: Spool, canary: Canary, engine_factory: EngineFactory
    ) -> None:
        self.identity, self.clock = identity, clock
        self._spool, self._canary, self._engine_factory = spool, canary, engine_factory
        self._session = Session()
        self._window: Window | None = None
        self._work: asyncio.Task[Prepared | Exception | None] | None = None
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Agent:
        await self._tasks.__aenter__()
        self._lease = self._tasks.create_task(self._watch_lease(), name="lease")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._lease.cancel()
            await self._give_up()
            await self._canary.close()
        finally:
            self._spool.close()
            await self._tasks.__aexit__(kind, error, trace)

    def hear(self) -> None:
        """The controller called."""
        self.tick()
        self._session.hear(self.clock.monotonic_ns())

    def tick(self) -> None:
        """Let the session change by the time that has passed."""
        waiting = self._session.state is State.PREPARED
        if Event.LEASE_EXPIRED in self._session.tick(self.clock.monotonic_ns()) and waiting:
            logger.warning("%s", self._session.error)
            self._tasks.create_task(self._give_up(), name="give up")

    def status(self) -> Status:
        """Where the session stands, and what is wrong, if anything."""
        error = "; ".join(filter(None, (self._session.error, self._spool.problem)))
        return Status(str(self._session.state), self._session.window, error)

    async def prepare(self, order: Prepare) -> Prepared:
        """Reach the targets, fill, connect, plan.

        Raises:
            AgentError: another window is under way, or the preparation was given up meanwhile.
            UnableError: the order makes no sense, or a target cannot be reached or filled.
        """
        check_order(order)
        self._spool.check_free(order.run, order.window)
        self._session.prepare(
            self.clock.monotonic_ns(),
            order.window,
            warm_up_ns=order.warm_up_ns,
            window_ns=order.window_ns,
            lease_ns=order.lease_ns,
        )
        self._window = None
        task = self._work = self._tasks.create_task(self._prepare(order), name=f"prepare {order.window}")
        await asyncio.wait({task})
        if task.cancelled():
            raise AgentError(f"the preparation of {order.window} was given up")
        result = task.result()
        if isinstance(result, Prepared):
            return result
        raise UnableError(str(result)) from result

    async def _prepare(self, order: Prepare) -> Prepared | Exception:
        """The work of `prepare`; a failure is returned, because a task that raises would end its group."""
        async with contextlib.AsyncExitStack() as undo:
            try:
                filled = await make_ready(order, self.clock)
                window = Window(order, self._engine_factory)
                undo.push_async_callback(window.close)
                await window.engine.connect(self.clock.monotonic_ns() + order.ready_timeout_ns)
            except Exception as error:
                if not isinstance(error, AgentError):
                    logger.exception("preparing %s", order.window)
                self._session.fail(str(error))
                return error
            undo.pop_all()
        self._window = window
        self._session.prepared(self.clock.monotonic_ns())
        planned = {name: count for name, count in window.engine.planned.items() if count is not None}
        return Prepared(order.window, planned, filled)

    def arm(self, arm: Arm) -> Armed:
        """Start at an instant.

        Raises:
            AgentError: the window is not prepared, or the instant is wrong.
        """
        now_ns = self.clock.monotonic_ns()
        self._session.arm(now_ns, arm.window, arm.start_ns)
        window = self._window
        assert window is not None, "a prepared session has a window"
        log = self._spool.open(window.order.run, arm.window)
        window.begin(log, self.identity, arm.start_ns, self.clock.realtime_ns() + arm.start_ns - now_ns)
        self._work = self._tasks.create_task(self._run(window, arm.start_ns), name=f"run {arm.window}")
        return Armed(arm.window, arm.start_ns, now_ns)

    async def _run(self, window: Window, start_ns: int) -> None:
        try:
            seal = await window.run(start_ns)
            self._session.sealed(
                self.clock.monotonic_ns()
            )  # before the last line, which invites to fetch the log
            await window.live.sealed(seal)
        except Exception as error:
            logger.exception("running %s", window.order.window)
            if window is self._window:
                self._session.fail(f"{window.order.window} failed: {_told(error)}")
        finally:
            window.live.end()
        if window.log is not None and window.log.problem:
            logger.error("%s", window.log.problem)

    async def abort(self) -> Status:
        """Give up what is prepared or running; an unsealed log stays held."""
        self._session.abort()
        await self._give_up()
        return self.status()

    async def _give_up(self) -> None:
        """End the work that is under way, whatever the session says."""
        work, self._work = self._work, None
        window, self._window = self._window, None
        if work is not None and not work.done():
            if window is not None:
                window.engine.abort()
            work.cancel()
            await asyncio.wait({work})
        if window is not None:
            window.live.end()
            await window.close()

    def windows(self) -> Windows:
        """The logs held."""
        return Windows(self._spool.states())

    def live(self, window: str) -> Live:
        """The lines of the current window.

        Raises:
            UnknownError: it is not the current one.
        """
        if self._window is None or self._window.order.window != window:
            raise UnknownError(f"{window} is not the window under way: see its log")
        return self._window.live

    async def fetch(self, window: str) -> tuple[bytes, str]:
        """A log and its digest.

        Raises:
            AgentError: it is still being written, or does not read.
            UnknownError: there is none.
        """
        log = self._held(window)
        content = await asyncio.to_thread(log.content)
        return content, (await asyncio.to_thread(hashlib.sha256, content)).hexdigest()

    def acknowledge(self, window: str, sha256: str) -> Status:
        """Delete a log that is safe elsewhere.

        Raises:
            AgentError: it is another log that is safe, or this one is still being written.
            UnknownError: there is none.
        """
        log = self._held(window)
        held = log.state().sha256
        if held != sha256:
            raise AgentError(f"the log of {window} has the SHA-256 {held}, not {sha256}: it is kept")
        self._spool.remove(log)
        if self._session.state is State.SEALED and self._session.window == window:
            self._session.ack()
            self._window = None
        return self.status()

    async def probe(self, duration_ns: int) -> Contention:
        """How contended the node is.

        Raises:
            AgentError: a window is under way, which the probe would disturb.
            UnableError: the length is out of range, or the canary does not answer.
        """
        if self._session.state in IN_WINDOW:
            raise AgentError(f"no probe while {self._session.state}: it would disturb {self._session.window}")
        if duration_ns not in PROBE_NS:
            raise UnableError(f"a probe takes 1 ms to 10 s, not {duration_ns / 1e6:g} ms")
        try:
            return await self._canary.probe(duration_ns)
        except AgentError as error:
            raise UnableError(str(error)) from error

    def _held(self, window: str) -> HeldLog:
        try:
            log = self._spool.find(window)
        except AgentError as error:
            raise UnknownError(str(error)) from error
        if self._session.state in IN_WINDOW and self._window is not None and log is self._window.log:
            raise AgentError(f"the log of {window} is still being written: wait until it is sealed")
        return log

    async def _watch_lease(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()


def check_order(order: Prepare) -> None:
    """Refuse an order that makes no sense, before anything is done for it.

    Raises:
        UnableError: a name or a number is out of range; the message names it.
    """
    try:
        check_names(order.run, order.window)
    except AgentError as error:
        raise UnableError(str(error)) from error
    names = [target.name for target in order.targets]
    problems = [
        *(f"{name!r} is no name: use lower-case letters, digits and hyphens" for name in _misnamed(order)),
        *(f"the target {name} stands twice" for name in sorted({n for n in names if names.count(n) > 1})),
        *(f"{name} must be above 0" for name in _POSITIVE if getattr(order, name) <= 0),
        *(f"{name} must not be negative" for name in _NOT_NEGATIVE if getattr(order, name) < 0),
        *(
            f"{target.name}: rate_per_s, connections and pipeline must be above 0"
            for target in order.targets
            if not (target.rate_per_s > 0 and target.connections > 0 and target.pipeline > 0)
        ),
    ]
    if not order.targets:
        problems.append("there is no target")
    if NULL_TARGET in names:
        problems.append(f"{NULL_TARGET} is the name of the agent's own echo")
    if order.arrivals not in ("poisson", "constant"):
        problems.append(f"arrivals are poisson or constant, not {order.arrivals!r}")
    if order.loop not in ("open", "closed"):
        problems.append(f"a loop is open or closed, not {order.loop!r}")
    if order.timeout_ns > LONGEST_TIMEOUT_NS:
        problems.append(f"timeout_ns is {LONGEST_TIMEOUT_NS} at most")
    if problems:
        raise UnableError("; ".join(problems))


_POSITIVE = ("window_ns", "interval_ns", "timeout_ns", "max_in_flight", "ready_timeout_ns", "lease_ns")
_NOT_NEGATIVE = ("warm_up_ns", "null_rate_per_s")


def _misnamed(order: Prepare) -> list[str]:
    names = [order.phase, *(name for target in order.targets for name in (target.name, target.workload))]
    return sorted({name for name in names if not NAME.fullmatch(name)})


def _told(error: BaseException) -> str:
    """The first cause inside a group, in a word."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
