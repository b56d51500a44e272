"""Where a scenario comes from: a file, or one of the built-in ones."""

from __future__ import annotations

import re
from pathlib import Path

from kabench.core.scenario import load_scenario
from kabench.core.spec import Scenario
from kabench.errors import SpecError
from kabench.scenarios import built_in

_UNIT_S = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smh])+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([smh])")


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


def seconds(text: str) -> float:
    """`30m`, `90s` or `1h30m` in seconds.

    Raises:
        SpecError: it is none of these.
    """
    total = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
    if not _DURATION.fullmatch(text) or total <= 0:
        raise SpecError(f"--duration {text}: give a time such as 90s, 30m or 1h30m")
    return total
