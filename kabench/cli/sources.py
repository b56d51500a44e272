"""Where a scenario comes from: a file, or one of the built-in ones."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import overload

from kabench.core.scenario import load_scenario
from kabench.core.spec import Scenario
from kabench.errors import SpecError
from kabench.scenarios import built_in

MOST_BODY_BYTES = 1 << 20

_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smh]))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smh])")


def read_source(source: str) -> tuple[str, str]:
    """A scenario's text and what to call it in messages.

    Raises:
        SpecError: it cannot be read, or is neither a file nor a built-in scenario.
    """
    if is_built_in(source):
        return built_in(source), f"{source}.yaml"
    return _read(Path(source)), source


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error


def is_built_in(source: str) -> bool:
    """Whether `source` is the name of a built-in scenario rather than a path."""
    path = Path(source)
    return not (path.suffix or path.exists() or "/" in source)


def load_source(source: str) -> Scenario:
    """The checked scenario; files that it names are looked for in its own folder.

    Raises:
        SpecError: it cannot be read, or is wrong.
    """
    if is_built_in(source):
        return load_scenario(*read_source(source))

    def beside(named: str) -> tuple[str, str]:
        path = Path(source).parent / named
        return _read(path), str(path)

    return load_scenario(*read_source(source), beside)


@overload
def seconds(text: str, flag: str = ..., *, zero: bool = ...) -> float: ...
@overload
def seconds(text: str | None, flag: str = ..., *, zero: bool = ...) -> float | None: ...
def seconds(text: str | None, flag: str = "--duration", *, zero: bool = False) -> float | None:
    """`500ms`, `90s`, `30m` or `1h30m` in seconds; None stays None.

    Args:
        text: the time.
        flag: what gave it, for messages.
        zero: whether no time at all will do.

    Raises:
        SpecError: it is none of these.
    """
    if text is None:
        return None
    total = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
    if (zero and text == "0") or (zero and _DURATION.fullmatch(text)):
        return total
    if not _DURATION.fullmatch(text) or total <= 0:
        raise SpecError(f"{flag} {text}: give a time such as 90s, 30m or 1h30m")
    return total


def read_body(given: str | None) -> tuple[str | None, str | None]:
    """What `--body TEXT` or `--body @FILE` sends: as text, or in base64 where it is none.

    Raises:
        SpecError: the file cannot be read, or is larger than a request's body may be.
    """
    if given is None or not given.startswith("@"):
        return given, None
    path = Path(given[1:])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpecError(f"--body @{path}: cannot be read: {error.strerror}") from error
    if len(content) > MOST_BODY_BYTES:
        raise SpecError(f"--body @{path}: {len(content)} bytes; {MOST_BODY_BYTES} at most")
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()
