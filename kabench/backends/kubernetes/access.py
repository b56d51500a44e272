"""Which cluster is meant, and whether it may be used. Reads the kubeconfig; talks to no cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kabench.backends.kubernetes.naming import OUR_CONTEXTS
from kabench.errors import SpecError

Transport = Literal["proxy", "direct"]
"""How agents are reached: through the API server, or at their pods' IPs."""

IN_CLUSTER = "in-cluster"
"""What the context is called where a pod's own service account serves."""


@dataclass(frozen=True)
class Access:
    """The flags that name a cluster.

    Attributes:
        context: of the kubeconfig; None is its current one.
        kubeconfig: None is $KUBECONFIG (paths with colons between them), then ~/.kube/config, then the pod's own account.
        allow_context: the name of a context that is not ours, repeated.
        transport: how agents are reached.
        alongside: start although another run is active.
    """

    context: str | None = None
    kubeconfig: Path | None = None
    allow_context: str | None = None
    transport: Transport = "proxy"
    alongside: bool = False

    @property
    def files(self) -> str:
        """The kubeconfig files, as kubectl would find them."""
        if self.kubeconfig is not None:
            return str(self.kubeconfig)
        return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")

    def check(self) -> str:
        """The context's name, if it may be used.

        Raises:
            SpecError: there is no such context, or it is not ours and its name was not repeated.
        """
        name = self.context or current_context(self)
        if not name:
            raise SpecError(
                f"no context: {self.files} has no current one; give --context, or see kabench doctor"
            )
        known = _contexts(self)
        if name != IN_CLUSTER and name not in known:
            raise SpecError(
                f"--context {name}: not in {self.files}; it has {', '.join(sorted(known)) or 'none'}"
            )
        if name not in OUR_CONTEXTS and name != self.allow_context:
            raise SpecError(
                f"the context {name!r} is no cluster that kabench made, and a run puts noise on its nodes; "
                f"if that is meant: --allow-context {name}"
            )
        return name


def current_context(access: Access) -> str:
    """The name of the current context; "" where there is none.

    Raises:
        SpecError: a kubeconfig does not read.
    """
    for _, content in _configs(access):
        if content.get("current-context"):
            return str(content["current-context"])
    return IN_CLUSTER if os.environ.get("KUBERNETES_SERVICE_HOST") and not _configs(access) else ""


def _contexts(access: Access) -> set[str]:
    return {str(entry["name"]) for path, content in _configs(access) for entry in _entries(path, content)}


def _entries(path: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    entries = content.get("contexts") or []
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "name" in e for e in entries):
        raise SpecError(f"{path}: not a kubeconfig: its contexts are no list of names")
    return entries


def _configs(access: Access) -> list[tuple[Path, dict[str, Any]]]:
    """All files that exist, in the order in which they count."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    found = []
    for part in access.files.split(os.pathsep):
        path = Path(part).expanduser()
        if not part or not path.exists():
            continue
        try:
            content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, YAMLError) as error:
            raise SpecError(f"{path}: does not read as a kubeconfig: {str(error).splitlines()[0]}") from error
        if not isinstance(content, dict):
            raise SpecError(f"{path}: not a kubeconfig")
        found.append((path, content))
    if access.kubeconfig is not None and not found:
        raise SpecError(f"--kubeconfig {access.kubeconfig}: no such file")
    return found
