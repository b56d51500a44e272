"""What targets do wrong, in virtual time: every request ends in one outcome, with the right times."""

import itertools

import engine_kit as kit
import pytest
from engine_kit import CLOSE, HTTP_OK, MS, NEVER, NULL_PORT, START_NS, Server, World
from hypothesis import given, settings
from hypothesis import strategies as st

from kabench.core.identity import NULL_TARGET, Metric
from kabench.errors import AgentError

HTTP_500 = HTTP_OK.replace(b"200 OK", b"500 Oh")


async def test_a_time_out_comes_to_the_nanosecond_and_enters_the_response_time():
    prepare = kit.order(kit.http_target(connections=5), warm_up_ns=0)
    server = Server(lambda number: (NEVER, b"") if number == 3 else (500, HTTP_OK))
    world = World(server)
    done = await kit.run(world, prepare)
    total = done.seal.totals["echo-0"]
    assert (total.planned, total.sent, total.ok, total.timeout, total.error) == (20, 20, 19, 1, 0)
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram([500] * 19 + [2_000])
    assert done.histogram("echo-0", Metric.SERVICE) == kit.histogram([500] * 19)
    assert done.histogram("echo-0", Metric.WAIT) == kit.histogram([0] * 20)
    assert server.attempts[5:] == [kit.dues(prepare)[3] + 2_000]  # its connection is made anew at once
    assert done.seal.health.reconnects == 1


async def test_a_reply_at_the_deadline_is_in_time_when_it_is_read_first():
    prepare = kit.order(kit.http_target(connections=5), warm_up_ns=0)
    done = await kit.run(World(Server(lambda number: (2_000, HTTP_OK))), prepare)
    assert done.seal.totals["echo-0"].ok == 20


async def test_what_shares_a_connection_with_a_time_out_is_aborted_unless_its_time_is_over_too():
    """Three on one connection, none answered: the first times out; the others are errors, in a histogram of their own."""
    prepare = kit.order(kit.http_target(pipeline=3), warm_up_ns=0, window_ns=3_000, timeout_ns=2_500)
    due = kit.dues(prepare)
    done = await kit.run(World(Server(lambda number: (NEVER, b""))), prepare)
    total = done.seal.totals["echo-0"]
    assert (total.timeout, total.error, total.errors) == (1, 2, {"aborted": 2})
    assert done.histogram("echo-0", Metric.ERROR) == kit.histogram(
        [due[0] + 2_500 - at_ns for at_ns in due[1:]]
    )
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram([2_500])


async def test_after_a_stall_all_whose_time_is_over_have_timed_out():
    prepare = kit.order(kit.http_target(pipeline=3), warm_up_ns=0, window_ns=3_000, timeout_ns=2_500)
    world = World(Server(lambda number: (NEVER, b"")))
    due = kit.dues(prepare)
    world.at(due[-1] + 1, lambda: setattr(world, "stall_until_ns", START_NS + 9_000))
    done = await kit.run(world, prepare)
    assert done.seal.totals["echo-0"].timeout == 3
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram(
        [START_NS + 9_000 - at_ns for at_ns in due]
    )


async def test_a_request_that_never_reached_a_socket_times_out_without_a_wait():
    prepare = kit.order(kit.http_target(), warm_up_ns=0, window_ns=4_000, timeout_ns=10_000)
    done = await kit.run(World(Server(lambda number: (NEVER, b""))), prepare)
    due = kit.dues(prepare)
    assert done.seal.totals["echo-0"].timeout == 4
    # each waits until the one before has timed out, and its connection was made anew: only then is it sent
    waits = [0] + [due[i - 1] - due[i] + 10_000 for i in range(1, 4)]
    assert done.histogram("echo-0", Metric.WAIT) == kit.histogram(waits)

    prepare = kit.order(kit.http_target(), warm_up_ns=0, window_ns=4_000, timeout_ns=10_000)
    server = Server(lambda number: (NEVER, b""), accepts=lambda attempt: attempt == 0)
    done = await kit.run(World(server), prepare)
    assert done.histogram("echo-0", Metric.WAIT) == kit.histogram([0])
    assert done.histogram("echo-0", Metric.LAG) == kit.histogram([0] * 4)


async def test_beyond_the_bound_requests_are_skipped_and_enter_at_the_time_out():
    prepare = kit.order(kit.http_target(connections=2), warm_up_ns=0, max_in_flight=3, timeout_ns=50_000)
    server = Server(lambda number: (20_000, HTTP_OK))
    done = await kit.run(World(server), prepare)
    total = done.seal.totals["echo-0"]
    assert (total.planned, total.sent, total.ok, total.skipped) == (20, 3, 3, 17)
    due = kit.dues(prepare)
    third = due[0] + 40_000 - due[2]
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram([50_000] * 17 + [20_000, 20_000, third])
    assert done.histogram("echo-0", Metric.LAG) == kit.histogram([0] * 20)
    assert done.histogram("echo-0", Metric.WAIT) == kit.histogram([0, 0, due[0] + 20_000 - due[2]])
    assert done.seal.health.max_in_flight == 3


async def test_the_bound_is_the_whole_agents_but_leaves_the_null_echo_alone():
    world = World(Server(lambda number: (NEVER, b"")))
    world.servers[81] = Server(lambda number: (100, HTTP_OK))
    prepare = kit.order(
        kit.http_target(connections=2),
        kit.http_target(port=81, name="echo-1"),
        max_in_flight=2,
        null_rate_per_s=5e5,
        timeout_ns=40_000,
        warm_up_ns=0,
    )
    done = await kit.run(world, prepare, null=True)
    assert done.seal.totals["echo-0"].timeout == 2  # these two fill the bound
    assert done.seal.totals["echo-0"].skipped == 18
    assert done.seal.totals["echo-1"].skipped >= 18  # all but what came before them
    assert done.seal.totals[NULL_TARGET].ok == 10
    assert done.seal.health.max_in_flight == 3


async def test_a_peer_that_closes_resets_what_is_on_the_connection():
    prepare = kit.order(kit.http_target(pipeline=3), warm_up_ns=0)
    world = World(Server(lambda number: (1_500, CLOSE) if number == 0 else (100, HTTP_OK)))
    done = await kit.run(world, prepare)
    assert done.seal.totals["echo-0"].errors == {"reset": 2}
    due = kit.dues(prepare)
    assert done.histogram("echo-0", Metric.ERROR) == kit.histogram([1_500, due[0] + 1_500 - due[1]])
    assert done.seal.totals["echo-0"].ok == 18 - done.seal.totals["echo-0"].timeout


async def test_without_a_connection_what_waits_fails_as_connect():
    """The target is gone from the start of the window on: no request may vanish, nor wait for its time-out."""
    world = World(Server(accepts=lambda attempt: attempt < 2))
    prepare = kit.order(
        kit.http_target(connections=2, rate_per_s=1e3),
        warm_up_ns=0,
        window_ns=200 * MS,
        interval_ns=50 * MS,
        timeout_ns=1_000 * MS,
    )
    world.at(START_NS, lambda: [link.drop() for link in world.servers[80].links])
    done = await kit.run(world, prepare)
    total = done.seal.totals["echo-0"]
    assert total.errors == {"connect": 200}
    assert (total.planned, total.sent, total.ok, total.timeout) == (200, 200, 0, 0)
    attempts = sorted(set(world.servers[80].attempts[2:]))
    gaps = [(after - before) / MS for before, after in itertools.pairwise([START_NS, *attempts])]
    assert gaps == [10, 20, 40, 80, 160][: len(gaps)]
    assert done.histogram("echo-0", Metric.ERROR).max_ns < 170 * MS
    assert done.histogram("echo-0", Metric.WAIT).total == 0


async def test_a_target_that_comes_back_is_driven_again():
    world = World(Server(lambda number: (100, HTTP_OK), accepts=lambda attempt: attempt < 1 or attempt > 3))
    prepare = kit.order(
        kit.http_target(rate_per_s=1e3),
        warm_up_ns=0,
        window_ns=200 * MS,
        interval_ns=50 * MS,
        timeout_ns=500 * MS,
    )
    world.at(START_NS + 50 * MS + 1, lambda: [link.drop() for link in world.servers[80].links])
    done = await kit.run(world, prepare)
    total = done.seal.totals["echo-0"]
    assert set(total.errors) == {"connect"}
    assert total.ok + total.error == 200
    assert 100 < total.ok < 200
    assert done.intervals[3].note.outcomes["echo-0"].ok == 50
    assert sum(i.note.health.reconnects for i in done.intervals) == 1


async def test_a_peer_that_accepts_and_closes_is_not_hammered():
    server = Server(lambda number: (0, CLOSE))
    prepare = kit.order(
        kit.http_target(rate_per_s=1e3),
        warm_up_ns=0,
        window_ns=1000 * MS,
        interval_ns=500 * MS,
        timeout_ns=800 * MS,
    )
    done = await kit.run(World(server), prepare)
    assert set(done.seal.totals["echo-0"].errors) == {"reset"}
    assert len(server.attempts) < 12


async def test_an_attempt_that_hangs_lets_requests_time_out():
    world = World(Server())
    world.servers[80].accepts = lambda attempt: attempt == 0
    prepare = kit.order(
        kit.http_target(rate_per_s=1e3),
        warm_up_ns=0,
        window_ns=20 * MS,
        interval_ns=50 * MS,
        timeout_ns=30 * MS,
    )

    def vanish():
        world.servers[80].connect_ns = 10_000 * MS
        for link in world.servers[80].links:
            link.drop()

    world.at(START_NS, vanish)
    done = await kit.run(world, prepare)
    assert done.seal.totals["echo-0"].timeout == 20
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram([30 * MS] * 20)


@pytest.mark.parametrize(
    ("target", "reply", "name"),
    [
        (kit.http_target(), HTTP_500, "status"),
        (kit.http_target(), b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "status"),
        (kit.http_target(), b"+PONG\r\n", "malformed"),
        (kit.redis_target(), b"-OOM command not allowed\r\n", "reply"),
        (kit.redis_target(), b"-NOAUTH Authentication required.\r\n", "reply"),
        (kit.redis_target(), b"$-1\r\n", "miss"),
        (kit.redis_target(), b":5,\r\n", "malformed"),
        (kit.redis_target(), b"HTTP/1.1 400\r\n", "malformed"),
    ],
)
async def test_a_reply_that_is_an_error_counts_as_one_and_leaves_the_percentiles_alone(target, reply, name):
    good = HTTP_OK if target.name == "echo-0" else b"$1\r\nx\r\n"
    prepare = kit.order(target, warm_up_ns=0)
    server = Server(lambda number: (1, reply) if number == 5 else (700, good))
    world = World(server)
    done = await kit.run(world, prepare)
    total = done.seal.totals[target.name]
    assert total.errors.pop(name) == 1
    assert done.histogram(target.name, Metric.RESPONSE).min_ns >= 700
    assert len(server.attempts) == (2 if name == "malformed" else 1)


async def test_a_reply_nobody_asked_for_ends_the_connection_but_blames_no_request():
    prepare = kit.order(kit.http_target(), warm_up_ns=0)
    server = Server(lambda number: (100, HTTP_OK + HTTP_OK if number == 4 else HTTP_OK))
    done = await kit.run(World(server), prepare)
    assert done.seal.totals["echo-0"].ok == 20
    assert len(server.attempts) == 2


async def test_a_server_that_turns_connections_away_is_not_hammered():
    """As Redis does beyond maxclients: an error that nobody asked for, and the end."""
    server = Server(lambda number: (100, b"+OK\r\n"))

    def turn_away():
        server.greeting = b"-ERR max number of clients reached\r\n"
        server.links[-1].drop()

    prepare = kit.order(
        kit.redis_target(rate_per_s=2),
        warm_up_ns=0,
        window_ns=1000 * MS,
        interval_ns=500 * MS,
        timeout_ns=300 * MS,
    )
    world = World(server)
    world.at(START_NS, turn_away)
    done = await kit.run(world, prepare)
    assert done.seal.totals["redis-0"].errors == {"reply": 2}
    assert 5 < len(server.attempts) < 25  # a refusal that was somebody's reply begins the pauses anew


@pytest.mark.parametrize("loop", ["open", "closed"])
@pytest.mark.parametrize(
    ("greeting", "why"),
    [
        (b"-ERR max number of clients reached\r\n", "it says something before it is asked"),
        (b"", "it takes connections and closes them"),
    ],
)
async def test_a_server_that_turns_everyone_away_is_told(loop, greeting, why):
    world = World(Server(greeting=greeting, turns_away=True))
    engine = kit.make_engine(
        world, kit.order(kit.redis_target(connections=2), loop=loop), lambda interval: None
    )
    with pytest.raises(AgentError, match=f"no connection to target redis-0: {why}"):
        await world.finish(engine.connect(START_NS))
    await engine.close()


async def test_a_null_echo_that_garbles_is_malformed():
    world = World()
    world.servers[NULL_PORT] = Server(lambda number: (10, b"pong" if number == 3 else b"ping"))
    done = await kit.run(world, kit.order(null_rate_per_s=1e6), null=True)
    assert done.seal.totals[NULL_TARGET].errors == {"malformed": 1}


BEHAVIOUR = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, 3_000),
            st.sampled_from([HTTP_OK, HTTP_500, CLOSE, b"garbage\r\n\r\n", HTTP_OK * 2]),
        ),
        st.just((NEVER, b"")),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60)
@given(
    behaviour=BEHAVIOUR,
    accepts=st.lists(st.booleans(), min_size=1, max_size=6),
    connections=st.integers(1, 3),
    pipeline=st.integers(1, 4),
    bound=st.integers(1, 12),
    stall=st.one_of(st.none(), st.tuples(st.integers(0, 20_000), st.integers(0, 30_000))),
    parallel=st.booleans(),
    seed=st.integers(0, 1000),
    arrivals=st.sampled_from(["poisson", "constant"]),
)
async def test_whatever_the_server_does_every_planned_request_has_one_outcome(
    behaviour, accepts, connections, pipeline, bound, stall, parallel, seed, arrivals
):
    """`kit.run` reads the log back: outcomes, histograms and totals reconcile to one."""
    server = Server(
        lambda number: behaviour[number % len(behaviour)],
        accepts=lambda attempt: attempt < connections or accepts[attempt % len(accepts)],
        parallel=parallel,
    )
    world = World(server)
    prepare = kit.order(
        kit.http_target(connections=connections, pipeline=pipeline, rate_per_s=2e6),
        max_in_flight=bound,
        seed=seed,
        arrivals=arrivals,
        null_rate_per_s=1e5,
    )
    if stall is not None:
        world.at(START_NS + stall[0], lambda: setattr(world, "stall_until_ns", START_NS + sum(stall)))
    done = await kit.run(world, prepare, null=True)
    total = done.seal.totals["echo-0"]
    assert total.planned == done.engine.planned["echo-0"] == total.sent + total.skipped
    assert done.histogram("echo-0", Metric.LAG).total == total.planned
    reached = sum(at_ns >= START_NS for at_ns, _ in server.requests)
    assert total.ok <= reached
    low = done.histogram("echo-0", Metric.RESPONSE)
    assert low.total == total.ok + total.timeout + total.skipped
    assert not any(link.open for link in server.links)


async def test_those_that_timed_out_while_they_waited_are_let_go():
    """Nobody answers: what waits grows no longer than what is under way."""
    world = World(Server(lambda number: (NEVER, HTTP_OK)))
    prepare = kit.order(kit.http_target(rate_per_s=1e7), window_ns=100_000, max_in_flight=50)
    intervals = []
    engine = kit.make_engine(world, prepare, intervals.append)
    await world.finish(engine.connect(START_NS - 1))
    waiting = engine._pools[0]._waiting
    longest = 0

    def look():
        nonlocal longest
        longest = max(longest, len(waiting))
        if world.clock.monotonic_ns() < START_NS + 100_000:
            world.at(world.clock.monotonic_ns() + 1_000, look)

    world.at(START_NS, look)
    await world.finish(engine.run(START_NS))
    await engine.close()
    assert 15 <= longest <= 21  # a time-out of 2 µs at 10 a µs


async def test_connections_that_ended_unused_are_let_go():
    """Nothing is asked, and the server closes what it accepted, over and over."""
    server = Server(greeting=b"x")
    prepare = kit.order(
        kit.http_target(rate_per_s=0.001, connections=2),
        warm_up_ns=0,
        window_ns=2_000 * MS,
        interval_ns=2_000 * MS,
    )
    world = World(server)
    engine = kit.make_engine(world, prepare, lambda interval: None)
    server.greeting = b""
    await world.finish(engine.connect(START_NS - 1))
    server.greeting = b"x"
    for link in list(server.links):
        world.at(START_NS + 1, link.drop)
    await world.finish(engine.run(START_NS))
    held = len(engine._pools[0]._free)
    await engine.close()
    assert len(server.links) > 10
    assert held <= 4


async def test_thousands_of_connections_are_made_some_hundred_at_a_time():
    server = Server(lambda number: (500, HTTP_OK), connect_ns=1_000)
    prepare = kit.order(kit.http_target(connections=2_000))
    world = World(server)
    done = await kit.run(world, prepare)
    assert len(server.links) == 2_000
    at_once = [server.attempts.count(at_ns) for at_ns in sorted(set(server.attempts))]
    assert max(at_once) == 256
    assert done.seal.totals["echo-0"].ok == len(kit.dues(prepare))
