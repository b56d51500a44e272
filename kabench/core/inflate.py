"""Base64 and zlib at the speed of libraries made for it: most of what reading a histogram costs is here.

isal inflates in two thirds of zlib's time, pybase64 decodes in a quarter of the standard library's. An agent's image has
neither: it only writes, and compresses with the standard library's zlib.
"""

from __future__ import annotations

import binascii
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kabench.errors import LogError

FAST = find_spec("isal") is not None and find_spec("pybase64") is not None
"""Whether the libraries are there; the results are the same without."""

if TYPE_CHECKING or not FAST:
    import zlib
    from base64 import b64decode
else:
    import isal.isal_zlib as zlib
    from pybase64 import b64decode


def from_base64(text: str | bytes) -> bytes:
    """Undo base64.

    Raises:
        LogError: it is not base64.
    """
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LogError(f"a histogram is not base64: {error}") from error


def inflated(packed: bytes, most_bytes: int) -> bytes:
    """What a zlib stream holds; no more than `most_bytes` of it are ever made.

    Raises:
        LogError: it is corrupt, cut, goes on after its end, or holds more.
    """
    inflater = zlib.decompressobj()
    try:
        inner = inflater.decompress(packed, most_bytes)
    except zlib.error as error:
        raise LogError(f"a histogram does not decompress: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise LogError("a histogram does not decompress to one of this geometry's size")
    return inner
