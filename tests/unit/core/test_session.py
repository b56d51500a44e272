from __future__ import annotations

import pytest

from kabench.core.session import IN_WINDOW, TABLE, Event, Session, State, transition
from kabench.errors import AgentError

MS = 1_000_000
S = 1_000 * MS


def prepared(now_ns: int = 0, lease_ns: int = 60 * S) -> Session:
    session = Session()
    session.prepare(now_ns, "001-a", warm_up_ns=2 * S, window_ns=10 * S, lease_ns=lease_ns)
    session.prepared(now_ns)
    return session


def armed() -> Session:
    session = prepared()
    session.arm(1 * S, "001-a", 5 * S)
    return session


def test_the_whole_way_by_the_table() -> None:
    state = State.IDLE
    seen = [state]
    for event in (Event.PREPARE, Event.PREPARED, Event.ARM, Event.START, Event.END, Event.SEALED, Event.ACK):
        state = transition(state, event)
        seen.append(state)
    assert [str(state) for state in seen] == [
        "idle", "preparing", "prepared", "armed", "running", "draining", "sealed", "idle",
    ]  # fmt: skip


@pytest.mark.parametrize("state", State)
def test_an_abort_leads_to_idle_from_everywhere(state: State) -> None:
    assert transition(state, Event.ABORT) is State.IDLE


@pytest.mark.parametrize(
    ("state", "legal"),
    [
        (State.IDLE, {Event.PREPARE}),
        (State.PREPARING, {Event.PREPARED, Event.FAILED}),
        (State.PREPARED, {Event.ARM, Event.FAILED, Event.LEASE_EXPIRED}),
        (State.ARMED, {Event.START, Event.FAILED}),
        (State.RUNNING, {Event.END, Event.FAILED}),
        (State.DRAINING, {Event.SEALED, Event.FAILED}),
        (State.SEALED, {Event.ACK, Event.PREPARE, Event.LEASE_EXPIRED}),
    ],
)
def test_what_is_not_legal_is_refused_in_a_sentence(state: State, legal: set[Event]) -> None:
    for event in set(Event) - legal - {Event.ABORT}:
        with pytest.raises(AgentError, match=f"no {event} while {state}: .+"):
            transition(state, event)
    assert set(TABLE[state]) == legal | {Event.ABORT}


def test_a_window_passes_by_time_alone() -> None:
    session = armed()
    assert session.tick(3 * S - 1) == ()
    assert session.state is State.ARMED
    assert session.tick(3 * S) == (Event.START,)
    assert session.tick(15 * S - 1) == ()
    assert session.state is State.RUNNING
    assert session.tick(15 * S) == (Event.END,)
    session.sealed(16 * S)
    assert session.state is State.SEALED


def test_a_late_look_catches_up() -> None:
    session = armed()
    assert session.tick(100 * S) == (Event.START, Event.END)


def test_the_lease_ends_what_waits_for_the_controller() -> None:
    session = prepared()
    assert session.tick(60 * S) == ()
    assert session.tick(60 * S + 1) == (Event.LEASE_EXPIRED,)
    assert session.state is State.IDLE
    assert session.error == "no word from the controller for 60.0 s: 001-a was given up"


def test_a_word_renews_the_lease() -> None:
    session = prepared()
    session.hear(50 * S)
    assert session.tick(110 * S) == ()
    assert session.tick(110 * S + 1) == (Event.LEASE_EXPIRED,)


def test_the_lease_never_ends_a_window_and_counts_anew_after_it() -> None:
    session = prepared(lease_ns=4 * S)
    session.arm(1 * S, "001-a", 5 * S)
    for now_ns in (2 * S, 9 * S, 14 * S, 20 * S):
        assert Event.LEASE_EXPIRED not in session.tick(now_ns)
        assert session.state in IN_WINDOW
    session.sealed(21 * S)
    assert session.tick(25 * S) == ()
    assert session.tick(25 * S + 1) == (Event.LEASE_EXPIRED,)
    assert session.error == ""  # the log is held: nothing was lost


def test_preparing_waits_for_its_own_timeouts() -> None:
    session = Session()
    session.prepare(0, "001-a", warm_up_ns=0, window_ns=S, lease_ns=S)
    assert session.tick(100 * S) == ()
    session.prepared(100 * S)
    assert session.tick(101 * S) == ()


@pytest.mark.parametrize(
    ("window", "start_ns", "reason"),
    [
        ("002-b", 5 * S, "001-a is prepared, not 002-b"),
        ("001-a", 3 * S, "should have begun 0.0 ms ago"),
        ("001-a", 2 * S, "should have begun 1000.0 ms ago"),
        ("001-a", 63 * S + 1, "beyond the lease of 60.0 s"),
    ],
)
def test_arming_wrongly_leaves_it_prepared(window: str, start_ns: int, reason: str) -> None:
    session = prepared()
    with pytest.raises(AgentError, match=reason):
        session.arm(1 * S, window, start_ns)
    assert session.state is State.PREPARED
    session.arm(1 * S, "001-a", 63 * S)
    assert session.state is State.ARMED


def test_a_failure_is_kept_until_the_next_order() -> None:
    session = armed()
    session.tick(4 * S)
    session.fail("the engine broke")
    assert (session.state, session.error) == (State.IDLE, "the engine broke")
    session.prepare(5 * S, "002-a", warm_up_ns=0, window_ns=S, lease_ns=S)
    assert (session.window, session.error) == ("002-a", "")


@pytest.mark.parametrize("now_ns", [2 * S, 4 * S, 14 * S])
def test_the_engines_word_counts_more_than_the_clock(now_ns: int) -> None:
    session = armed()
    session.tick(now_ns)
    session.sealed(now_ns)
    assert session.state is State.SEALED


def test_sealing_what_never_began_is_refused() -> None:
    with pytest.raises(AgentError, match="no sealed while prepared"):
        prepared().sealed(2 * S)
