"""A containerd's folder with all images in it, imported once and shared by the workers through hard links.

Blobs and the layers' files are never written again: containers write into layers of their own. The databases are, so
each worker has a copy of these.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster import images, layout
from cluster.shell import run, wait_until

FOLDER = layout.CACHE / "seed"
LOG = layout.CACHE / "seed.log"
IMPORT_S = 120


def ensure(archives: Sequence[Path]) -> Path:
    """The folder with `archives`, from the cache or made anew in place of an older one.

    Raises:
        SetupError: containerd failed.
    """
    version = run("containerd", "--version")
    digest = hashlib.sha256("\n".join([version, *images.names(archives)]).encode()).hexdigest()[:16]
    folder = FOLDER / digest
    if folder.exists():
        return folder
    print("importing the pods' images", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    new = FOLDER / "new"
    new.mkdir(parents=True)
    _fill(new, archives)
    new.replace(folder)
    return folder


def _fill(folder: Path, archives: Sequence[Path]) -> None:
    """Run a containerd of its own on `folder` for as long as the import takes."""
    place = layout.RUN.with_name("kabench-cluster-seed")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    socket = place / "containerd.sock"
    config = place / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}"\nstate = "{place}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
        f'[grpc]\n  address = "{socket}"\n'
    )
    command = ["unshare", "--mount", "--propagation", "private", "containerd", "--config", str(config)]
    with LOG.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(socket.exists, f"containerd does not start: see {LOG}", timeout_s=20)
        for archive in archives:
            run(
                "ctr",
                "--address",
                socket,
                "--namespace",
                "k8s.io",
                "images",
                "import",
                archive,
                timeout_s=IMPORT_S,
            )
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(place)


def plant(folder: Path, into: Path) -> None:
    """Give a worker what is in `folder`, as its containerd's root.

    Raises:
        SetupError: `cp` failed.
    """
    # a cache on another file system cannot be linked to: then it is copied
    links = ["--link"] if folder.stat().st_dev == into.stat().st_dev else []
    run("cp", "--archive", *links, f"{folder}/.", into)
    for path in into.glob("*/*.db"):
        copy = path.with_suffix(".copy")
        shutil.copyfile(path, copy)
        copy.replace(path)
