"""The sandbox container's image: one static program, packed without a builder."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

from cluster import build

REFERENCE = "localhost/kabench-pause:1"
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


def archive() -> Path:
    """The archive of the sandbox' image, beside the program it is made of."""
    path = build.folder() / "pause.tar"
    if not path.exists():
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        path.write_bytes(docker_archive(REFERENCE, build.binary("pause").read_bytes(), "pause", architecture))
    return path
