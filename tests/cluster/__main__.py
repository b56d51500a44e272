"""The command line of the test cluster."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from cluster import api, build, images, layout, lifecycle, state, teardown
from kabench.errors import KabenchError


def _down() -> None:
    with lifecycle.locked():
        begun = time.monotonic()
        if not teardown.anything():
            print("no test cluster is on this machine")
            return
        teardown.down()
        print(f"the test cluster is gone, after {time.monotonic() - begun:.1f} s")


def _status() -> int:
    known = state.load(layout.STATE)
    if known is None or not known.processes:
        print("the test cluster is not up")
        return 1
    ready = api.nodes_ready()
    for name, process in known.processes.items():
        print(f"{name:24} {process.pid:8} {'runs' if state.alive(process) else 'ended'}")
    for worker in layout.workers():
        print(f"{worker.name:24} {worker.address:>12} {'Ready' if worker.name in ready else 'not Ready'}")
    return 0 if lifecycle.healthy(known) else 1


def main(arguments: list[str]) -> int:
    """Carry one command out, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster", description="A Kubernetes of six workers on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="bring it up; the context is kabench-test in .cluster/kubeconfig")
    commands.add_parser("down", help="take everything down, whatever state it is in")
    commands.add_parser("status", help="what runs of it")
    commands.add_parser("build", help="compile Kubernetes into the cache")
    load = commands.add_parser("load", help="import image archives into all workers")
    load.add_argument("archives", nargs="+", type=Path)
    load.add_argument(
        "--tag", nargs=2, action="append", default=[], metavar=("IMAGE", "NAME"), help="name an image anew"
    )
    chosen = parser.parse_args(arguments)
    try:
        match chosen.command:
            case "up":
                lifecycle.up()
            case "down":
                _down()
            case "status":
                return _status()
            case "build":
                build.ensure()
            case "load":
                images.load(chosen.archives)
                for reference, other in chosen.tag:
                    images.tag(reference, other)
    except KabenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
