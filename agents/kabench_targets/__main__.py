"""`python -m kabench_targets http-echo|null-echo|stress|canary|awake …`: one program a name.

Each is imported only when it is asked for: start-up time counts in every round.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

PROGRAMS = {
    "http-echo": "kabench_targets.http_echo",
    "null-echo": "kabench_targets.null_echo",
    "stress": "kabench_targets.stress",
    "canary": "kabench_targets.canary",
    "awake": "kabench_targets.awake",
}


def main(argv: Sequence[str]) -> int:
    """Run the program that the first argument names; 2 for one that does not exist."""
    if not argv or argv[0] not in PROGRAMS:
        print(f"usage: python -m kabench_targets {'|'.join(PROGRAMS)} [OPTIONS]", file=sys.stderr)
        return 2
    result = importlib.import_module(PROGRAMS[argv[0]]).main(list(argv[1:]))
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
