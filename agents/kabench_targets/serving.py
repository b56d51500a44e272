"""What the two echo servers share: bind, say which port it became, serve until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import socket
from collections.abc import Callable
from typing import cast

import uvloop

BACKLOG = 1024


class FlowControl(asyncio.Protocol):
    """Stops reading while the peer does not take its replies, so that no buffer grows without bound."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class

    def pause_writing(self) -> None:
        """The peer is slow: read no more of its requests."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer took its replies."""
        self.transport.resume_reading()


def add_address_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--host` and `--port` to `parser`."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")


def serve(factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
    """Listen, print `{"port": N}` as one line, and serve until SIGTERM.

    The signal is handled because a container's first process gets none that it does not handle: it would live on until
    the grace period is over.

    Raises:
        OSError: the address cannot be bound.
    """

    async def until_told() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        server = await loop.create_server(factory, host, port, backlog=BACKLOG, family=socket.AF_INET)
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        gc.collect()
        gc.freeze()  # a full collection in the window would look like the target's own tail
        await stop.wait()
        server.close()

    uvloop.run(until_told())
