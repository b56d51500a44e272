"""Locust's fastest HTTP user, in a closed loop without a pause. It counts from a second after the start on, when all run."""

import json
import resource
import time

import gevent
from locust import FastHttpUser, constant, events, task

WARM_S = 1.0
at_start = {}


class Asks(FastHttpUser):
    """GET / over and over."""

    wait_time = constant(0)

    @task
    def get(self):
        self.client.get("/")


def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@events.test_start.add_listener
def begin(environment, **_):
    def count():
        gevent.sleep(WARM_S)
        at_start.update(requests=environment.stats.total.num_requests, at_s=time.monotonic(), cpu_s=cpu_s())

    gevent.spawn(count)


@events.test_stopping.add_listener
def end(environment, **_):
    total = environment.stats.total
    assert not total.num_failures
    found = {
        "requests": total.num_requests - at_start["requests"],
        "seconds": time.monotonic() - at_start["at_s"],
        "cpu_s": cpu_s() - at_start["cpu_s"],
    }
    print(json.dumps(found), flush=True)
