"""Reading CPU times out of /proc, on texts as the kernel writes them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import psutil

from kabench.backends.local.accounting import (
    Accounting,
    busy_ns,
    by_parent,
    process_times,
    scan,
    tick_ns,
    tree_ns,
)
from kabench.backends.local.processes import Processes
from kabench.clock import SystemClock

TICK = 10_000_000
STAT = """cpu  300 0 0 0 0 0 0 0 0 0
cpu0 100 20 30 4000 500 6 7 8 90 1
cpu12 1 0 0 9 0 0 0 0 0 0
intr 12345 0 0
ctxt 99
"""


def test_busy_is_all_but_idle_and_io_wait_and_counts_guests_once() -> None:
    assert busy_ns(STAT, TICK) == {0: (100 + 20 + 30 + 6 + 7 + 8) * TICK, 12: TICK}


def test_a_process_name_with_blanks_and_brackets() -> None:
    fields = "S 77 1 1 0 -1 4194560 1 2 3 4 11 12 13 14 20 0 1 0 5 6 7"
    assert process_times(f"42 (evil ) name) {fields}", TICK) == (77, (11 + 12 + 13 + 14) * TICK)


def test_a_tree_is_summed_over_all_generations() -> None:
    processes = {1: (0, 5), 2: (1, 10), 3: (2, 20), 4: (0, 40)}
    children = by_parent(processes)
    assert children == {0: [1, 4], 1: [2], 2: [3]}
    assert tree_ns(1, processes, children) == 35
    assert tree_ns(9, processes, children) == 0


def test_the_scan_finds_this_process_and_its_parent() -> None:
    assert scan(tick_ns())[os.getpid()][0] == os.getppid()


def test_our_own_time_is_ours_and_never_goes_back(tmp_path: Path) -> None:
    accounting = Accounting(Processes(tmp_path, SystemClock()))
    before = accounting.usage(1)
    end = time.process_time_ns() + 50_000_000
    while time.process_time_ns() < end:
        pass
    after = accounting.usage(2)
    assert sum(after.own_ns.values()) - sum(before.own_ns.values()) >= 50_000_000 - len(after.own_ns)
    assert after.own_ns.keys() == os.sched_getaffinity(0)
    assert all(after.busy_ns[cpu] >= before.busy_ns[cpu] for cpu in before.busy_ns)


def test_the_controllers_time_is_counted_where_it_was_spent(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    accounting = Accounting(Processes(tmp_path, SystemClock()))
    before = accounting.usage(1)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        end = time.process_time_ns() + 50_000_000
        while time.process_time_ns() < end:
            pass
        accounting.settle()
    finally:
        os.sched_setaffinity(0, allowed)
    spent = {cpu: own - before.own_ns[cpu] for cpu, own in accounting.usage(2).own_ns.items()}
    assert spent[min(allowed)] >= 50_000_000 - len(spent)
    assert all(spent[cpu] < 40_000_000 for cpu in allowed - {min(allowed)})


BURN = """
import os
if os.fork() == 0:
    print("{}", flush=True)
while True: pass
"""


async def test_what_a_child_used_before_it_moved_stays_with_the_cpus_it_was_on(tmp_path: Path) -> None:
    here, there = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    processes = Processes(tmp_path, SystemClock())
    accounting = Accounting(processes)
    command = [sys.executable, "-c", BURN]
    child = processes.start(command, name="burn", role="noise", node="node-1", cpus=frozenset({here}))
    try:
        await processes.line(child, 0, 20)
        first = accounting.usage(0).own_ns[here]  # this process has used some already
        while accounting.usage(1).own_ns[here] < first + 300_000_000:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)
        processes.hold([child])
        begun = accounting.usage(2).own_ns
        accounting.move(child, "node-2", frozenset({there}))
        assert (child.node, child.cpus) == ("node-2", {there})
        root = psutil.Process(child.pid)
        family = [root, *root.children(recursive=True)]
        assert [one.cpu_affinity() for one in family] == [[there], [there]]
        before = accounting.usage(3).own_ns
        grown = [before[cpu] - begun.get(cpu, 0) for cpu in before]
        assert max(grown) < 100_000_000  # ours: looking costs some
        processes.release([child])
        while accounting.usage(4).own_ns[there] < before[there] + 300_000_000:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)
        processes.hold([child])
        moved = accounting.usage(5).own_ns
        assert moved[here] - before[here] < 100_000_000 or here == there
    finally:
        processes.kill([child])
    after = accounting.usage(6).own_ns
    assert all(after[cpu] >= moved[cpu] for cpu in moved)
    assert child.exit is not None
    assert sum(processes.settled_cpu_ns.values()) == child.exit.cpu_ns
