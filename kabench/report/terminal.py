"""A run as it goes: a live view for a terminal, plain lines for anything else."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kabench.backends.base import Node
from kabench.core.plan import LOCAL, Costs, round_s
from kabench.core.result import RoundRecord, RunResult, VoidReason
from kabench.core.roles import roles
from kabench.core.spec import Scenario
from kabench.report.layout import line, table
from kabench.report.live_load import view
from kabench.report.tally import AgentTally, Pace, RoundTally, short_list
from kabench.report.units import clock, ms, per_cent
from kabench.wire.messages import Interval

NOTES_SHOWN = 2
LINES_A_WINDOW = 30
"""So many plain lines at most tell of one window while it lasts."""
LINES_BESIDE_NODES = 18
"""Lines of the view that are not nodes; on 24 lines, six nodes fit."""

_ROLE_STYLE = {"quiet": "green", "noisy": "red", "shared": "yellow"}


class TerminalObserver:
    """Keeps what both ways of telling need, and tells nothing itself.

    Args:
        scenario: what runs.
        console: where to tell.
        now_ns: a monotonic clock.
        costs: what the backend needs beside the measuring, for the first guess of how long it all takes.
    """

    def __init__(
        self, scenario: Scenario, console: Console, now_ns: Callable[[], int], costs: Costs = LOCAL
    ) -> None:
        self.scenario, self.console, self.now_ns = scenario, console, now_ns
        self.pace = Pace(round_s(scenario, costs), now_ns())
        self.pace.total_rounds = scenario.blocks.planned * len(scenario.phases)
        self.nodes: dict[str, tuple[str, frozenset[int]]] = {}
        self.roles: Mapping[str, str] = {}
        self.tally = RoundTally({}, 1)
        self.stage_now, self.phase = "", ""
        self.block = self.round = self.rounds = 0
        self.total = scenario.blocks.planned
        self.noise_nodes: Sequence[str] = ()
        self.reserve = False
        self.judged: list[tuple[int, bool, str]] = []
        self.standing = all(phase.standing for phase in scenario.phases)

    def plan(self, lines: Sequence[str]) -> None:
        """Print the plan."""
        for text in lines:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stage(self, text: str) -> None:
        """The step that begins."""
        self.stage_now = text

    def fleet(self, nodes: Sequence[Node]) -> None:
        """The nodes that take part."""
        self.nodes = {node.name: (node.boot_id, node.cpus) for node in nodes}
        self.roles = dict.fromkeys(self.nodes, "")

    def block_started(
        self, block: int, total: int, order: Sequence[str], noise_nodes: Sequence[str], reserve: bool
    ) -> None:
        """A block begins."""
        self.block, self.total, self.rounds = block, total, len(order)
        self.noise_nodes, self.reserve = noise_nodes, reserve
        self.roles = roles(self.nodes, noise_nodes)

    def round_started(self, block: int, phase: str, index: int, total_rounds: int, seconds: float) -> None:
        """A round begins."""
        self.phase, self.round, self.rounds = phase, index, total_rounds
        window_s = seconds - self.scenario.timing.warm_up_s
        self.tally = RoundTally(self.roles, round(window_s))
        done = (block - 1) * total_rounds + index - 1
        self.pace.begin_round(self.now_ns(), done, max(self.total, block) * total_rounds)

    def interval(self, agent: str, interval: Interval) -> None:
        """An agent closed an interval."""
        self.tally.add(agent, interval)

    def round_ended(self, record: RoundRecord) -> None:
        """A round is over."""
        self.pace.end_round(self.now_ns())
        for window in record.agents:
            agent = self.tally.agents.setdefault(window.agent, AgentTally())
            agent.state = window.status

    def block_closed(self, block: int, valid: bool, reasons: Sequence[VoidReason]) -> None:
        """A block is judged."""
        self.judged.append((block, valid, ", ".join(sorted({reason.code for reason in reasons}))))

    def note(self, text: str) -> None:
        """Something worth a line."""

    def finished(self, result: RunResult) -> None:
        """The results are written."""


class PlainObserver(TerminalObserver):
    """A line for every round and for whatever is out of the ordinary: for files and pipes."""

    _told = 0

    def fleet(self, nodes: Sequence[Node]) -> None:
        """Name the nodes."""
        super().fleet(nodes)
        self._print(f"{len(nodes)} nodes: {short_list([node.name for node in nodes])}")

    def round_started(self, block: int, phase: str, index: int, total_rounds: int, seconds: float) -> None:
        """Begin to tell anew."""
        super().round_started(block, phase, index, total_rounds, seconds)
        self._told = 0

    def interval(self, agent: str, interval: Interval) -> None:
        """Of servers that stand already, tell how they do meanwhile: there may be one long window and no other news."""
        super().interval(agent, interval)
        step = max(1, math.ceil(self.scenario.timing.window_s / LINES_A_WINDOW))
        if self.standing and not interval.sealed and self.tally.whole >= self._told + step:
            self._told = self.tally.whole
            self._print(
                "  ".join(
                    [
                        f"{self._told:>4} s",
                        *self._figures(self.tally.now_per_s, self.tally.lag_p99_ns, now=True),
                    ]
                )
            )

    def round_ended(self, record: RoundRecord) -> None:
        """Print the round."""
        super().round_ended(record)
        reserve = " (reserve)" if self.reserve else ""
        lags = [
            one.lag_p99_ns
            for one in record.agents
            if self.tally.counts(one.agent) and one.lag_p99_ns is not None
        ]
        lag_ns = max(lags, default=self.tally.lag_p99_ns)  # of the window; the tally knows the last seconds
        figures = self._figures(self.tally.rate_per_s, lag_ns, now=False)
        self._print("  ".join([f"block {self.block}/{self.total}{reserve}", self.phase, *figures]))
        if record.error:
            self._print(f"block {self.block}/{self.total}  {self.phase}: {record.error}")

    def block_closed(self, block: int, valid: bool, reasons: Sequence[VoidReason]) -> None:
        """Print why a block is void."""
        super().block_closed(block, valid, reasons)
        for reason in reasons:
            phase = f" in {reason.phase}" if reason.phase else ""
            self._print(f"block {block} is void: {reason.code}{phase}: {reason.detail}")

    def note(self, text: str) -> None:
        """Print it."""
        self._print(text)

    def _figures(self, rate_per_s: float, lag_p99_ns: int | None, *, now: bool) -> list[str]:
        """Of the last seconds, or of the window so far; counts are of the window."""
        outcomes = self.tally.outcomes
        shown = {
            kind: (found.now() if now else found.window).quantiles_ns((0.5, 0.99))
            for kind, found in sorted(self.tally.kinds.items())
        }
        return [
            *(f"{kind} p50 {ms(p50_ns)} p99 {ms(p99_ns)} ms" for kind, (p50_ns, p99_ns) in shown.items()),
            f"{rate_per_s:.0f}/s",
            f"errors {outcomes.error}",
            f"time-outs {outcomes.timeout}",
            f"lag p99 {ms(lag_p99_ns)} ms",
        ]

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # whoever read this has gone: no reason to stop
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveObserver(TerminalObserver):
    """The live view; a context manager. `refresh` draws it anew, and something should call it twice a second.

    It has no thread of its own: nothing may run while the backend forks.
    """

    def __init__(
        self, scenario: Scenario, console: Console, now_ns: Callable[[], int], costs: Costs = LOCAL
    ) -> None:
        super().__init__(scenario, console, now_ns, costs)
        self._notes: list[str] = []
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def __enter__(self) -> LiveObserver:
        self._live.start()
        self.refresh()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()

    def refresh(self) -> None:
        """Draw the view as things stand; a terminal that is gone is no reason to stop."""
        with contextlib.suppress(OSError):
            self._live.update(self.render(), refresh=True)

    def stage(self, text: str) -> None:
        """Draw the new stage at once."""
        super().stage(text)
        self.refresh()

    def note(self, text: str) -> None:
        """Keep the last few."""
        self._notes = [*self._notes, " ".join(text.split())][-NOTES_SHOWN:]

    def render(self) -> RenderableType:
        """The whole view, no more than the console's height."""
        if self.standing:
            width, height = self.console.size
            return view(
                self.scenario,
                self.tally,
                self.pace,
                self.now_ns(),
                self.stage_now,
                width,
                height,
                self._notes,
            )
        return Group(
            *self._progress(),
            Text(),
            *self._load(),
            Text(),
            self._kinds(),
            Text(),
            self._agents(),
            Text(),
            self._blocks(),
            *(line(note, "dim") for note in self._notes),
        )

    def _progress(self) -> list[RenderableType]:
        now = self.now_ns()
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True)
        head.add_column(justify="right", no_wrap=True)
        left = clock(self.pace.left_s(now))
        head.add_row(
            Text(f"kabench · {self.scenario.name}", style="bold"),
            Text(f"{clock(self.pace.elapsed_s(now))} elapsed, about {left} left"),
        )
        reserve = " (reserve)" if self.reserve else ""
        where = f"block {self.block} of {self.total}{reserve} · {self.phase} ({self.round} of {self.rounds})"
        head.add_row(Text(where if self.block else "starting"), Text(self.stage_now, style="cyan"))
        bar = Table.grid(expand=True)  # a bar ends no line of its own
        bar.add_row(ProgressBar(total=1.0, completed=self.pace.share(now)))
        noise = short_list(list(self.noise_nodes), 4) or "none"
        return [head, bar, line(f"noise on {noise}", "dim")]

    def _load(self) -> list[RenderableType]:
        outcomes, tally = self.tally.outcomes, self.tally
        failed = outcomes.error + outcomes.timeout + outcomes.skipped
        return [
            line(f"rate      {self.scenario.load.rate_per_s:.0f}/s asked, {tally.rate_per_s:.0f}/s answered"),
            line(
                f"failures  {outcomes.error} errors, {outcomes.timeout} time-outs, {outcomes.skipped} skipped",
                "bold red" if failed else "",
            ),
            line(f"lag       p99 {ms(tally.lag_p99_ns)} ms, the worst of {tally.seen_from}"),
        ]

    def _kinds(self) -> Table:
        rows = table()
        for title in ("response, ms", "p50 now", "p99 now", "p50 window", "p99 window", "answered"):
            rows.add_column(title, justify="left" if title.startswith("resp") else "right", no_wrap=True)
        for kind in sorted({str(target.kind) for target in self.scenario.targets}):
            found = self.tally.kinds.get(kind)
            if found is None:
                rows.add_row(kind, *("–" for _ in range(5)))
                continue
            now = found.now().quantiles_ns((0.5, 0.99))
            window = found.window.quantiles_ns((0.5, 0.99))
            rows.add_row(kind, *(ms(value) for value in (*now, *window)), f"{found.outcomes.ok:,}")
        return rows

    def _agents(self) -> Table:
        rows = table()
        for title in ("agent", "role", "lag p99, ms", "cpu", "state"):
            rows.add_column(
                title, justify="right" if title in ("lag p99, ms", "cpu") else "left", no_wrap=True
            )
        names = list(self.roles)
        room = max(1, self.console.height - LINES_BESIDE_NODES)
        shown = names if len(names) <= room else names[: max(1, room - 1)]
        for name in shown:
            agent = self.tally.agents.get(name, AgentTally())
            role = self.roles[name]
            state = Text(agent.state, style="bold red" if agent.state in ("missing", "unsealed") else "")
            lag, cpu = ms(agent.lag_p99_ns), per_cent(agent.cpu_share)
            rows.add_row(name, Text(role, style=_ROLE_STYLE.get(role, "")), lag, cpu, state)
        if len(shown) < len(names):
            rows.add_row(f"… {len(names) - len(shown)} more", "", "", "", "")
        return rows

    def _blocks(self) -> Text:
        """The last blocks' judgements, as many as fit on a line."""
        void = sum(not valid for _, valid, _ in self.judged)
        text = Text(
            f"blocks    {len(self.judged) - void} valid, {void} void", no_wrap=True, overflow="ellipsis"
        )
        last = next(((block, why) for block, valid, why in reversed(self.judged) if not valid), None)
        if last:
            text.append(f"; block {last[0]}: {last[1]}", style="yellow")
        return text
