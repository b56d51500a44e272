"""Breaks the cluster on purpose, for tests. Each function returns when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster import api, control_plane, layout, state
from cluster.shell import SetupError, run, wait_until


def worker(name: str) -> layout.Worker:
    """The worker called `name`.

    Raises:
        SetupError: there is none.
    """
    for one in layout.workers():
        if one.name == name:
            return one
    raise SetupError(f"the test cluster has no worker {name!r}")


def cut(name: str) -> None:
    """Cut a worker off the network: its pods run on and are reached by nobody. It is NotReady after a grace period.

    Raises:
        SetupError: there is no such worker, or no cluster.
    """
    run("ip", "link", "set", worker(name).link, "down")


def heal(name: str) -> None:
    """Connect a worker again; it does no harm where it was not cut off.

    Raises:
        SetupError: there is no such worker, or no cluster.
    """
    run("ip", "link", "set", worker(name).link, "up")


@contextmanager
def cut_off(name: str) -> Iterator[None]:
    """A worker is cut off for as long as the block lasts.

    Raises:
        SetupError: there is no such worker, or no cluster.
    """
    cut(name)
    try:
        yield
    finally:
        heal(name)


def await_node(name: str, *, ready: bool, timeout_s: float = 60) -> None:
    """Wait until the API server calls a worker Ready and free of taints, or not.

    Raises:
        SetupError: it does not within `timeout_s`.
    """
    wanted = "Ready" if ready else "lost"
    wait_until(
        lambda: (name in api.nodes_ready()) == ready,
        f"{name} is not {wanted} after {timeout_s:.0f} s",
        timeout_s=timeout_s,
        every_s=0.2,
    )


def kill_api_server() -> None:
    """Kill the API server, with no time to say goodbye. Pods run on.

    Raises:
        SetupError: it is not up.
    """
    process = _state().processes["kube-apiserver"]
    if not state.alive(process):
        raise SetupError("the API server is not running, so it cannot be killed")
    if not state.kill(process, wait_s=10):
        raise SetupError("the API server does not end")


def start_api_server() -> None:
    """Start the API server that was killed, and wait until it is ready.

    Raises:
        SetupError: it runs, or does not get ready.
    """
    known = _state()
    if state.alive(known.processes["kube-apiserver"]):
        raise SetupError("the API server runs already")
    started = control_plane.start_one("kube-apiserver", control_plane.api_server())
    known.processes["kube-apiserver"] = started
    state.save(layout.STATE, known)
    control_plane.await_api(started)


def restart_api_server() -> None:
    """Kill the API server and start it again.

    Raises:
        SetupError: it is not up, or does not get ready.
    """
    kill_api_server()
    start_api_server()


def _state() -> state.State:
    known = state.load(layout.STATE)
    if known is None or "kube-apiserver" not in known.processes:
        raise SetupError("the test cluster is not up: make cluster-up")
    return known
