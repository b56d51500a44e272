"""The names of a key space's keys: the driver draws from what `prepare` filled. Each type has names of its own."""

from __future__ import annotations

from kabench.core.commands import ELEMENTS


def key_name(index: int) -> bytes:
    """The string of `index`."""
    return b"kabench:%d" % index


def counter_name(index: int) -> bytes:
    """The counter of `index`."""
    return b"kabench:counter:%d" % index


def list_name(index: int) -> bytes:
    """The list of `index`."""
    return b"kabench:list:%d" % index


def hash_name(index: int) -> bytes:
    """The hash of `index`."""
    return b"kabench:hash:%d" % index


FIELDS = tuple(b"field:%d" % number for number in range(ELEMENTS))
"""The fields of every hash."""
