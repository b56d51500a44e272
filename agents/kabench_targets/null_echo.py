"""The null echo: sends back the bytes it gets. Its service time is the floor of the agent's instrument."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from kabench_targets.serving import FlowControl, add_address_arguments, serve


class NullEcho(FlowControl):
    """Bytes in, the same bytes out."""

    def data_received(self, data: bytes) -> None:
        """Send `data` back."""
        self.transport.write(data)


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="kabench_targets null-echo", description=__doc__)
    add_address_arguments(parser)
    arguments = parser.parse_args(argv)
    serve(NullEcho, arguments.host, arguments.port)
    return 0
