"""The pacers on the machine's own clock: never before their time, replaced when armed anew, silent after their end."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from kabench.clock import SystemClock
from kabench_agent.pacing import LONGEST_AWAKE_NS, CallLaterPacer, TimerfdPacer, choose_pacer

MS = 1_000_000
CLOCK = SystemClock()
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="timerfd is Linux's")
PACERS = [pytest.param(TimerfdPacer, marks=on_linux), lambda: CallLaterPacer(CLOCK)]


class Woken:
    """Keeps when it was woken, and tells who waits."""

    def __init__(self):
        self.at_ns = []
        self._news = asyncio.Event()

    def __call__(self):
        self.at_ns.append(CLOCK.monotonic_ns())
        self._news.set()

    async def next(self):
        async with asyncio.timeout(5):
            await self._news.wait()
        self._news.clear()
        return self.at_ns[-1]


@pytest.mark.parametrize("make", PACERS)
async def test_it_wakes_at_the_instant_or_after_it_and_again_when_armed_again(make):
    pacer, woken = make(), Woken()
    early_ns = 2 * MS if pacer.name == "call_later" else 0
    pacer.start(woken)
    for _ in range(5):
        due_ns = CLOCK.monotonic_ns() + 3 * MS
        pacer.arm(due_ns)
        assert await woken.next() >= due_ns - early_ns
    assert len(woken.at_ns) == 5
    pacer.stop()


def is_set(pacer):
    """Whether the kernel is to wake it at some time."""
    return "it_value: (0, 0)" not in Path(f"/proc/self/fdinfo/{pacer._timer.fd}").read_text()


@on_linux
async def test_what_a_sleep_costs_is_found_out_and_leaves_the_timer_unset():
    pacer, woken = TimerfdPacer(), Woken()
    pacer.start(woken)
    assert 0 < pacer._near_ns <= LONGEST_AWAKE_NS
    assert pacer._timer.cost_ns() > 500  # three system calls
    assert not is_set(pacer)
    pacer.arm(CLOCK.monotonic_ns() + 10**12)
    assert is_set(pacer)
    pacer.stop()


@on_linux
async def test_what_is_near_is_waited_for_awake_and_what_is_put_off_is_not_called_early():
    pacer, woken = TimerfdPacer(), Woken()
    pacer.start(woken)
    pacer._near_ns = 3 * MS
    for _ in range(20):
        due_ns = CLOCK.monotonic_ns() + MS // 10
        pacer.arm(due_ns)
        assert await woken.next() >= due_ns
    pacer.arm(CLOCK.monotonic_ns() + MS)
    due_ns = CLOCK.monotonic_ns() + 10 * MS
    pacer.arm(due_ns)
    assert await woken.next() >= due_ns
    pacer.arm(due_ns + 3600_000 * MS)
    pacer.arm(CLOCK.monotonic_ns() + MS)
    await woken.next()
    assert len(woken.at_ns) == 22
    pacer.stop()


@on_linux
async def test_after_its_end_nothing_is_waited_for_awake():
    pacer, woken = TimerfdPacer(), Woken()
    pacer.start(woken)
    pacer._near_ns = 3 * MS
    pacer.arm(CLOCK.monotonic_ns() + MS)
    pacer.stop()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not woken.at_ns
    assert not pacer._turning


@pytest.mark.parametrize("make", PACERS)
async def test_an_instant_that_has_passed_wakes_at_once(make):
    pacer, woken = make(), Woken()
    pacer.start(woken)
    for at_ns in (CLOCK.monotonic_ns() - 1, 1, 0, -5):
        pacer.arm(at_ns)
        await woken.next()
    pacer.stop()


@pytest.mark.parametrize("make", PACERS)
async def test_arming_anew_replaces_what_was_armed(make):
    pacer, woken = make(), Woken()
    pacer.start(woken)
    now_ns = CLOCK.monotonic_ns()
    pacer.arm(now_ns + 3600_000 * MS)
    pacer.arm(now_ns + 2 * MS)
    await woken.next()
    pacer.arm(now_ns)  # due, and then put off before the loop has seen it
    pacer.arm(CLOCK.monotonic_ns() + 20 * MS)
    before_ns = CLOCK.monotonic_ns()
    assert await woken.next() >= before_ns + 15 * MS
    assert len(woken.at_ns) == 2
    pacer.stop()


@pytest.mark.parametrize("make", PACERS)
async def test_after_its_end_it_is_silent_and_leaves_nothing_open(make):
    pacer, woken = make(), Woken()
    before = len(os.listdir("/dev/fd"))
    pacer.start(woken)
    pacer.arm(CLOCK.monotonic_ns())
    pacer.stop()
    pacer.stop()
    other, seen = make(), Woken()
    other.start(seen)
    other.arm(CLOCK.monotonic_ns() + 5 * MS)
    await seen.next()
    other.stop()
    assert woken.at_ns == []
    assert len(os.listdir("/dev/fd")) == before


def test_the_best_pacer_of_this_system():
    assert choose_pacer().name == ("timerfd" if sys.platform.startswith("linux") else "call_later")


def test_without_a_timerfd_call_later_serves(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert choose_pacer(CLOCK).name == "call_later"


@on_linux
async def test_python_3_13s_own_timerfd_is_used_where_there_is_one(monkeypatch):
    calls = []
    if not hasattr(os, "timerfd_create"):
        reader, writer = os.pipe()
        os.write(writer, b"12345678")
        os.close(writer)
        monkeypatch.setattr(os, "timerfd_create", lambda clock, *, flags: reader, raising=False)
    arm = getattr(os, "timerfd_settime_ns", lambda fd, *, flags, initial: None)

    def seen(fd, *, flags, initial):
        calls.append((flags, initial))
        arm(fd, flags=flags, initial=initial)

    monkeypatch.setattr(os, "timerfd_settime_ns", seen, raising=False)
    pacer, woken = TimerfdPacer(), Woken()
    pacer.start(woken)
    assert calls  # what a sleep takes is looked at
    pacer._near_ns = -(1 << 62)
    pacer.arm(77)
    await woken.next()
    pacer.stop()
    assert calls[-1] == (1, 77)
    assert {flags for flags, _ in calls} == {1}  # an absolute time
