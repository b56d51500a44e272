"""How contended a node was just before a placement: all that a placement policy may know beside requests."""

from __future__ import annotations

import msgspec


class Contention(msgspec.Struct, frozen=True):
    """What a short probe on the node saw, between windows.

    Attributes:
        probe_ns: wall time of the probe.
        run_ns: time the probe spent on a CPU.
        run_delay_ns: time it was runnable and waited for a CPU.
        read_p50_ns, read_p99_ns: nanoseconds a random read took, over a buffer larger than the last-level cache,
            in batches; None where the canary could not run.
        psi_some: share of time in which some task waited, by resource ("cpu", "memory", "io"); host-wide on one machine.
        unavailable: what could not be read, and why; never a zero in its place.
    """

    probe_ns: int
    run_ns: int
    run_delay_ns: int
    read_p50_ns: float | None = None
    read_p99_ns: float | None = None
    psi_some: dict[str, float] = msgspec.field(default_factory=dict)
    unavailable: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def run_delay_share(self) -> float:
        """Waiting as a share of the time the probe wanted to run: 0 on an idle CPU, 0.8 beside four busy tasks."""
        wanted = self.run_ns + self.run_delay_ns
        return self.run_delay_ns / wanted if wanted else 0.0
