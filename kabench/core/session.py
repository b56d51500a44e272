"""An agent's session, from an order to a sealed log: which event may follow which. Pure: time comes in as an argument.

::

    idle ──prepare──▶ preparing ──prepared──▶ prepared ──arm──▶ armed ──start──▶ running ──end──▶ draining
     ▲                   │ failed               │ lease                                              │ sealed
     └───────────────────┴──────────────────────┴──────────── ack, prepare, lease ──── sealed ◀──────┘

An abort leads back to idle from everywhere, and so does a failure of what is under way. The lease ends only what waits
for the controller: a window that is armed or running goes on to its end without it. `preparing` is bounded by its own
time-outs, and the controller's call is open meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from kabench.errors import AgentError


class State(StrEnum):
    """Where a session stands."""

    IDLE = "idle"
    PREPARING = "preparing"
    PREPARED = "prepared"
    ARMED = "armed"
    RUNNING = "running"
    DRAINING = "draining"
    SEALED = "sealed"


class Event(StrEnum):
    """What moves a session. `PREPARE`, `ARM`, `ACK` and `ABORT` are the controller's; the rest comes from within."""

    PREPARE = "prepare"
    PREPARED = "prepared"
    FAILED = "failed"
    ARM = "arm"
    START = "start"
    END = "end"
    SEALED = "sealed"
    ACK = "ack"
    ABORT = "abort"
    LEASE_EXPIRED = "lease_expired"


TABLE: Mapping[State, Mapping[Event, State]] = {
    State.IDLE: {
        Event.PREPARE: State.PREPARING,
        Event.ABORT: State.IDLE,  # so that a second abort, or one too many, does no harm
    },
    State.PREPARING: {
        Event.PREPARED: State.PREPARED,
        Event.FAILED: State.IDLE,
        Event.ABORT: State.IDLE,
    },
    State.PREPARED: {
        Event.ARM: State.ARMED,
        Event.FAILED: State.IDLE,
        Event.ABORT: State.IDLE,
        Event.LEASE_EXPIRED: State.IDLE,
    },
    State.ARMED: {
        Event.START: State.RUNNING,
        Event.FAILED: State.IDLE,
        Event.ABORT: State.IDLE,
    },
    State.RUNNING: {
        Event.END: State.DRAINING,
        Event.FAILED: State.IDLE,
        Event.ABORT: State.IDLE,
    },
    State.DRAINING: {
        Event.SEALED: State.SEALED,
        Event.FAILED: State.IDLE,
        Event.ABORT: State.IDLE,
    },
    State.SEALED: {
        Event.ACK: State.IDLE,
        Event.PREPARE: State.PREPARING,  # the sealed log stays held: one that cannot be fetched must not block the run
        Event.ABORT: State.IDLE,
        Event.LEASE_EXPIRED: State.IDLE,
    },
}

IN_WINDOW = frozenset({State.ARMED, State.RUNNING, State.DRAINING})
"""Where nothing but the load may use the agent's CPU."""

_HINTS: Mapping[State, str] = {
    State.IDLE: "prepare a window first",
    State.PREPARING: "wait until it is prepared, or abort it",
    State.PREPARED: "arm it, or abort it",
    State.ARMED: "wait until it is sealed, or abort it",
    State.RUNNING: "wait until it is sealed, or abort it",
    State.DRAINING: "wait until it is sealed, or abort it",
    State.SEALED: "fetch its log and acknowledge it, or prepare the next window",
}


def transition(state: State, event: Event) -> State:
    """The state after `event`.

    Raises:
        AgentError: `event` may not come in `state`; the message says so and what may.
    """
    try:
        return TABLE[state][event]
    except KeyError:
        raise AgentError(f"no {event} while {state}: {_HINTS[state]}") from None


class Session:
    """The state of one agent, and the instants at which it changes by itself.

    Attributes:
        state: where it stands as of the last call.
        window: the window it is about; the last one while idle.
        error: why the last window failed, or what went wrong beside it; "" if nothing.
    """

    def __init__(self) -> None:
        self.state = State.IDLE
        self.window = ""
        self.error = ""
        self._heard_ns = 0
        self._lease_ns = 0
        self._warm_up_ns = 0
        self._window_ns = 0
        self._start_ns = 0

    def hear(self, now_ns: int) -> None:
        """The controller said something: its lease begins anew."""
        self._heard_ns = now_ns

    def prepare(self, now_ns: int, window: str, *, warm_up_ns: int, window_ns: int, lease_ns: int) -> None:
        """Begin to prepare `window`.

        Raises:
            AgentError: another window is under way.
        """
        self.state = transition(self.state, Event.PREPARE)
        self.window, self.error = window, ""
        self._warm_up_ns, self._window_ns, self._lease_ns = warm_up_ns, window_ns, lease_ns
        self.hear(now_ns)

    def prepared(self, now_ns: int) -> None:
        """All is ready; the lease counts from here.

        Raises:
            AgentError: nothing is being prepared.
        """
        self.state = transition(self.state, Event.PREPARED)
        self.hear(now_ns)

    def arm(self, now_ns: int, window: str, start_ns: int) -> None:
        """Be armed for `start_ns`, the end of the warm-up.

        Raises:
            AgentError: nothing is prepared, or another window is, or the warm-up's start has passed or lies further
                ahead than the lease (nothing would end such a wait).
        """
        armed = transition(self.state, Event.ARM)
        if window != self.window:
            raise AgentError(f"{self.window} is prepared, not {window}: arm that, or abort it")
        ahead_ns = start_ns - self._warm_up_ns - now_ns
        if ahead_ns <= 0:
            raise AgentError(
                f"{window} should have begun {-ahead_ns / 1e6:.1f} ms ago: arm it for a later instant"
            )
        if ahead_ns > self._lease_ns:
            raise AgentError(
                f"{window} would begin in {ahead_ns / 1e9:.1f} s, beyond the lease of {self._lease_ns / 1e9:.1f} s"
            )
        self.state, self._start_ns = armed, start_ns

    def sealed(self, now_ns: int) -> None:
        """The window's log is complete, whatever our clock says of it. A lease counts from here.

        Raises:
            AgentError: no window was under way.
        """
        for early in (Event.START, Event.END):
            if early in TABLE[self.state]:
                self.state = transition(self.state, early)
        self.state = transition(self.state, Event.SEALED)
        self.hear(now_ns)

    def fail(self, reason: str) -> None:
        """What was under way failed; `reason` is kept as `error`.

        Raises:
            AgentError: nothing was under way.
        """
        self.state = transition(self.state, Event.FAILED)
        self.error = reason

    def abort(self) -> None:
        """Give up whatever is under way."""
        self.state = transition(self.state, Event.ABORT)

    def ack(self) -> None:
        """The sealed log is safe elsewhere.

        Raises:
            AgentError: nothing is sealed.
        """
        self.state = transition(self.state, Event.ACK)

    def tick(self, now_ns: int) -> tuple[Event, ...]:
        """Let time pass: apply and return what happened by itself until `now_ns`."""
        events = []
        if self.state is State.ARMED and now_ns >= self._start_ns - self._warm_up_ns:
            events.append(Event.START)
            self.state = transition(self.state, Event.START)
        if self.state is State.RUNNING and now_ns >= self._start_ns + self._window_ns:
            events.append(Event.END)
            self.state = transition(self.state, Event.END)
        waits = Event.LEASE_EXPIRED in TABLE[self.state]
        if waits and now_ns - self._heard_ns > self._lease_ns:
            events.append(Event.LEASE_EXPIRED)
            if self.state is State.PREPARED:
                self.error = f"no word from the controller for {self._lease_ns / 1e9:.1f} s: {self.window} was given up"
            self.state = transition(self.state, Event.LEASE_EXPIRED)
        return tuple(events)
