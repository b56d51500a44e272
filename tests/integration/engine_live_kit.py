"""What the live tests of the engine need: a server in a process of its own that keeps the times it really took."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import deque

import numpy as np

MS = 1_000_000


class Echo(asyncio.Protocol):
    """Answers each HTTP GET after a delay of its own, in order, and records what that was.

    A request on a connection is worked on at once; the log holds (received, sent) on the machine's monotonic clock, which
    client and server share.
    """

    def __init__(self, server):
        self.server = server
        self.rest = b""
        self.due = deque()

    def connection_made(self, transport):
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = sock.fileno()

    def data_received(self, data):
        now_ns = time.monotonic_ns()
        *whole, self.rest = (self.rest + data).split(b"\r\n\r\n")
        for _ in whole:
            self.server.arrived(self, now_ns)

    def answer(self, received_ns):
        if self.transport.is_closing():
            return
        # not by the transport, which writes when the loop has done all else: later than what is noted here
        os.write(self.fd, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.server.log.append((received_ns, time.monotonic_ns()))


class Server:
    """Delays from a seed, or one stall of the whole process."""

    def __init__(self, options):
        self.options = options
        self.log = []
        self.rng = np.random.default_rng(options["seed"])
        self.stall_at = options.get("stall_at")
        self.count = 0

    def arrived(self, connection, now_ns):
        self.count += 1
        if self.count == self.stall_at:
            time.sleep(self.options["stall_ns"] / 1e9)
        delay_ns = self.delay_ns()
        if delay_ns == 0:
            connection.answer(now_ns)
            return
        asyncio.get_running_loop().call_later(delay_ns / 1e9, connection.answer, now_ns)

    def delay_ns(self):
        """One of the distribution that was asked for: its name, and its numbers."""
        name, *numbers = self.options["delay"]
        if name == "fixed":
            return numbers[0]
        if name == "uniform":
            return float(self.rng.uniform(*numbers))
        if name == "lognormal":
            median_ns, sigma = numbers
            return median_ns * float(self.rng.lognormal(0, sigma))
        low_ns, high_ns, share = numbers  # bimodal
        return high_ns if self.rng.random() < share else low_ns


async def serve(options):
    server = Server(options)
    listener = await asyncio.get_running_loop().create_server(lambda: Echo(server), "127.0.0.1", 0)
    print(json.dumps({"port": listener.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the test closes it
    print(json.dumps(server.log), flush=True)
    os._exit(0)


class Recording:
    """The server as a child; after `stop`, `log` has (received, sent) of each request."""

    def __init__(self, **options):
        self.process = subprocess.Popen(
            [sys.executable, __file__, json.dumps({"seed": 1} | options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.port = json.loads(self.process.stdout.readline())["port"]
        self.log = None

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def stop(self):
        self.process.stdin.close()
        self.log = np.array(json.loads(self.process.stdout.readline()))
        self.process.wait(10)
        return self.log


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(json.loads(sys.argv[1])))
