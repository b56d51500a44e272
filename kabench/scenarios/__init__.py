"""The built-in scenarios: YAML files beside this module, shipped in the wheel."""

from __future__ import annotations

from importlib.resources import files

from kabench.errors import SpecError

DEFAULT = "seed"
"""What `kabench run` runs when nothing is named."""

_SUFFIX = ".yaml"


def names() -> list[str]:
    """The names of all built-in scenarios."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in entries if name.endswith(_SUFFIX))


def built_in(name: str) -> str:
    """The text of a built-in scenario.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in names():
        raise SpecError(
            f"scenario {name!r}: no such file, and no built-in scenario; those are: {', '.join(names())}"
        )
    return files(__name__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")
