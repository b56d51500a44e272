"""The instrument's own state."""

from __future__ import annotations

import msgspec


class Health(msgspec.Struct, frozen=True):
    """The agent's own state in one interval, or over a window.

    Attributes:
        cpu_share: CPU time of the agent over wall time.
        collections: of the garbage collector (0: it is off in a window).
        max_in_flight: most requests in flight at once.
        reconnects: connections made anew.
        clamped: values beyond the geometry's highest, recorded there.
        run_delay_ns: runnable and waiting for a CPU (None: the kernel does not tell).
    """

    cpu_share: float = 0.0
    collections: int = 0
    max_in_flight: int = 0
    reconnects: int = 0
    clamped: int = 0
    run_delay_ns: int | None = None
