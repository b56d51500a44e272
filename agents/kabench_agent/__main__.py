"""`python -m kabench_agent --node NAME --listen HOST:PORT --spool DIR [--null HOST:PORT]`: one agent, until SIGTERM.

The run's token comes in the environment as KABENCH_TOKEN, where other users cannot read it. Once the agent listens it
prints `{"port": N, "pid": N}` as one line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from aiohttp import web

from kabench.clock import Clock, SystemClock
from kabench.wire.messages import Prepare
from kabench_agent.agent import Agent
from kabench_agent.engine import Engine
from kabench_agent.environment import boot_id, environment
from kabench_agent.pacing import choose_pacer
from kabench_agent.probe import Canary
from kabench_agent.service import make_app
from kabench_agent.spool import Spool
from kabench_agent.window import EngineFactory, Identity, Sink

TOKEN_VARIABLE = "KABENCH_TOKEN"
LEAVE_S = 1.0
"""How long open calls may take at the end."""

logger = logging.getLogger("kabench_agent")


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM; 2 where the arguments are wrong or the address cannot be bound."""
    options = _parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format=f"agent {options.node}: %(levelname)s %(message)s"
    )
    token = os.environ.pop(TOKEN_VARIABLE, "")
    if not token:
        print(
            f"agent {options.node}: {TOKEN_VARIABLE} is not set: the run's token is needed", file=sys.stderr
        )
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the controller decides
    host, port = options.listen
    try:
        listener = _bound(host, port)
    except OSError as error:
        print(f"agent {options.node}: cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
        return 2
    uvloop.run(_serve(options, token, listener))
    return 0


async def _serve(options: argparse.Namespace, token: str, listener: socket.socket) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clock = SystemClock()
    identity = Identity(options.node, secrets.token_hex(8), boot_id(), choose_pacer(clock).name)
    abilities = ("redis", "http", "probe", *(("null-echo",) if options.null else ()))
    spool = Spool(options.spool)
    if spool.problem:
        logger.error("%s", spool.problem)
    agent = Agent(identity, clock, spool, Canary(), _engine_factory(clock, options.null))
    runner = web.AppRunner(
        make_app(agent, token, environment(), abilities), access_log=None, shutdown_timeout=LEAVE_S
    )
    await runner.setup()
    try:
        async with agent:
            await web.SockSite(runner, listener).start()
            print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
            await stop.wait()
    finally:
        await runner.cleanup()


def _engine_factory(clock: Clock, null: tuple[str, int] | None) -> EngineFactory:
    def make(order: Prepare, sink: Sink) -> Engine:
        return Engine(order, clock=clock, pacer=choose_pacer(clock), null=null, sink=sink)

    return make


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError where the address is taken or not ours."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, with brackets around an IPv6 address."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kabench_agent", description="kabench's agent on one node."
    )
    parser.add_argument("--node", required=True, help="the node's name, as results will have it")
    parser.add_argument(
        "--listen", required=True, type=_address, metavar="HOST:PORT", help="port 0 takes a free one"
    )
    parser.add_argument("--spool", required=True, type=Path, metavar="DIR", help="where logs are kept")
    parser.add_argument("--null", type=_address, metavar="HOST:PORT", help="the null echo beside this agent")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
