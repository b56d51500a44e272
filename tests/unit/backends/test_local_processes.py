"""Children: how they are started, what they leave, and that their end is certain."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from kabench.backends.local import launch
from kabench.backends.local.processes import Child, Exit, Processes
from kabench.clock import SystemClock
from kabench.errors import ClusterError, StoreError

PATIENCE_S = 20.0
CPU = frozenset([min(os.sched_getaffinity(0))]) if hasattr(os, "sched_getaffinity") else frozenset[int]()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the local backend needs Linux")


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    made = Processes(tmp_path / "proc", SystemClock())
    yield made
    made.kill(list(made.live))


def run(processes: Processes, script: str, name: str = "child", **env: str) -> Child:
    command = [sys.executable, "-c", script]
    return processes.start(command, name=name, role="target", node="node-1", cpus=CPU, env=env)


async def gone(child: Child) -> Exit:
    async with asyncio.timeout(PATIENCE_S):
        while child.exit is None:
            child.changed.clear()
            await child.changed.wait()
    return child.exit


DESCRIBE = """
import json, os, signal
print(json.dumps({
    "stdin": os.readlink("/proc/self/fd/0"),
    "cpus": sorted(os.sched_getaffinity(0)),
    "group": os.getpgid(0) == os.getpid(),
    "session": os.getsid(0) == os.getpid(),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
    "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "given": os.environ["GIVEN"],
}))
"""


async def test_what_a_child_is_born_with(processes: Processes) -> None:
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        said = await processes.line(run(processes, DESCRIBE, GIVEN="x"), 0, PATIENCE_S)
    finally:
        signal.signal(signal.SIGINT, kept)
    assert said == {
        "stdin": "/dev/null",
        "cpus": sorted(CPU),
        "group": True,
        "session": True,
        "fds": [0, 1, 2],
        "sigint": True,
        "given": "x",
    }


def test_the_launcher_does_not_outlive_its_parent() -> None:
    command = [sys.executable, "-I", "-S", launch.__file__, str(os.getppid()), "0", "/bin/echo", "started"]
    done = subprocess.run(command, capture_output=True, text=True)  # its parent is us, not our parent
    assert (done.returncode, done.stdout) == (launch.CANNOT_START, "")


async def test_the_end_is_accounted_for(processes: Processes) -> None:
    child = run(processes, "import time\nwhile time.process_time() < 0.1: pass\nraise SystemExit('done for')")
    ended = await gone(child)
    assert (str(ended), child.last_words()) == ("exit status 1", "exit status 1: done for")
    assert child.started_ns < ended.at_ns
    assert ended.cpu_ns >= 100_000_000
    assert processes.settled_cpu_ns == {CPU: ended.cpu_ns}
    assert processes.live == []
    assert processes.casualties() == [child]
    assert processes.casualties() == []


DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("{}", flush=True)
signal.pause()
"""


async def test_one_that_ignores_sigterm_is_killed(processes: Processes) -> None:
    child = run(processes, DEAF)
    await processes.line(child, 0, PATIENCE_S)
    await processes.end([child], grace_s=0.05)
    assert str(child.exit) == "killed by SIGKILL"
    assert processes.casualties() == []
    await processes.end([child])  # once more changes nothing


async def test_one_that_stands_still_goes_on_when_it_is_to_and_ends_when_it_is_asked(
    processes: Processes,
) -> None:
    child = run(processes, "import time\nprint('{}', flush=True)\nwhile True: time.sleep(0.001)")
    await processes.line(child, 0, PATIENCE_S)
    told = psutil.Process(child.pid)
    processes.hold([child])
    async with asyncio.timeout(PATIENCE_S):
        while told.status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        processes.release([child])
        while told.status() == psutil.STATUS_STOPPED:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        processes.hold([child])
        await processes.end([child], grace_s=PATIENCE_S)
    assert str(child.exit) == "killed by SIGTERM"
    processes.hold([child])
    processes.release([child])
    processes.send(child, signal.SIGUSR1)  # to none that has ended: its number may be another's


def has_ended(process: psutil.Process) -> bool:
    """Gone, or waiting for an init that does not reap."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


PARENT = """
import json, subprocess
child = subprocess.Popen(["sleep", "100"])
print(json.dumps({"pid": child.pid}), flush=True)
child.wait()
"""


async def test_what_a_child_started_ends_with_it(processes: Processes) -> None:
    child = run(processes, PARENT)
    below = psutil.Process((await processes.line(child, 0, PATIENCE_S))["pid"])
    os.kill(child.pid, signal.SIGKILL)
    await gone(child)
    async with asyncio.timeout(PATIENCE_S):
        while not has_ended(below):  # noqa: ASYNC110 - not our child, so nothing tells
            await asyncio.sleep(0.01)


async def test_the_last_line_of_this_start_is_quoted(processes: Processes) -> None:
    for word in ("first", "second"):
        child = run(processes, f"import sys; print('{word}', file=sys.stderr); sys.exit(3)")
        await gone(child)
        assert child.last_words() == f"exit status 3: {word}"
    assert child.log.read_text() == "first\nsecond\n"
    silent = run(processes, "raise SystemExit(4)")
    await gone(silent)
    assert silent.last_words() == "exit status 4"


async def test_output_counts_where_there_are_no_errors_and_is_bounded(processes: Processes) -> None:
    child = run(
        processes, "print('{\"port\": 1}'); print('cannot bind'); print('x' * 10); raise SystemExit(5)"
    )
    await gone(child)
    assert child.last_words() == "exit status 5: " + "x" * 10
    flood = run(processes, "import sys\nfor _ in range(300): print('y' * 1000)\nsys.exit(0)")
    assert str(await gone(flood)) == "exit status 0"
    assert len(flood.output) == 65_536


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('no json', flush=True)", "expected a line of JSON, got 'no json'"),
        ("print('[1]', flush=True)", "expected a line of JSON"),
        ("raise SystemExit('broken')", "child on node-1 did not start: exit status 1: broken"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "did not start: killed by SIGSEGV"),
    ],
)
async def test_a_line_that_does_not_come(processes: Processes, script: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message.replace("[", r"\[")):
        await processes.line(run(processes, script), 0, PATIENCE_S)


async def test_a_line_that_comes_too_late(processes: Processes) -> None:
    child = run(processes, "import signal; signal.pause()")
    with pytest.raises(ClusterError, match=r"child did not start within 0.05 s"):
        await processes.line(child, 0, 0.05)
    assert child.last_words() == "still running"


async def test_lines_are_read_however_they_are_cut(processes: Processes) -> None:
    said = {"text": "z" * 20_000}
    child = run(processes, f"import json; print('{{}}'); print(json.dumps({said!r}), flush=True)")
    assert await processes.line(child, 1, PATIENCE_S) == said
    assert json.loads(child.lines()[1]) == said


async def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"child\.log: Not a directory"):
        run(Processes(tmp_path / "file" / "proc", SystemClock()), "pass")


def test_an_unknown_signal_has_its_number() -> None:
    assert str(Exit(0, -63, 0)) == "killed by signal 63"
