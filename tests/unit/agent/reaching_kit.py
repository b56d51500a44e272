"""Servers over TLS with certificates of an authority of our own."""

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime, timedelta

import trustme

from kabench.wire.messages import Tls

HTTP_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Authority:
    """Issues certificates, and writes its own to a file."""

    def __init__(self, folder):
        self.ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)

    def server(self, name="127.0.0.1", *, expired=False):
        """What a server needs to prove that it is `name`."""
        ends = datetime.now(UTC) - timedelta(days=1) if expired else None
        begins = datetime.now(UTC) - timedelta(days=2) if expired else None
        certificate = self.ca.issue_cert(name, not_before=begins, not_after=ends)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    def tls(self, **more):
        """How to check it."""
        return Tls(ca_file=self.file, **more)


@contextlib.asynccontextmanager
async def serving(talk, context=None):
    """A server whose connections `talk(reader, writer)` each; gives its port."""
    busy = set()

    async def one(reader, writer):
        busy.add(asyncio.current_task())
        try:
            # cancelled by us: streams would log it
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError
            ):
                await talk(reader, writer)
        finally:
            writer.close()
            busy.discard(asyncio.current_task())

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def http(reader, writer):
    """Answers every request."""
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HTTP_OK)


def to(port):
    """Passes everything on to a plain server on this machine."""

    async def pipe(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def talk(reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pipe(reader, far_writer))
                group.create_task(pipe(far_reader, writer))
        finally:
            far_writer.close()

    return talk
