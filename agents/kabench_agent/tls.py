"""TLS to a target, and why a connection could not be made, in a few words."""

from __future__ import annotations

import errno
import functools
import os
import socket
import ssl

from kabench.wire.messages import Tls

CERTIFICATE_REFUSED = "its certificate is refused"


@functools.lru_cache(maxsize=8)
def context(tls: Tls) -> ssl.SSLContext:
    """How to check who answers; made once, since reading the system's authorities takes 20 ms.

    Raises:
        ValueError: `ca_file` is not there, or holds no certificate.
    """
    try:
        made = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:  # an SSLError is one
        why = "no certificate in it" if isinstance(error, ssl.SSLError) else (error.strerror or str(error))
        raise ValueError(f"authorities to trust, {tls.ca_file}: {why}") from error
    if not tls.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def server_name(tls: Tls, host: str) -> str:
    """Whose certificate is asked for."""
    return tls.server_name or host


def reason(error: Exception) -> str:
    """Why there is no connection, without the address, which stands before it anyway."""
    for wrapped in ("os_error", "certificate_error"):  # by aiohttp
        error = getattr(error, wrapped, error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{CERTIFICATE_REFUSED}: {error.verify_message.removesuffix('.')}"
    if isinstance(error, ssl.SSLError):
        said = (error.reason or str(error)).lower().replace("_", " ")
        return f"it does not speak TLS as it should: {said}"
    if isinstance(error, socket.gaierror):
        return f"no such host: {error.strerror}"
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE):
        return "no file descriptor is left for another connection"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if (
        number == errno.ECONNREFUSED or str(error).count(f"[Errno {errno.ECONNREFUSED}]") > 1
    ):  # of several addresses
        return "connection refused"
    if number == errno.ECONNRESET or isinstance(error, ConnectionResetError):
        return str(error) if error.args and number is None else "it closed the connection"
    if number is not None and number > 0:
        return os.strerror(number).lower()
    return str(error) or type(error).__name__
