"""How a machine's pip reaches its index, in a form that a build can be lent. Pure, but for the file that is written."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

INDEX_SETTINGS = frozenset(
    {
        "default-timeout",
        "extra-index-url",
        "find-links",
        "index-url",
        "no-index",
        "proxy",
        "retries",
        "timeout",
        "trusted-host",
    }
)
"""The settings that say where packages come from; the others are the user's taste."""

CERTIFICATES = "/run/secrets/ca"
"""Where a build finds the secret `ca`."""


@dataclass(frozen=True)
class Access:
    """What a build is lent: `secrets` by id, and `folders` of packages that it sees under the paths they have here."""

    secrets: Mapping[str, Path] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()


def access(listed: Iterable[str], environment: Mapping[str, str]) -> Callable[[Path], Access]:
    """From the lines of `pip config list` and the environment; the result writes a pip.conf into a folder."""
    settings = _settings(listed)
    certificates = _certificates(settings, environment)
    folders = _folders(settings.get("find-links", ""))
    lines = [f"{name} = {value}" for name, value in sorted(_portable(settings, folders).items())]
    if certificates:
        lines.append(f"cert = {CERTIFICATES}")

    def write(folder: Path) -> Access:
        conf = folder / "pip.conf"
        conf.touch(mode=0o600)
        conf.write_text("\n".join(["[global]", *lines, ""]))
        secrets = {"pip": conf} | ({"ca": certificates} if certificates else {})
        return Access(secrets, folders)

    return write


def _settings(listed: Iterable[str]) -> dict[str, str]:
    """What holds for `pip install`: a file's general section gives way to its section for it, and that to variables."""
    by_section: dict[str, dict[str, str]] = {section: {} for section in ("global", "install", ":env:")}
    for line in listed:
        name, equals, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if equals and section in by_section:
            by_section[section][option] = str(ast.literal_eval(value))
    return {option: value for section in by_section.values() for option, value in section.items()}


def _certificates(settings: Mapping[str, str], environment: Mapping[str, str]) -> Path | None:
    for path in (settings.get("cert", ""), environment.get("SSL_CERT_FILE", "")):
        if path and Path(path).is_file():
            return Path(path)
    return None


def _folders(find_links: str) -> tuple[Path, ...]:
    """The folders among `find_links` that have anything in them."""
    found = (Path(link.removeprefix("file://")) for link in find_links.split())
    return tuple(path.resolve() for path in found if path.is_dir() and any(path.iterdir()))


def _portable(settings: Mapping[str, str], folders: Iterable[Path]) -> dict[str, str]:
    """The settings that hold inside a build too."""
    kept = {name: " ".join(value.split()) for name, value in settings.items() if name in INDEX_SETTINGS}
    remote = [link for link in kept.pop("find-links", "").split() if link.startswith(("http://", "https://"))]
    if links := [*remote, *map(str, folders)]:
        kept["find-links"] = " ".join(links)
    return kept
