"""The names of a key space's keys: the driver draws from what `prepare` filled."""

from __future__ import annotations


def key_name(index: int) -> bytes:
    """The key of `index`."""
    return b"kabench:%d" % index
