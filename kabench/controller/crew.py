"""All agents of a fleet: what is asked of each is asked of all side by side, or of so many at a time.

An agent that is gone is left out and reported; whether that voids anything is not decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import resource
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from kabench.backends.base import AgentEndpoint, Node
from kabench.clock import Clock
from kabench.controller.link import AgentLink, ClockOffset
from kabench.core.contention import Contention
from kabench.core.session import State
from kabench.errors import AgentError, AgentLost, ClusterError, KabenchError, LogError
from kabench.store import RunStore
from kabench.wire.messages import Ack, Arm, Hello, Prepare, Prepared, Probe

T = TypeVar("T")
R = TypeVar("R")

PROBE_NS = 100_000_000
"""How long a node is probed before a placement; nodes that share CPUs are probed one after the other."""

GREETED_AT_ONCE = 8
"""A clock is known to half of a round trip, and calls side by side wait for one another in our own loop: of 250 agents
greeted all at once, clocks were known to ± 86 ms (median), of eight at a time to ± 1 ms, in about the same time."""

FETCHED_AT_ONCE = 16
"""Logs in memory at a time, however many agents there are."""

FILES_PER_AGENT, FILES_BESIDE = 2, 128
"""Open files: a link's connection and one that is being replaced; logs, journal, libraries, the backend's own."""

UNDER_WAY = (State.PREPARING, State.ARMED, State.RUNNING, State.DRAINING)
LOOK_S = 0.2

Failures = dict[str, AgentError]
"""What went wrong, by node."""


@dataclass(frozen=True)
class Member:
    """An agent we talk to, who it said it is, and how its clock stands to ours."""

    link: AgentLink
    hello: Hello
    offset: ClockOffset


class Crew:
    """The links to all agents that live."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.members: dict[str, Member] = {}
        self.nodes: tuple[Node, ...] = ()
        """All nodes, those that agents run on and those whose agents are gone."""
        self.silent: frozenset[str] = frozenset()
        """The nodes whose agents gave no answer when their logs were last collected: dead, or as good as dead."""

    async def join(self, endpoints: Sequence[AgentEndpoint]) -> Failures:
        """Say hello to every agent over a fresh link; clocks are estimated anew, and a restarted agent is a new one.

        Raises:
            ClusterError: this process may not open so many connections.
        """
        await self.close()
        allow_files(len(endpoints))

        async def greet(_: str, endpoint: AgentEndpoint) -> Member:
            link = AgentLink(endpoint, self._clock)
            try:
                hello, offset = await link.hello()
            except BaseException:
                await link.close()
                raise
            return Member(link, hello, offset)

        by_node = {endpoint.node: endpoint for endpoint in endpoints}
        members, failures = await _on_all(by_node, greet, at_once=GREETED_AT_ONCE)
        self.members = dict(sorted(members.items()))
        return failures

    def survey(self, nodes: Sequence[Node]) -> None:
        """Set `nodes`, with CPUs and boot ids as the agents say where the backend does not know them."""

        def asked(node: Node) -> Node:
            member = self.members.get(node.name)
            if node.cpus or member is None:
                return node
            return replace(node, cpus=frozenset(member.hello.cpus), boot_id=member.hello.boot_id)

        self.nodes = tuple(asked(node) for node in nodes)

    async def close(self) -> None:
        """Close every link. The agents keep what they hold."""
        members, self.members = self.members, {}
        await asyncio.gather(*(member.link.close() for member in members.values()), return_exceptions=True)

    async def probe(self) -> tuple[dict[str, Contention], Failures]:
        """How contended each node is now; a node whose agent does not answer is left out."""
        found: dict[str, Contention] = {}

        async def in_turn(_: str, group: Sequence[Node]) -> None:
            for node in group:
                if node.name in self.members:
                    found[node.name] = await self.members[node.name].link.probe(Probe(PROBE_NS))

        _, failures = await _on_all({group[0].name: group for group in sharing(self.nodes)}, in_turn)
        return dict(sorted(found.items())), failures

    async def prepare(self, orders: Mapping[str, Prepare]) -> tuple[dict[str, Prepared], Failures]:
        """Have every agent reach its targets, fill and connect; `orders` by node."""

        async def prepare_one(node: str, order: Prepare) -> Prepared:
            return await self.members[node].link.prepare(order)

        return await _on_all(orders, prepare_one)

    async def arm(self, window: str, start_ns: int, nodes: Iterable[str]) -> Failures:
        """Arm `nodes` for one instant, given on our clock."""

        async def arm_one(_: str, member: Member) -> None:
            await member.link.arm(Arm(window, start_ns + member.offset.offset_ns))

        _, failures = await _on_all({node: self.members[node] for node in nodes}, arm_one)
        return failures

    async def abort(self, nodes: Iterable[str] | None = None) -> None:
        """Give up what is prepared, on `nodes` or on all, wherever that is still possible."""

        async def abort_one(_: str, member: Member) -> None:
            await member.link.abort()

        wanted = self.members.keys() if nodes is None else nodes
        await _on_all({node: self.members[node] for node in wanted}, abort_one)

    async def settle(self, longest_s: float) -> Failures:
        """Let windows that an earlier session armed come to their end, and give up what it had only prepared.

        Args:
            longest_s: how long such a window takes at most; one that takes longer is given up too.
        """

        async def settle_one(_: str, member: Member) -> None:
            state = (await member.link.status()).state
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(longest_s):
                    while state in UNDER_WAY:
                        await asyncio.sleep(LOOK_S)
                        state = (await member.link.status()).state
            if state not in (State.IDLE, State.SEALED):
                await member.link.abort()

        _, failures = await _on_all(self.members, settle_one)
        return failures

    async def collect(
        self, store: RunStore, window: str | None = None, *, doubtful: Collection[str] = ()
    ) -> Failures:
        """Fetch every log of this run that agents hold (of `window`, or of all), store it, then acknowledge it.

        An agent deletes a log only for the digest of what was stored, so nothing is lost between the two.

        Args:
            store: where to.
            window: of all, if not given.
            doubtful: nodes whose agents have been waited for in vain already; they are asked once. What they hold is held
                still when they are asked again.
        """

        async def collect_from(node: str, member: Member) -> None:
            for state in (await member.link.windows(patient=node not in doubtful)).windows:
                if state.run != store.run or window not in (None, state.window):
                    continue
                try:
                    content = await member.link.fetch(state.window)
                except LogError as error:
                    raise AgentError(str(error)) from error
                store.write_log(state.window, node, content)
                await member.link.ack(state.window, Ack(hashlib.sha256(content).hexdigest()))

        _, failures = await _on_all(self.members, collect_from, at_once=FETCHED_AT_ONCE)
        self.silent = frozenset(node for node, error in failures.items() if isinstance(error, AgentLost))
        return failures


async def _on_all(
    items: Mapping[str, T], call: Callable[[str, T], Awaitable[R]], *, at_once: int | None = None
) -> tuple[dict[str, R], Failures]:
    """Call for every entry side by side, for no more than `at_once` where that is given.

    Agents' failures are returned by name, other errors raised.
    """
    places = asyncio.Semaphore(at_once or max(1, len(items)))

    async def one(name: str, item: T) -> R | AgentError:
        async with places:
            try:
                return await call(name, item)
            except AgentError as error:
                return error

    hopeless: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as tasks_group:
            tasks = {
                name: tasks_group.create_task(one(name, item), name=f"agent {name}")
                for name, item in items.items()
            }
    except* KabenchError as group:
        hopeless = first_of(group)  # such as a full disk: a user's error, not a group of them
    if hopeless:
        raise hopeless  # not above: until 3.11.4, Python wraps what is raised in an `except*` in a group of its own
    answers: dict[str, R] = {}
    failures: Failures = {}
    for name, task in tasks.items():
        answer = task.result()
        if isinstance(answer, AgentError):
            failures[name] = answer
        else:
            answers[name] = answer
    return answers, failures


def allow_files(agents: int) -> None:
    """Let this process open as many files as links to so many agents need: its own limit is 256 or 1024 as a rule.

    Raises:
        ClusterError: the system allows fewer.
    """
    needed = agents * FILES_PER_AGENT + FILES_BESIDE
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return
    if most != resource.RLIM_INFINITY and most < needed:
        raise ClusterError(
            f"{agents} agents need {needed} open files, and this process may have {most}: raise its hard limit "
            "(ulimit -Hn, or LimitNOFILE of its service), or give fewer --agents"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error inside a group of groups."""
    inner = group.exceptions[0]
    return first_of(inner) if isinstance(inner, BaseExceptionGroup) else inner


def sharing(nodes: Sequence[Node]) -> list[list[Node]]:
    """`nodes` in groups whose members share CPUs of one machine, directly or through others."""
    groups: list[list[Node]] = []
    for node in nodes:
        touching = [g for g in groups if any(o.boot_id == node.boot_id and o.cpus & node.cpus for o in g)]
        groups = [g for g in groups if g not in touching]
        groups.append([*(other for group in touching for other in group), node])
    return groups
