"""YAML with line numbers: every value's place in its file, for messages. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from kabench.errors import SpecError

Path = tuple[int | str, ...]


@dataclass(frozen=True)
class Document:
    """A document: its file's name, its plain data, and the nodes, which know their lines."""

    name: str
    data: Any
    root: Node | None

    def line(self, path: Path) -> int:
        """The line (from 1) where `path` stands, or the nearest thing around it that does."""
        node = self.root
        line = 1 if node is None else node.start_mark.line + 1
        for part in path:
            if isinstance(node, MappingNode):
                found = [(key, value) for key, value in node.value if key.value == part]
            elif isinstance(node, SequenceNode) and isinstance(part, int):
                found = [(item, item) for item in node.value[part : part + 1]]
            else:
                break
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + 1
        return line

    def at(self, path: Path) -> str:
        """`FILE:LINE` of it."""
        return f"{self.name}:{self.line(path)}"


def read_documents(text: str, name: str, version: str | None = None) -> list[Document]:
    """All documents of a file, empty ones left out.

    Args:
        text: the YAML.
        name: its file, for messages.
        version: "1.1" reads as Kubernetes' tools do (`no` is false, `0644` octal); None is YAML 1.2.

    Raises:
        SpecError: it is not YAML.
    """
    try:
        data = list(_yaml(version).load_all(text))
        roots = list(_yaml(version).compose_all(text))
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(
            f"{name}:{line}: {str(error.problem).splitlines()[0]}; give each field once"
        ) from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{name}:{line}: not YAML: {error.problem}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{name}: not YAML: {str(error).splitlines()[0]}") from error
    pairs = itertools.zip_longest(data, roots)
    return [Document(name, found, root) for found, root in pairs if found is not None]


def dotted(path: Path) -> str:
    """`('phases', 0, 'pin')` → `phases[0].pin`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def short(found: Any) -> str:
    """What was found, for a message."""
    text = repr(found)
    return text if len(text) <= 40 else text[:39] + "…"


def _yaml(version: str | None) -> YAML:
    reader = YAML(typ="safe", pure=True)
    reader.version = version
    return reader
