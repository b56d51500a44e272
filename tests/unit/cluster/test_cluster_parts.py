"""The pure pieces of the harness: versions, mirrors, mounts, archives, nodes."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cluster import api, build, images, network, pki, sandbox, teardown
from cluster.shell import SetupError


def test_the_version_is_the_one_that_is_required() -> None:
    go_mod = "require (\n\tk8s.io/api v0.36.3\n\tk8s.io/kubernetes v1.36.3 // indirect\n)\n"
    assert build.version(go_mod) == "1.36.3"
    assert any("gitVersion=v1.36.3" in flag and "gitMinor=36" in flag for flag in build.flags(go_mod))
    with pytest.raises(SetupError, match="requires no version"):
        build.version("require k8s.io/api v0.36.3\n")


def test_every_part_of_kubernetes_is_pinned_to_its_version() -> None:
    go_mod = (Path(build.__file__).parent / "go.mod").read_text()
    minor = build.version(go_mod).removeprefix("1.")
    parts = [line.split() for line in go_mod.splitlines() if " => " in line]
    assert len(parts) > 20
    assert {(new, version) for _, _, new, version in parts} == {(old, f"v0.{minor}") for old, *_ in parts}


def test_the_mirror_is_the_main_archive_of_the_release() -> None:
    lines = "http://a/security bookworm-security main\nhttp://a/debian bookworm contrib\nhttp://b/debian bookworm main\n"
    assert images.parse_mirror(lines, "bookworm") == "http://b/debian"
    assert images.parse_mirror(lines, "trixie") is None


def test_mounts_are_undone_from_the_deepest() -> None:
    lines = [
        f"1 2 0:1 / {path} rw - tmpfs tmpfs rw"
        for path in ("/", "/run", "/run/x", "/run/x/a\\040b/c", "/run/xy")
    ]
    assert teardown.mounts_below("\n".join(lines), Path("/run/x")) == ["/run/x/a b/c", "/run/x"]


def test_the_archive_names_its_layer_by_content() -> None:
    archive = sandbox.docker_archive("localhost/p:1", b"program", "pause", "arm64")
    assert archive == sandbox.docker_archive("localhost/p:1", b"program", "pause", "arm64")
    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:
        files = {entry.name: outer.extractfile(entry) for entry in outer}
        manifest, config, layer = (
            found.read() for name in ("manifest.json", "config.json", "layer.tar") if (found := files[name])
        )
    assert json.loads(manifest)[0]["RepoTags"] == ["localhost/p:1"]
    told = json.loads(config)
    assert told["architecture"] == "arm64"
    assert told["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        assert [(entry.name, entry.mode) for entry in inner] == [("pause", 0o755)]


def _node(name: str, status: str, taints: list[dict[str, str]]) -> dict[str, Any]:
    conditions = [{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": status}]
    spec = {"taints": taints} if taints else {}
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}


def test_a_node_counts_once_it_is_ready_and_a_scheduler_may_use_it() -> None:
    tainted = [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    nodes = [_node("a", "True", []), _node("b", "True", tainted), _node("c", "Unknown", [])]
    assert api.ready_nodes({"items": nodes}) == {"a"}
    assert api.ready_nodes(None) == set()


def test_a_certificate_names_addresses_and_hosts_apart() -> None:
    assert "subjectAltName = IP:10.0.0.1,DNS:localhost\n" in pki.configuration(("10.0.0.1", "localhost"))
    assert "subjectAltName" not in pki.configuration(())


def test_a_worker_reaches_all_pods_but_its_own_through_another() -> None:
    commands = network.namespace_commands("10.201.0.11", "10.201.101.0/24")
    assert "route add 10.201.102.0/24 via 10.201.0.12" in commands
    assert not any("10.201.101.0/24" in command for command in commands)
