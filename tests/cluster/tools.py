"""The programs of the machine that the cluster needs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from cluster.shell import SetupError, run

# program -> Debian package
PROGRAMS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setsid": "util-linux",
    "mount": "mount",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PACKAGE = "containernetworking-plugins"


def cni_plugins() -> Path | None:
    """The folder of the CNI plugins `bridge`, `host-local` and `loopback`; None where there is none."""
    for folder in CNI_FOLDERS:
        if all((folder / name).exists() for name in ("bridge", "host-local", "loopback")):
            return folder
    return None


def missing() -> dict[str, str]:
    """What is not installed, with the Debian package that has it."""
    found = {name: package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if cni_plugins() is None:
        found["CNI plugins"] = CNI_PACKAGE
    return found


def ensure() -> None:
    """Make sure that all is there; on Debian install what is not.

    Raises:
        SetupError: not Linux, not root, no Go, or a program that could not be installed; all of them in one message.
    """
    if sys.platform != "linux":
        raise SetupError("the test cluster needs Linux")
    if os.geteuid() != 0:
        raise SetupError("the test cluster needs root: it makes network namespaces, mounts and cgroups")
    lacking = missing()
    if lacking and shutil.which("apt-get"):
        packages = sorted(set(lacking.values()))
        print(f"installing {' '.join(packages)}", flush=True)
        quiet = {
            "DEBIAN_FRONTEND": "noninteractive",
            "RUNLEVEL": "1",
        }  # starts none of the packages' services
        run("apt-get", "update", "-q", environment=quiet, timeout_s=300)
        run(
            "apt-get",
            "install",
            "-q",
            "-y",
            "--no-install-recommends",
            *packages,
            environment=quiet,
            timeout_s=600,
        )
        lacking = missing()
    if shutil.which("go") is None:
        lacking["go"] = "golang, 1.26 or newer"
    if lacking:
        names = ", ".join(f"{name} (package {package})" for name, package in lacking.items())
        raise SetupError(f"the test cluster needs programs that are not installed: {names}")
