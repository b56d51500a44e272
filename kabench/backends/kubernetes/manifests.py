"""The manifests, read from where they are: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kabench.errors import ClusterError

FOLDER, SUFFIX = "manifests", ".yaml"

Object = dict[str, Any]
"""A Kubernetes object as plain data."""


def names() -> list[str]:
    """The names of all manifests."""
    entries = (entry.name for entry in _folder().iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in entries if name.endswith(SUFFIX))


def load(name: str) -> Object:
    """The one object of the manifest `name`, which the caller may change.

    Raises:
        ClusterError: there is no such manifest, it is not YAML, or it holds more than one object.
    """
    found = load_all(name)
    if len(found) != 1:
        raise ClusterError(f"{FOLDER}/{name}{SUFFIX}: {len(found)} objects where one is wanted")
    return found[0]


def load_all(name: str) -> list[Object]:
    """The objects of the manifest `name`, in its order; the caller may change them.

    Raises:
        ClusterError: there is no such manifest, or it is not YAML.
    """
    found: list[Object] = json.loads(_as_json(name))
    return found


@cache
def _as_json(name: str) -> str:
    """As text, so that no caller's change reaches another and nothing is shared through YAML's anchors."""
    try:
        text = _folder().joinpath(name + SUFFIX).read_text(encoding="utf-8")
    except OSError as error:
        raise ClusterError(
            f"{FOLDER}/{name}{SUFFIX}: cannot be read: {error.strerror}; install kabench again"
        ) from error
    try:
        return json.dumps([one for one in YAML(typ="safe", pure=True).load_all(text) if one is not None])
    except YAMLError as error:
        raise ClusterError(f"{FOLDER}/{name}{SUFFIX}: not YAML: {str(error).splitlines()[0]}") from error


def _folder() -> Traversable:
    package = files("kabench")
    inside = package.joinpath(FOLDER)
    if inside.is_dir():
        return inside
    return Path(str(package)).parent / FOLDER
