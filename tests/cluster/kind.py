"""The kind cluster, for machines with a docker engine: `python -m cluster.kind image|up|load|down`.

It is another cluster than this package's own, with the same images. Its workers share one kernel, so each worker's
container is bound to CPUs of its own, as far as there are enough.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cluster.image_build import (
    CONTROLLER,
    ON_NODES,
    REPOSITORY,
    access_of_machine,
    docker_build,
    full_reference,
    lent,
)
from cluster.shell import SetupError
from kabench.backends.simulation import slot_cpus
from kabench.core.spec import Images
from kabench.errors import KabenchError

CLUSTER = "kabench"
CONFIG = REPOSITORY / "kind-config.yaml"
MODULE = REPOSITORY / "tests" / "kind"
"""The Go module that pins kind, for machines that have Go and no kind."""
READY = "180s"

Command = Sequence[str | Path]


class Shell:
    """Runs commands of this machine."""

    def ask(self, command: Command) -> str:
        """What `command` writes to its standard output; its standard error is the user's to read.

        Raises:
            SetupError: it failed.
        """
        words = [str(word) for word in command]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SetupError(
                f"{shlex.join(words)[:200]} ended with {done.returncode}; its own words are above"
            )
        return done.stdout

    def agrees(self, command: Command) -> bool:
        """Whether `command` ends with 0."""
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def require_docker(shell: Shell) -> int:
    """The number of CPUs of the docker engine's machine.

    Raises:
        SetupError: there is no docker, or no engine answers.
    """
    if shutil.which("docker") is None:
        raise SetupError(
            "docker is not installed, and kind's nodes are its containers; or use: make cluster-up"
        )
    try:
        return int(shell.ask(("docker", "info", "--format", "{{.NCPU}}")))
    except (SetupError, ValueError) as error:
        raise SetupError("no docker engine answers: start it; without one, use: make cluster-up") from error


def kind_command() -> Command:
    """The kind that is installed, or the one that our Go module pins.

    Raises:
        SetupError: there is neither kind nor Go.
    """
    if shutil.which("kind"):
        return ("kind",)
    if shutil.which("go"):
        return ("go", "-C", MODULE, "tool", "kind")
    raise SetupError("kind is not installed, nor Go to build it with: install one of them")


def image(shell: Shell) -> None:
    """Build the pods' images, and a controller's for runs from inside, in the docker engine, on the Dockerfiles' own base.

    Raises:
        SetupError: there is no engine, or a build failed.
    """
    require_docker(shell)
    for recipe in (*ON_NODES, CONTROLLER):
        with lent(access_of_machine()) as ways:
            shell.ask(docker_build(recipe, ways))
        print(f"built {recipe.reference}")


def up(shell: Shell) -> None:
    """Create the cluster, unless it is there, and bind its workers to CPUs.

    Raises:
        SetupError: a tool is missing, or failed.
    """
    count = require_docker(shell)
    kind = kind_command()
    if CLUSTER in shell.ask((*kind, "get", "clusters")).split():
        print(f"the kind cluster {CLUSTER} is there already")
    else:
        shell.ask((*kind, "create", "cluster", "--config", CONFIG, "--wait", READY))
    sets = cpu_sets(workers(shell, kind), count)
    # Only now: a kubelet that starts with fewer CPUs than the machine has does not come up. Pods inherit the smaller set.
    for name, cpus in sets.items():
        shell.ask(("docker", "update", "--cpuset-cpus", cpus, name))
    print("\n".join(how_far_apart(sets)))


def load(shell: Shell) -> None:
    """Side-load all images into the nodes, and check in each node that they are there.

    Raises:
        SetupError: an image is missing here, or is not in a node afterwards.
    """
    require_docker(shell)
    kind = kind_command()
    images = Images()
    for name in (images.agent, images.noise):
        if not shell.agrees(("docker", "image", "inspect", name)):
            raise SetupError(f"there is no image {name}: build it first, with: make image")
    if not shell.agrees(("docker", "image", "inspect", images.redis)):
        shell.ask(("docker", "pull", images.redis))
    names = [images.agent, images.noise, images.redis]
    shell.ask((*kind, "load", "docker-image", "--name", CLUSTER, *names))
    lacking = [
        f"{name} on {node}"
        for node in workers(shell, kind)
        for name in names
        if not shell.agrees(("docker", "exec", node, "crictl", "inspecti", "--quiet", full_reference(name)))
    ]
    if lacking:
        raise SetupError(f"kind loaded the images, and yet these are not there: {', '.join(lacking)}")
    print(f"{', '.join(names)} are on all workers")


def down(shell: Shell) -> None:
    """Delete the cluster; nothing happens where there is none.

    Raises:
        SetupError: a tool is missing, or failed.
    """
    require_docker(shell)
    shell.ask((*kind_command(), "delete", "cluster", "--name", CLUSTER))


def workers(shell: Shell, kind: Command) -> list[str]:
    """The workers' containers, in the order of their numbers: kabench-worker, kabench-worker2, …

    Raises:
        SetupError: the cluster is not there.
    """
    nodes = shell.ask((*kind, "get", "nodes", "--name", CLUSTER)).split()
    found = [name for name in nodes if re.fullmatch(rf"{CLUSTER}-worker\d*", name)]
    if not found:
        raise SetupError(f"there is no kind cluster {CLUSTER}: create it, with: make kind-up")
    return sorted(found, key=lambda name: (len(name), name))


def cpu_sets(names: Sequence[str], cpu_count: int) -> dict[str, str]:
    """The CPUs of each worker, as docker takes them: contiguous, and shared by neighbours where there are too few."""
    return {
        name: f"{min(cpus)}-{max(cpus)}" if len(cpus) > 1 else str(*cpus)
        for name, cpus in zip(names, slot_cpus(range(cpu_count), len(names)), strict=True)
    }


def how_far_apart(sets: Mapping[str, str]) -> list[str]:
    """Which worker has which CPUs, and what that is good for."""
    sharers: dict[str, list[str]] = {}
    for name, cpus in sets.items():
        sharers.setdefault(cpus, []).append(name)
    lines = [f"CPU {cpus}: {_joined(names)}" for cpus, names in sharers.items()]
    if len(sharers) == len(sets):
        return [*lines, "each worker has CPUs of its own"]
    if len(sharers) == 1:
        return [*lines, "one CPU for all workers: nothing can be separated here, and a run gives no headline"]
    return [
        *lines,
        f"{len(sharers)} CPUs for {len(sets)} workers: noise on one is felt by those that share its CPU",
    ]


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)


ACTIONS: Mapping[str, Callable[[Shell], None]] = {"image": image, "up": up, "load": load, "down": down}


def main(argv: Sequence[str]) -> int:
    """Do one action; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.kind", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    options = parser.parse_args(argv)
    try:
        ACTIONS[options.action](Shell())
    except KabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
