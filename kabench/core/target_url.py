"""Targets given as URLs: `redis://[user:password@]host[:port][/database]`, `rediss://`, `http://` and `https://`.

Pure. Whatever is wrong with a URL is told with what would be right, and never with its password.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from kabench.core.identity import NULL_TARGET, Kind
from kabench.errors import SpecError

FORMS = "redis://HOST[:PORT][/DB], rediss://…, http://HOST[:PORT][/PATH] or https://…"
LONGEST_NAME = 40
"""What a scenario allows for a target's name."""
MOST_DATABASES = 1_000_000


@dataclass(frozen=True)
class Scheme:
    """What a scheme says: the protocol, whether inside TLS, and the port where none is given."""

    kind: Kind
    tls: bool
    port: int


SCHEMES = {
    "redis": Scheme(Kind.REDIS, tls=False, port=6379),
    "rediss": Scheme(Kind.REDIS, tls=True, port=6379),
    "http": Scheme(Kind.HTTP, tls=False, port=80),
    "https": Scheme(Kind.HTTP, tls=True, port=443),
}

_PARTS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_PATH = re.compile(r"[!-~]*")


@dataclass(frozen=True)
class TargetUrl:
    """One server that stands already.

    Attributes:
        scheme: as it was given: redis, rediss, http or https.
        host: a name or an address, an IPv6 one without its brackets.
        path: with the query; "" for Redis.
        database: of Redis.
    """

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    path: str = ""

    @property
    def kind(self) -> Kind:
        """What it speaks."""
        return SCHEMES[self.scheme].kind

    @property
    def tls(self) -> bool:
        """Whether it is spoken to inside TLS."""
        return SCHEMES[self.scheme].tls

    @property
    def address(self) -> str:
        """`HOST:PORT`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """The URL as outputs may show it: without user and password."""
        path = (f"/{self.database}" if self.database else "") if self.kind is Kind.REDIS else self.path
        return f"{self.scheme}://{self.address}{path}"


def parse_url(text: str) -> TargetUrl:
    """Read a target's URL.

    Raises:
        SpecError: it is none; the message says what was wrong and what would be right, and hides the password.
    """
    shown = masked(text)
    if not (parts := _PARTS.fullmatch(text)):
        raise SpecError(f"{shown}: not a URL; give {FORMS}")
    name = parts["scheme"].lower()
    if name not in SCHEMES:
        raise SpecError(f"{shown}: the scheme {name!r} is not known; give {FORMS}")
    scheme, rest = SCHEMES[name], parts["rest"]
    login, at, place = parts["authority"].rpartition("@")
    if "@" not in parts["authority"] and scheme.kind is Kind.REDIS and "@" in rest:
        raise SpecError(f"{shown}: write / ? and # in a password as %2F, %3F and %23")
    host, port = _place(place, shown, scheme.port)
    if scheme.kind is Kind.REDIS:
        user, password = _login(login, shown) if at else (None, None)
        return TargetUrl(name, host, port, user, password, _database(rest, shown))
    if at:
        raise SpecError(f"{shown}: no user or password in an {name} URL; give --header 'Authorization: …'")
    return TargetUrl(name, host, port, path=_path(rest, shown))


def masked(text: str) -> str:
    """`text` without what may be a user and a password, fit for messages."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        rest = f"***@{authority.rpartition('@')[2]}{rest[len(authority) :]}"
    elif "@" in rest and scheme.lower() not in ("http", "https"):  # an unescaped / may be the password's own
        rest = f"***@{rest.rpartition('@')[2]}"
    return _printable(f"{scheme}{separator}{rest}")


def names_of(urls: Iterable[TargetUrl], taken: Collection[str] = (NULL_TARGET,)) -> list[str]:
    """A name for each URL, made of its scheme, host and port: DNS labels, all different, none of `taken`."""
    names: list[str] = []
    for url in urls:
        label = re.sub(r"[^a-z0-9]+", "-", f"{url.scheme}-{url.host}-{url.port}".lower())
        name, number = _fitting(label), 1
        while name in names or name in taken:
            number += 1
            name = _fitting(label, f"-{number}")
        names.append(name)
    return names


def _fitting(label: str, suffix: str = "") -> str:
    """Not too long: of a long host name the end goes, and the port stays."""
    room = LONGEST_NAME - len(suffix)
    if len(label) > room:
        head, _, port = label.rpartition("-")
        label = f"{head[: room - len(port) - 1].rstrip('-')}-{port}"
    return label + suffix


def _place(text: str, shown: str, default_port: int) -> tuple[str, int]:
    """Host and port of `host:port`."""
    if text.startswith("["):
        host, bracket, after = text[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise SpecError(f"{shown}: an IPv6 address stands in brackets, as in http://[::1]:8080/")
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise SpecError(f"{shown}: {host!r} is no IPv6 address, such as [::1]") from error
        return host, _port(after[1:], shown, default_port, given=bool(after))
    if text.count(":") > 1:
        raise SpecError(f"{shown}: an IPv6 address stands in brackets, as in http://[::1]:8080/")
    host, colon, port = text.partition(":")
    if not host:
        raise SpecError(f"{shown}: no host; give one, such as 127.0.0.1")
    if not _HOST_NAME.fullmatch(host):
        raise SpecError(f"{shown}: {_printable(host)!r} is no host; give a name or an address")
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise SpecError(f"{shown}: {host!r} is no IPv4 address, such as 127.0.0.1") from error
    return host, _port(port, shown, default_port, given=bool(colon))


def _port(text: str, shown: str, default: int, *, given: bool) -> int:
    if not given:
        return default
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise SpecError(f"{shown}: the port is {_printable(text)!r}; give a number from 1 to 65535")
    return int(text)


def _login(text: str, shown: str) -> tuple[str | None, str | None]:
    """User and password of `user:password` or `:password`; `redis://password@…` is refused, since tools differ on it."""
    user, colon, password = text.partition(":")
    if not colon or not password:
        raise SpecError(f"{shown}: before the @ give USER:PASSWORD, or :PASSWORD for the default user")
    return unquote(user) or None, unquote(password)


def _database(rest: str, shown: str) -> int:
    digits = rest.removeprefix("/")
    if not digits and rest in ("", "/"):
        return 0
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 8 and int(digits) < MOST_DATABASES):
        raise SpecError(
            f"{shown}: {_printable(rest)!r} is no database; give a number, as in redis://host:6379/2"
        )
    return int(digits)


def _path(rest: str, shown: str) -> str:
    if "#" in rest:
        raise SpecError(f"{shown}: a server never sees what stands after #; leave it out, or write %23")
    if not _PATH.fullmatch(rest):
        raise SpecError(f"{shown}: spaces and letters beyond ASCII must be percent-encoded, as in /a%20b")
    return rest if rest.startswith("/") else f"/{rest}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
