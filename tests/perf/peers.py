"""Servers and the other tools: each turn in a process of its own on the client's core, with its CPU time."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import perf_kit

from kabench_agent.keys import key_name

HERE = Path(__file__).parent
CONNECTIONS = 50
KEYS = 1000
VALUE = b"x" * 64
LOCUST_WARM_S = 1.0
NGINX = """
daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }}
}}
"""


@dataclass(frozen=True)
class Turn:
    """What one turn of a tool found."""

    per_s: float
    cpu_us: float


class Missing(Exception):
    """A tool that is not on this machine."""


def tool(name, package):
    """The path of a tool; raises `Missing` with what would bring it."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        raise Missing(f"{name} (Debian: {package})")
    return found


def built(name):
    """The path of one of our C programs, built anew where its source is newer."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Missing(f"{name} (needs cc)")
    source, program = HERE / f"{name}.c", perf_kit.scratch() / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return str(program)


def locust():
    """Locust's Python, in an environment of its own that is made once."""
    folder = perf_kit.ROOT / ".cache" / "locust"
    python = folder / "bin" / "python"
    if not (folder / "bin" / "locust").exists():
        made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, check=False)
        pip = [python, "-m", "pip", "--quiet", "install", "locust"]
        if made.returncode or subprocess.run(pip, capture_output=True, check=False, timeout=300).returncode:
            raise Missing("locust (PyPI could not be reached)")
    return str(python)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def run(command, cpu, **options):
    """Run to the end, bound to a CPU; returns (standard output, CPU seconds)."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            ["taskset", "-c", str(cpu), *command], stdout=out, stderr=errors, **options
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        text = out.read().decode()
        if process.returncode:
            raise RuntimeError(
                f"{command[0]} ended with {process.returncode}: {errors.read().decode()[-2000:]}"
            )
    return text, usage.ru_utime + usage.ru_stime


@contextmanager
def serving(command, cpu, **options):
    """A server bound to a CPU; ended by SIGTERM."""
    process = subprocess.Popen(["taskset", "-c", str(cpu), *command], **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def wait_for(port):
    end = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)  # a server of somebody else's: there is nothing to await


@contextmanager
def redis():
    """The port of a Redis with the keys that all tools ask for."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        raise Missing("redis-server (Debian: redis-server)")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            folder,
        ]
        with serving([server, *options], perf_kit.cpus()[1], stdout=subprocess.DEVNULL):
            names = [key_name(key) for key in range(KEYS)] + [b"key:%012d" % key for key in range(KEYS)]
            with wait_for(port) as sock, sock.makefile("rb") as lines:
                sock.sendall(b"".join(b"SET %b %b\r\n" % (name, VALUE) for name in names))
                for _ in names:
                    lines.readline()
            yield port


@contextmanager
def nginx():
    """The port of an nginx of one process that answers with 64 bytes from memory."""
    server = tool("nginx", "nginx-light")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, port=port, body=VALUE.decode()))
        with serving(
            [server, "-p", folder, "-c", str(config)], perf_kit.cpus()[1], stderr=subprocess.DEVNULL
        ):
            wait_for(port).close()
            yield port


class Truth:
    """A running `truth_server`: its port and the instant of its start; after the end, what it really took."""

    def __init__(self, port, start_ns):
        self.port, self.start_ns = port, start_ns
        self.record = b""
        self.arrivals = 0


@contextmanager
def truth_server(delays=b"", every_ms=0, stop_ms=0, cpu=None):
    """See truth_server.c; `delays`: nanoseconds, 8 octets each."""
    program = built("truth_server")
    with tempfile.TemporaryDirectory() as folder:
        given, record = Path(folder) / "delays", Path(folder) / "record"
        given.write_bytes(delays)
        command = [program, str(given), str(record)] + ([str(every_ms), str(stop_ms)] if every_ms else [])
        process = subprocess.Popen(
            ["taskset", "-c", str(perf_kit.cpus()[1] if cpu is None else cpu), *command],
            stdout=subprocess.PIPE,
            text=True,
        )
        with process.stdout:
            port, start_ns = process.stdout.readline().split()
            truth = Truth(int(port), int(start_ns))
            try:
                yield truth
            finally:
                process.send_signal(signal.SIGTERM)
                truth.arrivals = int(process.stdout.read())
                process.wait(10)
                truth.record = record.read_bytes()


def ours(kind, port, seconds, cpu=None, **more):
    """What one turn of our engine found, as `ours.py` prints it."""
    order = {"kind": kind, "ports": port if isinstance(port, list) else [port], "seconds": seconds, **more}
    command = [sys.executable, str(HERE / "ours.py"), json.dumps(order)]
    text, _ = run(command, perf_kit.cpus()[0] if cpu is None else cpu)
    return json.loads(text)


def our_turn(kind, port, seconds, **more):
    found = ours(kind, port, seconds, **more)
    assert found["error"] == found["timeout"] == 0, found
    return Turn(found["per_s"], found["cpu_us"])


class RedisBenchmark:
    """It takes a number of requests rather than a time: that of its last turn's rate."""

    def __init__(self, pipeline):
        self.pipeline = pipeline
        self.expected_per_s = 100_000 if pipeline == 1 else 1_000_000

    def turn(self, port, seconds):
        asked = int(self.expected_per_s * seconds)
        command = [
            tool("redis-benchmark", "redis-tools"), "-p", str(port), "-c", str(CONNECTIONS), "-n", str(asked),
            "-P", str(self.pipeline),
            "-r", str(KEYS), "--csv", "-t", "get",
        ]  # fmt: skip
        text, cpu_s = run(command, perf_kit.cpus()[0])
        self.expected_per_s = float(text.splitlines()[-1].split(",")[1].strip('"'))
        return Turn(self.expected_per_s, cpu_s * 1e6 / asked)


def wrk(port, seconds):
    command = [tool("wrk", "wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://127.0.0.1:{port}/"]
    text, cpu_s = run(command, perf_kit.cpus()[0])
    (line,) = (line for line in text.splitlines() if " requests in " in line)
    count = int(line.split()[0])
    (rate,) = (line for line in text.splitlines() if line.startswith("Requests/sec:"))
    assert "Non-2xx" not in text
    return Turn(float(rate.split()[1]), cpu_s * 1e6 / count)


def hey(port, seconds):
    command = [
        tool("hey", "hey"), "-z", f"{seconds}s", "-c", str(CONNECTIONS), "-cpus", "1", f"http://127.0.0.1:{port}/",
    ]  # fmt: skip
    text, cpu_s = run(command, perf_kit.cpus()[0])
    (rate,) = (line for line in text.splitlines() if "Requests/sec:" in line)
    (count,) = (line for line in text.splitlines() if line.strip().startswith("[200]"))
    return Turn(float(rate.split()[1]), cpu_s * 1e6 / int(count.split()[1]))


def fast_http_user(port, seconds):
    command = [
        locust(), "-m", "locust", "-f", str(HERE / "locustfile.py"), "--headless", "--users", str(CONNECTIONS),
        "--spawn-rate", "1000", "--run-time", f"{round(seconds + LOCUST_WARM_S)}s", "--only-summary", "--loglevel", "ERROR",
        "--host", f"http://127.0.0.1:{port}",
    ]  # fmt: skip
    text, _ = run(command, perf_kit.cpus()[0])
    found = json.loads(text.splitlines()[-1] if text.startswith("{") else next(
        line for line in text.splitlines() if line.startswith('{"requests"')
    ))  # fmt: skip
    return Turn(found["requests"] / found["seconds"], found["cpu_s"] * 1e6 / found["requests"])


def bare_loop(kind, rate=0):
    """One turn of the bare loop in C; paced where there is a rate."""
    program = built("bare_loop")
    request = {
        "redis": b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key_name(7)), key_name(7)),
        "http": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    }[kind]

    def turn(port, seconds):
        with tempfile.NamedTemporaryFile() as file:
            file.write(request)
            file.flush()
            command = [program, str(port), str(CONNECTIONS), str(int(seconds * 1000)), file.name]
            command += [str(rate)] if rate else []
            text, cpu_s = run(command, perf_kit.cpus()[0])
        count, took_s = text.split()
        return Turn(int(count) / float(took_s), cpu_s * 1e6 / int(count))

    return turn
