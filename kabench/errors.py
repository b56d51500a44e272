"""The error tree, split by whose fault it is.

::

    KabenchError
    ├── SpecError            the user's: a scenario, a flag, a path          exit 2
    ├── ClusterError         the place's: a backend cannot do what is asked  exit 4
    │   └── TargetLost       a target ended, or never got ready
    ├── AgentError           an agent answered with a refusal                exit 4
    │   ├── AgentLost        an agent is gone, or does not answer
    │   └── ProtocolError    the two ends do not speak the same version
    ├── MeasurementError     the run finished; its numbers are void          exit 3
    ├── LogError             a log that is corrupt or of another geometry    exit 5
    └── StoreError           the results folder: full, read-only, not ours   exit 4

Each message says what was wrong, where, and what to do, in one or two lines. `cli` alone turns them into exit codes;
foreign errors are translated where they are caught, and chained.
"""

from __future__ import annotations


class KabenchError(Exception):
    """The root of all errors that a user may see; `exit_code` is what `cli` ends with."""

    exit_code = 4


class SpecError(KabenchError):
    """A scenario, a flag or a path is wrong: the user's to mend."""

    exit_code = 2


class ClusterError(KabenchError):
    """The backend cannot do what it was asked to."""


class TargetLost(ClusterError):
    """A target ended, or did not get ready in time."""


class AgentError(KabenchError):
    """An agent refused a call, or could not carry it out."""


class AgentLost(AgentError):
    """An agent is gone, or did not answer in time."""


class ProtocolError(AgentError):
    """The agent speaks another version of the protocol, or answered with something else."""


class MeasurementError(KabenchError):
    """The run finished, and its numbers are void."""

    exit_code = 3


class LogError(KabenchError):
    """A histogram or a log is corrupt, or of another geometry."""

    exit_code = 5


class StoreError(KabenchError):
    """The results folder cannot be written or read."""
