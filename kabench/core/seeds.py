"""One seed for a run; every draw has its own, derived by name, so that none depends on the order of the others."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *labels: str | int) -> int:
    """A 63-bit seed for the draw that `labels` name, a pure function of its arguments."""
    text = "\x1f".join([str(seed), *(str(label) for label in labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
