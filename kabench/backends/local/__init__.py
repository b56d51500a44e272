"""The local backend: nodes are sets of this machine's CPUs, everything on them is a child process.

Placement is simulated, contention and latencies are real. Needs Linux, no root; on other systems it can be imported,
and says what it needs when it is started.
"""

from kabench.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
