"""Brings the cluster up."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster import (
    api,
    build,
    cgroups,
    control_plane,
    images,
    layout,
    network,
    pki,
    seed,
    state,
    teardown,
    tools,
    workers,
)

CONTROL = 1 / 8
"""The CPU time of the cluster's own programs, in multiples of what a worker's pods get where they compete. Six kubelets and
containerds and a control plane are elsewhere in a real cluster; here they took a quiet node's CPU up to 50 ms at once."""


@contextmanager
def locked() -> Iterator[None]:
    """Hold off another harness on this machine."""
    with layout.LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def healthy(known: state.State) -> bool:
    """Whether the cluster is up: all its processes run, and all workers are Ready."""
    if not known.processes or not all(map(state.alive, known.processes.values())):
        return False
    return api.nodes_ready() >= {worker.name for worker in layout.workers()}


def _claim(archives: Sequence[Path]) -> state.State:
    """Write down what the machine is like, before anything of it is changed."""
    for folder in (layout.RUN, layout.FOLDER, layout.LOGS, layout.CONFIG):
        folder.mkdir(parents=True, mode=0o755)
    layout.OWNER.write_text(str(layout.FOLDER))
    places = [*workers.PRIVATE, layout.NAMESPACES]
    wanted = [folder for place in places for folder in (place, *place.parents) if not folder.exists()]
    known = state.State(
        sysctls={name: (Path("/proc/sys") / name).read_text().strip() for name in workers.SYSCTLS},
        made_folders=sorted({str(folder) for folder in wanted}),
        archives=images.names(archives),
    )
    state.save(layout.STATE, known)
    state.save(layout.BEFORE, known)
    for place in workers.PRIVATE:  # mount points: what is mounted on them is seen by the workers only
        place.mkdir(parents=True, exist_ok=True)
    return known


def _start(known: state.State, planted: Path) -> None:
    """Start all processes, and write each group down as soon as it is there."""
    found = cgroups.hierarchies()
    cgroups.make(found, "system")
    for worker in layout.workers():
        cgroups.make(found, worker.name)
    cgroups.weigh(found, "system", CONTROL)

    def note(processes: dict[str, state.Process]) -> None:
        known.processes.update(processes)
        state.save(layout.STATE, known)

    note(control_plane.start_store())
    runtimes = {worker: workers.start_containerd(worker, planted) for worker in layout.workers()}
    note({f"containerd-{worker.number}": process for worker, process in runtimes.items()})
    for worker, process in runtimes.items():
        workers.await_containerd(worker, process)
    control_plane.await_api(known.processes["kube-apiserver"])
    kubelets = {
        f"kubelet-{worker.number}": workers.start_kubelet(worker, runtimes[worker]) for worker in runtimes
    }
    note(kubelets)
    note(control_plane.start_rest())
    pki.write_kubeconfig(layout.KUBECONFIG, pki.ADMIN)
    workers.await_ready(kubelets)


def bind() -> str:
    """Bind the workers to their CPUs, and tell how far they are apart."""
    found = cgroups.hierarchies()
    sets = layout.cpu_sets(sorted(os.sched_getaffinity(0)))
    for worker in layout.workers():
        cgroups.bind(found, worker, sets[worker.name])
    shares = sorted({cgroups.cpu_list(cpus) for cpus in sets.values()})
    if len(shares) == 1:
        return f"this machine has one CPU ({shares[0]}): no worker is apart from another"
    return "; ".join(f"{name} on CPU {cgroups.cpu_list(cpus)}" for name, cpus in sets.items())


def up() -> None:
    """Bring the cluster up; say so where it is up already, and take a half-dead one down first.

    Raises:
        SetupError: it cannot be made on this machine, or something does not start: then what is there is left to be
            looked at, until `down`.
    """
    tools.ensure()
    teardown.check_owner()
    with locked():
        build.ensure()
        archives = images.archives()
        known = state.load(layout.STATE)
        if known is not None and healthy(known):
            _renew_images(known, archives)
        else:
            _make(archives)
    print(f"the test cluster is up: KUBECONFIG={layout.KUBECONFIG}")


def _renew_images(known: state.State, archives: Sequence[Path]) -> None:
    """Import what has been built anew since the cluster was made."""
    changed = [path for path in archives if path.name not in known.archives]
    if changed:
        images.load(changed)
        known.archives = images.names(archives)
        state.save(layout.STATE, known)
        print(f"the workers have {len(changed)} images anew")


def _make(archives: Sequence[Path]) -> None:
    """Make the cluster, in place of what is left of one."""
    if teardown.anything():
        print("taking down what is left of a test cluster", flush=True)
        teardown.down()
    planted = seed.ensure(archives)
    begun = time.monotonic()
    known = _claim(archives)
    network.make()
    pki.make()
    _start(known, planted)
    print(f"six workers are Ready after {time.monotonic() - begun:.1f} s; {bind()}", flush=True)
