"""Kubernetes' own binaries, compiled from the Go module beside this file and kept by a hash of what made them."""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
from pathlib import Path

from cluster import layout
from cluster.shell import SetupError, run

COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
PACKAGES = (*(f"k8s.io/kubernetes/cmd/{name}" for name in COMPONENTS), "./pause")
NAMES = (*COMPONENTS, "pause")
TIMEOUT_S = 20 * 60


def version(go_mod: str) -> str:
    """The pinned version of Kubernetes, such as "1.36.3".

    Raises:
        SetupError: `go_mod` pins none.
    """
    found = re.search(r"^\s*(?:require )?k8s\.io/kubernetes v(\d+\.\d+\.\d+)\b", go_mod, re.MULTILINE)
    if found is None:
        raise SetupError("tests/cluster/go.mod requires no version of k8s.io/kubernetes")
    return found.group(1)


def flags(go_mod: str) -> tuple[str, ...]:
    """The flags of `go build`: small, reproducible, and with the version that the API server tells."""
    full = version(go_mod)
    major, minor, _ = full.split(".")
    told = {"gitVersion": f"v{full}", "gitMajor": major, "gitMinor": minor}
    sets = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in told.items())
    return ("-trimpath", "-buildvcs=false", f"-ldflags=-s -w {sets}")


@functools.cache
def folder() -> Path:
    """Where the binaries are, or will be."""
    go_mod = (layout.SOURCES / "go.mod").read_text()
    parts = [
        go_mod,
        (layout.SOURCES / "go.sum").read_text(),
        (layout.SOURCES / "pause" / "main.go").read_text(),
        *flags(go_mod),
        *PACKAGES,
    ]
    return layout.CACHE / "bin" / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def binary(name: str) -> Path:
    """The path of one of `NAMES`."""
    return folder() / name


def ensure() -> None:
    """Compile what is not there yet: six minutes and more the first time.

    Raises:
        SetupError: the compiler failed.
    """
    into = folder()
    if all(binary(name).exists() for name in NAMES):
        return
    print("compiling Kubernetes; the first time takes six minutes and more on two CPUs", flush=True)
    new = into.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    made = flags((layout.SOURCES / "go.mod").read_text())
    command = ("go", "build", *made, "-o", f"{new}/", *PACKAGES)
    run(*command, environment={"CGO_ENABLED": "0"}, folder=layout.SOURCES, timeout_s=TIMEOUT_S)
    shutil.rmtree(into, ignore_errors=True)
    new.replace(into)
