"""Servers that stand for the tests of `kabench load`, and ways to look at what it says."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import run_kit as kit
import trustme

from kabench.backends.local.servers import find_redis_server, free_port


def listens(port: int) -> bool:
    """Whether something takes connections at `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone afterwards."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@dataclass(frozen=True)
class Redis:
    """A real server on loopback."""

    port: int

    @property
    def url(self) -> str:
        """Where it stands."""
        return f"redis://127.0.0.1:{self.port}"

    def ask(self, *words: str) -> str:
        """One command's reply, a line for most."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
            link.sendall(f"*{len(words)}\r\n".encode())
            link.sendall(b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words))
            reply = b""
            while not reply.endswith(b"\r\n"):
                reply += link.recv(65536)
            if reply.startswith(b"$"):
                head, _, rest = reply.partition(b"\r\n")
                while len(rest) < int(head[1:]) + 2:
                    rest += link.recv(65536)
                reply = rest
        return reply.decode()

    def calls(self, command: str) -> int:
        """How often a command was executed since the last `CONFIG RESETSTAT`."""
        for line in self.ask("INFO", "commandstats").splitlines():
            name, _, facts = line.partition(":calls=")
            if name == f"cmdstat_{command}":
                return int(facts.partition(",")[0])
        return 0


@contextlib.contextmanager
def redis(folder: Path, *options: str) -> Iterator[Redis]:
    """A Redis server, with `options` on its command line."""
    port = free_port()
    with running([*find_redis_server().command(port, folder), *options]):
        kit.until(lambda: listens(port), "the Redis server")
        yield Redis(port)


@contextlib.contextmanager
def http(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The HTTP echo, on a free port unless one is given."""
    command = [
        sys.executable,
        "-m",
        "kabench_targets",
        "http-echo",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with running(command) as process:
        assert process.stdout is not None
        yield process, int(json.loads(process.stdout.readline())["port"])


class _Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def https(folder: Path) -> Iterator[tuple[int, Path]]:
    """An HTTPS server of `localhost`: its port, and the authority that vouches for it, a file in `folder`."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusted = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hello)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield server.server_address[1], trusted
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
