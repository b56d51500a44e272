"""Probes the node through a canary process beside the agent: the same CPUs, and it ends with the agent.

A process of its own, because the agent's event loop must not stand still, and because the canary's run delay is to be
that of a plain busy task. It stays between probes, asleep, so that its start is not paid each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import msgspec

from kabench.core.contention import Contention
from kabench.errors import AgentError

START_S = 15.0
"""How long a probe may take beyond its own length: the first one imports numpy and fills a buffer, on a busy CPU."""


class Canary:
    """The canary beside this agent, started at the first probe.

    Args:
        command: what to run; tests put something else there.
        patience_s: how long to wait for an answer beyond the probe's own length.
    """

    def __init__(self, command: tuple[str, ...] = (), patience_s: float = START_S) -> None:
        self._command = command or (
            sys.executable, "-m", "kabench_targets", "canary", "--parent", str(os.getpid())
        )  # fmt: skip
        self._patience_s = patience_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The canary's process, if there is one."""
        return self._process.pid if self._process else None

    async def probe(self, duration_ns: int) -> Contention:
        """Probe for `duration_ns`; calls wait for each other.

        Raises:
            AgentError: the canary did not start or answer. The next call starts a new one.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(self._patience_s + duration_ns / 1e9):
                    return await self._ask(duration_ns)
            except BaseException as error:
                await self.close()  # an answer that nobody waits for would be taken for the next one's
                if not isinstance(error, (OSError, ValueError, msgspec.MsgspecError)):
                    raise
                reason = str(error) or "it took too long"
                raise AgentError(f"the canary did not answer: {reason}") from error

    async def _ask(self, duration_ns: int) -> Contention:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # one thread: the canary is one task
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode({"duration_ns": duration_ns}) + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise ValueError(f"it ended with code {await process.wait()}")
        return msgspec.json.decode(line, type=Contention)

    async def close(self) -> None:
        """End the canary. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(OSError):
                await process.stdin.wait_closed()
