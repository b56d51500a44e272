"""Images without a registry: what the workers need beside the product's own, and how they get it."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import build, layout
from cluster.shell import run

PAUSE = "localhost/kabench-pause:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def docker_archive(reference: str, program: bytes, name: str, architecture: str) -> bytes:
    """An image of one static program, in the form of `docker save`."""
    layer = _tar({name: (program, 0o755)})
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [f"/{name}"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    return _tar(
        {
            "config.json": (json.dumps(config).encode(), 0o644),
            "layer.tar": (layer, 0o644),
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
        }
    )


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A tar of `files`: name to content and mode. The same input gives the same bytes."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return sink.getvalue()


def pause() -> Path:
    """The archive of the sandbox' image, beside the program it is made of."""
    path = build.folder() / "pause.tar"
    if not path.exists():
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        path.write_bytes(docker_archive(PAUSE, build.binary("pause").read_bytes(), "pause", architecture))
    return path


def ctr(worker: layout.Worker, *words: str | Path) -> str:
    """Ask the worker's containerd, in the namespace that its kubelet uses.

    Raises:
        SetupError: it failed.
    """
    return run("ctr", "--address", worker.socket, "--namespace", "k8s.io", *words)


def load(archives: Iterable[Path]) -> None:
    """Import image archives (docker's form or OCI) into all workers.

    Raises:
        SetupError: one cannot be imported.
    """
    paths = list(archives)

    def into(worker: layout.Worker) -> None:
        for path in paths:
            ctr(worker, "images", "import", path)

    with ThreadPoolExecutor(layout.WORKERS) as pool:
        list(pool.map(into, layout.workers()))


def tag(reference: str, other: str) -> None:
    """Give an image that the workers have another name.

    Raises:
        SetupError: they do not have it.
    """
    for worker in layout.workers():
        ctr(worker, "images", "tag", "--force", reference, other)
