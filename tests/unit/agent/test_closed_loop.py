"""The closed loop in virtual time: what is sent when, what is recorded, and what ends it. All exact to the nanosecond."""

import itertools

import engine_kit as kit
import numpy as np
import pytest
from engine_kit import CLOSE, HTTP_OK, MS, NEVER, START_NS, Server, World

from kabench.core.identity import NULL_TARGET, Metric
from kabench_agent.closed import Draws

RESP_OK = b"$1\r\nx\r\n"
WARM_UP_NS, WINDOW_NS = 1_000, 20_000
END_NS = START_NS + WINDOW_NS


def closed(*targets, **changes):
    return kit.order(*targets, loop="closed", **changes)


def total(done, name="echo-0"):
    return done.seal.totals[name]


async def test_a_request_leaves_when_the_reply_before_it_has_come_until_the_window_ends():
    server = Server(lambda number: (500, HTTP_OK))
    done = await kit.run(World(server), closed(kit.http_target()))
    sent = [at_ns for at_ns, _ in server.requests]
    assert sent == list(range(START_NS - WARM_UP_NS, END_NS, 500))
    assert total(done).planned == total(done).sent == total(done).ok == WINDOW_NS // 500
    assert done.engine.planned["echo-0"] is None
    assert done.histogram("echo-0", Metric.SERVICE) == kit.histogram([500] * 40)
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram([500] * 40)


async def test_what_was_sent_in_the_warm_up_is_not_recorded_though_it_is_answered_in_the_window():
    server = Server(lambda number: (3_000, HTTP_OK))
    done = await kit.run(World(server), closed(kit.http_target(), timeout_ns=5_000))
    sent = [at_ns for at_ns, _ in server.requests]
    assert sent[0] == START_NS - 1_000
    assert total(done).ok == sum(at_ns >= START_NS for at_ns in sent) == 6


async def test_what_is_under_way_at_the_end_is_waited_for_and_counted():
    server = Server(lambda number: (1_900, HTTP_OK))
    done = await kit.run(World(server), closed(kit.http_target(), warm_up_ns=0))
    last = done.intervals[-1].note
    assert server.requests[-1][0] < END_NS < server.replies[-1]
    assert total(done).ok == len(server.requests) == 11
    assert last.start_ns == END_NS
    assert last.outcomes["echo-0"].ok == 1


async def test_lag_and_wait_are_not_made_up():
    done = await kit.run(World(Server(lambda number: (500, HTTP_OK))), closed(kit.http_target()))
    metrics = {metric for interval in done.intervals for _, metric in interval.histograms}
    assert metrics == {Metric.RESPONSE, Metric.SERVICE}


async def test_the_null_echo_keeps_its_schedule_beside_a_closed_loop():
    prepare = closed(kit.http_target(), null_rate_per_s=1e6)
    done = await kit.run(World(Server(lambda number: (500, HTTP_OK))), prepare, null=True)
    assert total(done, NULL_TARGET).ok == done.engine.planned[NULL_TARGET] == 20
    assert done.histogram(NULL_TARGET, Metric.LAG).total == 20
    assert total(done).ok == 40


async def test_a_pipeline_goes_out_at_once_and_every_request_keeps_its_instants():
    server = Server(lambda number: (800, RESP_OK * 4))
    target = kit.redis_target(pipeline=4, keys=3)
    done = await kit.run(World(server), closed(target, warm_up_ns=0))
    assert all(data.count(b"*") == 4 for _, data in server.requests)
    assert total(done, "redis-0").ok == 4 * 25
    assert done.histogram("redis-0", Metric.SERVICE) == kit.histogram([800] * 100)
    assert done.seal.health.max_in_flight == 4


async def test_replies_that_come_apart_make_room_one_by_one():
    """Three of four answered, then one: as many leave at once. The rest is never answered: the oldest three time out."""
    server = Server(lambda number: (NEVER, b""))
    world = World(server)
    world.at(START_NS + 300, lambda: server.links[0].connection.data_received(RESP_OK * 3))
    world.at(START_NS + 500, lambda: server.links[0].connection.data_received(RESP_OK))
    prepare = closed(kit.redis_target(pipeline=4), warm_up_ns=0, window_ns=1_000, interval_ns=1_000)
    done = await kit.run(world, prepare)
    sent = [(at_ns - START_NS, data.count(b"*")) for at_ns, data in server.requests]
    assert sent == [(0, 4), (300, 3), (500, 1)]
    assert done.histogram("redis-0", Metric.SERVICE) == kit.histogram([300, 300, 300, 500])
    assert total(done, "redis-0").timeout == 3
    assert total(done, "redis-0").errors == {"aborted": 1}


async def test_a_time_out_ends_its_connection_and_another_goes_on():
    server = Server(lambda number: (NEVER if number == 3 else 500, HTTP_OK))
    done = await kit.run(World(server), closed(kit.http_target(), warm_up_ns=0))
    assert total(done).timeout == 1
    assert done.histogram("echo-0", Metric.RESPONSE).quantiles_ns((1,))[0] >= 2_000
    assert done.seal.health.reconnects == 1
    stuck_ns = server.requests[3][0]
    assert server.requests[4][0] == stuck_ns + 2_000  # timed out to the nanosecond, and made anew at once
    assert total(done).ok + 1 == total(done).planned == len(server.requests)


async def test_a_connection_that_the_server_closes_costs_what_was_on_it():
    server = Server(lambda number: (500, CLOSE if number % 10 == 9 else HTTP_OK))
    done = await kit.run(World(server), closed(kit.http_target(connections=2)))
    assert total(done).errors["reset"] == done.seal.health.reconnects > 2
    assert done.histogram("echo-0", Metric.ERROR).total == total(done).error


async def test_a_reply_that_ends_with_its_connection_is_whole():
    world = World(server := Server())

    def script(number):
        if number != 3:
            return 500, HTTP_OK
        world.at(world.clock.monotonic_ns() + 600, lambda: server.links[0].drop())
        return 500, b"HTTP/1.1 200 OK\r\n\r\nas long as it is"

    server.script = script
    done = await kit.run(world, closed(kit.http_target(), warm_up_ns=0))
    assert total(done).error == 0
    assert done.seal.health.reconnects == 1
    assert done.histogram("echo-0", Metric.SERVICE).max_ns == 600
    assert total(done).ok == len(server.requests)


async def test_a_connection_a_request_leaves_nothing_of_itself_behind():
    server = Server(
        lambda number: (500, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    )
    done = await kit.run(World(server), closed(kit.http_target(connections=3), window_ns=100_000))
    assert total(done).ok == len(server.links) - 6 == 600  # three in the warm-up's two turns
    assert len(done.engine._pools[0]._free) == 0


async def test_a_server_that_is_gone_is_tried_again_with_pauses_and_every_attempt_counts():
    server = Server(lambda number: (500, CLOSE if number == 5 else HTTP_OK))
    server.accepts = lambda attempt: attempt == 0
    prepare = closed(kit.http_target(), window_ns=100 * MS, interval_ns=100 * MS, timeout_ns=MS)
    done = await kit.run(World(server), prepare)
    assert total(done).errors["reset"] == 1
    # at once, then after 10, 20, 40 ms: the next would be due after the window's end
    assert total(done).errors["connect"] == 4
    assert total(done).planned == total(done).sent == total(done).ok + total(done).error


async def test_error_replies_are_errors_and_the_loop_goes_on():
    server = Server(lambda number: (500, b"-ERR no\r\n" if number % 4 == 3 else RESP_OK))
    done = await kit.run(World(server), closed(kit.redis_target(), warm_up_ns=0))
    assert total(done, "redis-0").ok == 30
    assert total(done, "redis-0").errors == {"reply": 10}


async def test_a_reply_that_nobody_asked_for_ends_the_connection():
    server = Server(lambda number: (500, HTTP_OK * (2 if number == 3 else 1)))
    done = await kit.run(World(server), closed(kit.http_target(), warm_up_ns=0))
    assert done.seal.health.reconnects == 1
    assert total(done).planned == total(done).ok + total(done).error


async def test_what_is_no_reply_is_malformed():
    server = Server(lambda number: (500, b"nonsense\r\n\r\n" if number == 3 else HTTP_OK))
    done = await kit.run(World(server), closed(kit.http_target(), warm_up_ns=0))
    assert total(done).errors == {"malformed": 1}


async def test_the_fastest_and_the_slowest_connection_are_found():
    server = Server()
    server.script = lambda number: (200 if server.users[-1] is server.links[0] else 800, HTTP_OK)
    prepare = closed(kit.http_target(connections=3), warm_up_ns=0, window_ns=100_000)
    done = await kit.run(World(server), prepare)
    found = done.seal.connections["echo-0"]
    assert found.slowest.mean_service_ns == 800
    assert found.fastest.mean_service_ns in (200, 800)
    assert found.slowest.requests == 125


async def test_whatever_a_connection_was_doing_nothing_leaves_once_the_window_is_over():
    """Of five connections that go at their own pace, each has its last reply at another instant after the end."""
    server = Server()
    server.script = lambda number: (700 + 37 * server.links.index(server.users[-1]), HTTP_OK)
    done = await kit.run(World(server), closed(kit.http_target(connections=5), interval_ns=2_000))
    assert max(at_ns for at_ns, _ in server.requests) < END_NS
    assert len({at_ns for at_ns in server.replies if at_ns >= END_NS}) == 5
    assert total(done).ok == sum(at_ns >= START_NS for at_ns, _ in server.requests)


async def test_connections_of_several_targets_are_kept_apart():
    servers = [Server(), Server()]
    slow = [(100, 300), (500, 900)]
    world = World(servers[0])
    world.servers[81] = servers[1]
    for server, took_ns in zip(servers, slow, strict=True):
        server.script = lambda number, s=server, t=took_ns: (t[s.links.index(s.users[-1])], HTTP_OK)
    targets = (kit.http_target(connections=2), kit.http_target(port=81, connections=2, name="echo-1"))
    done = await kit.run(world, closed(*targets, warm_up_ns=0, window_ns=100_000))
    found = {
        name: (extremes.fastest.mean_service_ns, extremes.slowest.mean_service_ns)
        for name, extremes in done.seal.connections.items()
    }
    assert found == {"echo-0": (100, 300), "echo-1": (500, 900)}


@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (4,), (3, 1), (5, 5, 5), (1, 2000, 3)])
def test_operations_come_in_the_order_in_which_they_were_drawn(counts):
    drawn = itertools.count()
    draws = Draws(lambda count: np.array([next(drawn) for _ in range(count)]))
    got = [op for count in counts for op in draws.next(count)]
    assert got == list(range(sum(counts)))
