"""The engine in virtual time: what it sends when, and what it makes of the answers. All exact to the nanosecond."""

import asyncio
import gc

import engine_kit as kit
import numpy as np
import pytest
from engine_kit import HTTP_OK, MS, NEVER, START_NS, Server, World

from kabench.core.identity import NULL_TARGET, Metric
from kabench.errors import AgentError
from kabench_agent.engine import Engine
from kabench_agent.turns import moment_s


async def test_every_request_leaves_when_it_is_due_and_only_the_window_is_recorded():
    server = Server(lambda number: (500, HTTP_OK))
    prepare = kit.order(kit.http_target())
    done = await kit.run(World(server), prepare)
    due = kit.dues(prepare)
    sent = [at_ns for at_ns, _ in server.requests]
    assert sent[-len(due) :] == due
    assert len(sent) == len(due) + 1  # 1,000 ns of warm-up at one a microsecond
    assert done.seal.totals["echo-0"].ok == len(due) == done.engine.planned["echo-0"]
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram([500] * len(due))
    assert done.histogram("echo-0", Metric.SERVICE) == kit.histogram([500] * len(due))
    assert done.histogram("echo-0", Metric.LAG) == kit.histogram([0] * len(due))
    assert done.histogram("echo-0", Metric.WAIT) == kit.histogram([0] * len(due))
    assert done.seal.start_skew_ns == 0


@pytest.mark.parametrize("seed", range(5))
async def test_one_connection_is_a_queue_and_waiting_is_not_lag(seed):
    """Lindley's recursion by hand: with one request at a time, each leaves when it is due or when the last is answered."""
    rng = np.random.default_rng(seed)
    prepare = kit.order(
        kit.http_target(rate_per_s=1e6), arrivals="poisson", seed=seed, warm_up_ns=0, timeout_ns=MS
    )
    due = kit.dues(prepare)
    took = rng.integers(1, 1900, len(due)).tolist()
    server = Server(lambda number: (took[number], HTTP_OK))
    done = await kit.run(World(server), prepare)
    free_ns, sent, received = 0, [], []
    for due_ns, took_ns in zip(due, took, strict=True):
        sent.append(max(due_ns, free_ns))
        free_ns = sent[-1] + took_ns
        received.append(free_ns)
    due, sent, received = np.array(due), np.array(sent), np.array(received)
    assert [at_ns for at_ns, _ in server.requests] == sent.tolist()
    assert (sent > due).any()
    assert done.histogram("echo-0", Metric.WAIT) == kit.histogram(sent - due)
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram(received - due)
    assert done.histogram("echo-0", Metric.SERVICE) == kit.histogram(took)
    assert done.histogram("echo-0", Metric.LAG) == kit.histogram([0] * len(due))


async def test_a_stalled_loop_sends_late_and_lag_shows_it():
    world = World(Server(lambda number: (100, HTTP_OK)))
    prepare = kit.order(kit.http_target(connections=20), warm_up_ns=0)
    due = kit.dues(prepare)
    world.at(START_NS + 1, lambda: setattr(world, "stall_until_ns", START_NS + 7_500))
    done = await kit.run(world, prepare)
    lag = [max(0, START_NS + 7_500 - at_ns) if at_ns > START_NS + 1 else 0 for at_ns in due]
    assert sum(late_ns > 0 for late_ns in lag) == 7
    assert done.histogram("echo-0", Metric.LAG) == kit.histogram(lag)
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram([late_ns + 100 for late_ns in lag])
    assert done.histogram("echo-0", Metric.SERVICE) == kit.histogram([100] * len(due))
    assert done.seal.totals["echo-0"].ok == len(due)


async def test_a_late_start_is_the_start_skew():
    world = World()
    prepare = kit.order(kit.http_target(connections=5))
    world.at(START_NS - 50_000, lambda: setattr(world, "stall_until_ns", START_NS - 300))
    done = await kit.run(world, prepare)
    assert done.seal.start_skew_ns == 700
    assert done.seal.totals["echo-0"].ok == done.engine.planned["echo-0"]


async def test_intervals_are_half_open_and_by_completion():
    """A reply at the very border belongs to the interval that begins there; the window ends like any other."""
    prepare = kit.order(kit.http_target(connections=10), warm_up_ns=0, timeout_ns=20_000)
    due = kit.dues(prepare)
    ends = {4: START_NS + 5_000, 9: START_NS + 9_999, 19: START_NS + 20_000}
    server = Server(lambda number: (ends.get(number, due[number] + 1) - due[number], HTTP_OK))
    done = await kit.run(World(server), prepare)
    assert [i.note.index for i in done.intervals] == [0, 1, 2, 3, 4]
    assert [i.note.length_ns for i in done.intervals] == [5_000] * 4 + [1]
    assert [i.note.outcomes["echo-0"].ok for i in done.intervals] == [4, 6, 5, 4, 1]


async def test_a_window_whose_replies_are_in_has_no_drain():
    prepare = kit.order(kit.http_target(rate_per_s=1e6), window_ns=12_000, warm_up_ns=0)
    done = await kit.run(World(Server(lambda number: (1, HTTP_OK))), prepare)
    assert [i.note.length_ns for i in done.intervals] == [5_000, 5_000, 2_000]


async def test_the_drain_goes_on_in_intervals_until_nothing_is_in_flight():
    prepare = kit.order(kit.http_target(connections=30), warm_up_ns=0, timeout_ns=16_000)
    last = len(kit.dues(prepare)) - 1
    server = Server(lambda number: (12_000 if number == last else 1, HTTP_OK))
    done = await kit.run(World(server), prepare)
    end_ns = kit.dues(prepare)[-1] + 12_000 - START_NS - 20_000
    assert [i.note.length_ns for i in done.intervals] == [5_000] * 6 + [end_ns - 10_000 + 1]
    assert done.intervals[-1].note.outcomes["echo-0"].ok == 1


async def test_requests_of_the_warm_up_that_end_in_the_window_are_not_recorded():
    prepare = kit.order(kit.http_target(connections=10), warm_up_ns=3_000, timeout_ns=6_000)
    server = Server(
        lambda number: (4_000, HTTP_OK) if number < 2 else (NEVER, b"") if number == 2 else (10, HTTP_OK)
    )
    done = await kit.run(World(server), prepare)
    totals = done.seal.totals["echo-0"]
    assert (totals.planned, totals.ok, totals.timeout, totals.error) == (20, 20, 0, 0)
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram([10] * 20)


async def test_pipelining_puts_more_than_one_on_a_connection_and_answers_in_order():
    prepare = kit.order(kit.http_target(pipeline=4), warm_up_ns=0, timeout_ns=MS)
    server = Server(lambda number: (900, HTTP_OK), parallel=True)
    done = await kit.run(World(server), prepare)
    due = kit.dues(prepare)
    assert [at_ns for at_ns, _ in server.requests] == due
    assert done.histogram("echo-0", Metric.SERVICE) == kit.histogram([900] * len(due))


async def test_requests_go_round_over_the_connections():
    server = Server(lambda number: (10, HTTP_OK))
    await kit.run(World(server), kit.order(kit.http_target(connections=4), warm_up_ns=0))
    assert [server.links.index(link) for link in server.users] == [0, 1, 2, 3] * 5


async def test_several_targets_and_the_null_echo_are_kept_apart():
    world = World(Server(lambda number: (300, HTTP_OK)))
    world.servers[81] = Server(lambda number: (700, b"+OK\r\n"))
    prepare = kit.order(
        kit.http_target(rate_per_s=5e5),
        kit.redis_target(port=81, rate_per_s=1e6, mix=(("set", 1.0),)),
        null_rate_per_s=2e5,
    )
    done = await kit.run(world, prepare, null=True)
    assert done.engine.planned == {"echo-0": 10, "redis-0": 20, NULL_TARGET: 4}
    assert {name: total.ok for name, total in done.seal.totals.items()} == done.engine.planned
    assert done.histogram("echo-0", Metric.SERVICE) == kit.histogram([300] * 10)
    assert done.histogram("redis-0", Metric.SERVICE) == kit.histogram([700] * 20)
    assert done.histogram(NULL_TARGET, Metric.SERVICE) == kit.histogram([50] * 4)


async def test_a_ramp_is_sent_as_it_rises_and_the_null_echo_keeps_its_rate():
    server = Server(lambda number: (10, HTTP_OK))
    prepare = kit.order(
        kit.http_target(connections=20),
        profile=((0, 0), (1, 2)),
        null_rate_per_s=1e6,
        warm_up_ns=0,
        window_ns=100_000,
    )
    done = await kit.run(World(server), prepare, null=True)
    sent = np.array([at_ns for at_ns, _ in server.requests]) - START_NS
    assert done.seal.totals["echo-0"].ok == sent.size == pytest.approx(100, abs=1)
    assert np.count_nonzero(sent < 50_000) == pytest.approx(25, abs=1)
    halves = [
        sum(interval.note.outcomes[NULL_TARGET].ok for interval in done.intervals if half(interval))
        for half in (
            lambda interval: interval.note.start_ns < START_NS + 50_000,
            lambda interval: interval.note.start_ns >= START_NS + 50_000,
        )
    ]
    assert halves == [pytest.approx(50, abs=1)] * 2


async def test_without_a_null_echo_there_is_none():
    done = await kit.run(World(), kit.order(kit.http_target(), null_rate_per_s=0.0), null=True)
    assert NULL_TARGET not in done.engine.planned


async def test_health_is_each_intervals_own():
    world = World(Server(lambda number: (1_500, HTTP_OK)))
    done = await kit.run(world, kit.order(kit.http_target(connections=5), warm_up_ns=0))
    assert [round(i.note.health.cpu_share, 2) for i in done.intervals[:4]] == [0.25] * 4
    assert [i.note.health.run_delay_ns for i in done.intervals[:4]] == [500] * 4
    assert done.seal.health.max_in_flight == 2
    assert done.seal.health.reconnects == 0
    assert done.seal.health.collections == 0


async def test_the_collector_is_off_in_the_window_and_on_again_after():
    seen = []
    server = Server(lambda number: seen.append(gc.isenabled()) or (10, HTTP_OK))
    frozen_before = gc.get_freeze_count()
    assert gc.isenabled()
    await kit.run(World(server), kit.order(kit.http_target()))
    assert set(seen) == {False}
    assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen_before


async def test_values_beyond_the_geometry_are_clamped_and_counted():
    second_ns = 1000 * MS
    prepare = kit.order(
        kit.http_target(rate_per_s=1, connections=2),
        warm_up_ns=0,
        window_ns=1 * second_ns,
        interval_ns=100 * second_ns,
        timeout_ns=90 * second_ns,
    )
    done = await kit.run(World(Server(lambda number: (70 * second_ns, HTTP_OK))), prepare)
    assert done.seal.totals["echo-0"].ok == 1
    assert done.seal.health.clamped == 2  # response and service


async def test_connect_waits_for_every_connection_and_names_the_target_that_does_not_answer():
    world = World(Server(connect_ns=5_000))
    engine = kit.make_engine(world, kit.order(kit.http_target(connections=3)), print)
    began_ns = world.clock.monotonic_ns()
    await world.finish(engine.connect(began_ns + 6_000))
    assert world.clock.monotonic_ns() == began_ns + 5_000
    await engine.close()

    world = World(Server(accepts=lambda attempt: False))
    engine = kit.make_engine(world, kit.order(kit.http_target()), print)
    with pytest.raises(AgentError, match="no connection to target echo-0: refused"):
        await world.finish(engine.connect(world.clock.monotonic_ns() + 300 * MS))
    pauses = np.diff(world.servers[80].attempts) // MS
    assert pauses.tolist() == [10, 20, 40, 80]
    await engine.close()


async def test_a_connection_that_comes_after_the_end_is_closed_at_once():
    world = World(Server(connect_ns=10_000))
    engine = kit.make_engine(world, kit.order(kit.http_target()), print)
    with pytest.raises(AgentError, match="no answer in time"):
        await world.finish(engine.connect(world.clock.monotonic_ns() + 5_000))
    await engine.close()
    while world.step():
        pass
    assert [link.open for link in world.servers[80].links] == [False]


async def test_an_attempt_given_up_when_it_was_made_counts_once():
    server = Server(gives_up=lambda attempt: attempt < 3)
    world = World(server)
    engine = kit.make_engine(world, kit.order(kit.http_target(connections=2)), print)
    await world.finish(engine.connect(world.clock.monotonic_ns() + 500 * MS))
    assert sum(link.open for link in server.links) == 2
    assert len(server.attempts) == 5
    await engine.close()


async def test_abort_ends_a_window_and_close_ends_its_connections():
    world = World(Server(lambda number: (NEVER, b"")))
    prepare = kit.order(kit.http_target(), timeout_ns=MS)
    engine = kit.make_engine(world, prepare, print)
    await world.finish(engine.connect(START_NS - 1))
    world.at(START_NS + 3_000, engine.abort)
    with pytest.raises(AgentError, match="aborted"):
        await world.finish(engine.run(START_NS))
    assert gc.isenabled()
    await engine.close()
    await engine.close()
    assert not any(link.open for link in world.servers[80].links)
    assert world.pacer.armed_ns is None


async def test_an_abort_keeps_every_interval_that_had_closed_though_their_moment_had_not_come(monkeypatch):
    monkeypatch.setattr("kabench_agent.engine.moment_s", lambda seed, interval_ns: 60.0)
    world, sunk, before = World(), [], []
    engine = kit.make_engine(world, kit.order(kit.http_target()), sunk.append)
    await world.finish(engine.connect(START_NS - 1))

    def abort():
        before.extend(sunk)
        engine.abort()

    world.at(START_NS + 12_000, abort)
    with pytest.raises(AgentError, match="aborted"):
        await world.finish(engine.run(START_NS))
    await engine.close()
    assert before == []
    assert [interval.note.index for interval in sunk] == [0, 1]


async def test_nobody_waits_for_a_moment_once_the_window_is_over(monkeypatch):
    monkeypatch.setattr("kabench_agent.engine.moment_s", lambda seed, interval_ns: 60.0)
    async with asyncio.timeout(30):
        done = await kit.run(World(), kit.order(kit.http_target()))
    assert [interval.note.index for interval in done.intervals][:4] == [0, 1, 2, 3]  # the rest is drain


async def test_intervals_are_folded_with_pauses_while_the_engine_drives(monkeypatch):
    monkeypatch.setattr("kabench_agent.turns.STEP_NS", 0)
    pauses, pause = [], Engine._pause

    async def counted(engine, *seconds):
        pauses.append(seconds)
        await pause(engine, *seconds)

    monkeypatch.setattr(Engine, "_pause", counted)
    done = await kit.run(World(), kit.order(kit.http_target()))
    assert done.seal.totals["echo-0"].ok
    assert len([seconds for seconds in pauses if not seconds]) >= 5  # the others wait for an agent's moment


def test_agents_have_moments_of_their_own_and_all_leave_time_for_their_steps():
    moments = [moment_s(seed, 1_000 * MS) for seed in range(200)]
    assert len(set(moments)) == len(moments)
    assert 0 <= min(moments) < 0.1
    assert 0.7 < max(moments) <= 0.8


async def test_a_sink_that_fails_ends_the_window():
    def refuse(interval):
        raise OSError("no room")

    world = World()
    engine = kit.make_engine(world, kit.order(kit.http_target()), refuse)
    await world.finish(engine.connect(START_NS - 1))
    with pytest.raises(OSError, match="no room"):
        await world.finish(engine.run(START_NS))
    await engine.close()


async def test_cancelling_run_restores_the_collector():
    world = World()
    engine = kit.make_engine(world, kit.order(kit.http_target()), print)
    await world.finish(engine.connect(START_NS - 1))
    task = asyncio.create_task(engine.run(START_NS))
    await asyncio.sleep(0)
    assert not gc.isenabled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gc.isenabled()
    await engine.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timeout_ns": 0}, "must be positive"),
        ({"max_in_flight": 0}, "must be positive"),
        ({"arrivals": "bursts"}, "not 'bursts'"),
    ],
)
def test_what_cannot_be_driven_is_refused(changes, words):
    with pytest.raises(AgentError, match=words):
        kit.make_engine(World(), kit.order(kit.http_target(), **changes), print)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (kit.http_target(connections=0), "at least one connection"),
        (kit.http_target(rate_per_s=-1.0), "rate of -1"),
        (kit.redis_target(keys=0), "at least one key"),
        (kit.http_target(name=NULL_TARGET), "stands twice"),
    ],
)
def test_targets_that_cannot_be_driven_are_refused(target, words):
    with pytest.raises(AgentError, match=words):
        kit.make_engine(World(), kit.order(target, null_rate_per_s=1.0), print, null=True)


async def test_a_connection_that_the_peer_says_it_will_close_is_not_used_again():
    """Others wait already when the reply with the goodbye comes: none of them may be put on that connection."""
    bye = HTTP_OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    server = Server(lambda number: (1_600, bye))
    prepare = kit.order(kit.http_target(), warm_up_ns=0, timeout_ns=MS)
    done = await kit.run(World(server), prepare)
    assert done.seal.totals["echo-0"].ok == 20
    assert done.histogram("echo-0", Metric.WAIT).max_ns > 1_000
    assert len(server.links) == 1 + 19  # one after each reply but the last, which ends the window
    assert done.seal.health.reconnects == 19


async def test_the_last_reply_enters_its_own_interval_even_where_none_had_been_closed():
    """The pacer stands still from the window's last request on; its reply alone must close what lies before it."""
    prepare = kit.order(kit.http_target(connections=30), warm_up_ns=0, timeout_ns=90_000)
    due = kit.dues(prepare)
    server = Server(lambda number: (12_000 if number == 19 else 1, HTTP_OK))
    world = World(server)
    world.at(due[-1] + 2, lambda: setattr(world, "stall_until_ns", START_NS + 80_000))
    done = await kit.run(world, prepare)
    assert [i.note.length_ns for i in done.intervals] == [5_000] * 6 + [
        due[-1] + 12_000 - START_NS - 30_000 + 1
    ]
    assert [i.note.outcomes["echo-0"].ok for i in done.intervals] == [5, 5, 5, 4, 0, 0, 1]
