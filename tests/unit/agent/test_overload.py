"""A rate that is beyond the agent: what it cannot send any more is given up many at a time, and all of it is counted."""

import engine_kit as kit
import numpy as np
import pytest
from engine_kit import HTTP_OK, START_NS, Server, World

from kabench.core.identity import NULL_TARGET, Metric
from kabench_agent import engine as engine_module


@pytest.fixture
def beyond(monkeypatch):
    """From the first turn on, the rate counts as beyond the agent."""
    monkeypatch.setattr(engine_module, "HOPELESS_TURNS", 0)


@pytest.mark.usefixtures("beyond")
async def test_what_is_a_time_out_late_is_given_up_and_the_rest_is_sent():
    world = World(Server(lambda number: (100, HTTP_OK)))
    prepare = kit.order(kit.http_target(connections=20), warm_up_ns=2_000, timeout_ns=5_000)
    awake_ns = START_NS + 7_500
    world.at(START_NS - 1_999, lambda: setattr(world, "stall_until_ns", awake_ns))
    done = await kit.run(world, prepare)
    due = np.array([at_ns for at_ns in kit.dues(prepare) if at_ns >= START_NS])
    hopeless = due < awake_ns - 5_000
    assert 0 < hopeless.sum() < len(due)
    total = done.seal.totals["echo-0"]
    assert total.reconciled
    assert (total.planned, total.skipped, total.ok) == (len(due), hopeless.sum(), (~hopeless).sum())
    late = np.maximum(0, awake_ns - due)
    assert done.histogram("echo-0", Metric.LAG) == kit.histogram(late)
    assert done.histogram("echo-0", Metric.RESPONSE) == kit.histogram(np.where(hopeless, late, late + 100))
    assert done.histogram("echo-0", Metric.SERVICE) == kit.histogram([100] * (~hopeless).sum())


@pytest.mark.usefixtures("beyond")
async def test_what_there_is_no_room_for_is_given_up_at_once_and_counted_as_if_one_by_one():
    target = kit.http_target(connections=2)
    prepare = kit.order(target, warm_up_ns=0, max_in_flight=3, timeout_ns=50_000, null_rate_per_s=5e5)
    server = Server(lambda number: (20_000, HTTP_OK))
    world = World(server)
    world.at(START_NS + 1, lambda: setattr(world, "stall_until_ns", START_NS + 9_000))
    done = await kit.run(world, prepare, null=True)
    total = done.seal.totals["echo-0"]
    assert total.reconciled
    assert (total.planned, total.sent, total.ok, total.skipped) == (20, 3, 3, 17)
    null = done.seal.totals[NULL_TARGET]
    assert null.reconciled
    assert null.ok > 0


async def test_a_turn_ends_though_more_is_due_and_the_next_goes_on(monkeypatch):
    monkeypatch.setattr(engine_module, "TURN_NS", 0)  # one request a turn
    world = World(Server(lambda number: (100, HTTP_OK)))
    prepare = kit.order(kit.http_target(connections=20), warm_up_ns=0)
    world.at(START_NS + 1, lambda: setattr(world, "stall_until_ns", START_NS + 4_500))
    done = await kit.run(world, prepare)
    assert done.seal.totals["echo-0"].ok == 20
    lag = [max(0, START_NS + 4_500 - at_ns) if at_ns > START_NS + 1 else 0 for at_ns in kit.dues(prepare)]
    assert done.histogram("echo-0", Metric.LAG) == kit.histogram(lag)
