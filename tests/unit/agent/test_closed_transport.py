"""An attempt that is given up just as it succeeds: uvloop closes the transport, and never calls `connection_lost`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import uvloop

from kabench_agent.drivers import Connection
from kabench_agent.protocols.base import Verdict


class Reader:
    keep_alive = True

    def close(self) -> None:
        """Nothing is held."""


async def send_on_a_closed_transport() -> tuple[list[tuple[Verdict, list[int]]], list[int]]:
    ended: list[tuple[Verdict, list[int]]] = []
    sent_ns: list[int] = []
    pool: Any = SimpleNamespace(
        codec=SimpleNamespace(reader=Reader),
        flights=SimpleNamespace(send=lambda index, now_ns, number: sent_ns.append(now_ns)),
        opened=lambda connection: attempt.cancel(),
        lost=lambda connection, verdict, own: ended.append((verdict, list(connection.queue))),
    )
    attempt: asyncio.Future[Any]
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection(pool)
        attempt = asyncio.ensure_future(
            asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
        )
        await asyncio.wait({attempt})
        assert attempt.cancelled()
        connection.send(0, 7, b"PING\r\n")
        assert ended == []  # whoever sends is not interrupted
        async with asyncio.timeout(5):
            while not ended:  # noqa: ASYNC110 - the loop tells nobody that it has called
                await asyncio.sleep(0)
        await asyncio.sleep(0)
    return ended, sent_ns


def test_a_request_on_a_closed_transport_is_reset_once_and_breaks_nothing() -> None:
    ended, sent_ns = uvloop.run(send_on_a_closed_transport())
    assert ended == [(Verdict.RESET, [0])]
    assert sent_ns == [7]
