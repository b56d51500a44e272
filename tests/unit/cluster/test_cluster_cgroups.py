"""Where the cgroups of a worker are, with version 1, version 2 and both mounted."""

from pathlib import Path

import pytest

from cluster import cgroups, layout
from cluster.shell import SetupError

V1 = """\
25 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:28 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
34 31 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
"""
V2 = "40 25 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
HYBRID = V1 + "35 31 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(layout, "CGROUPS", "ours-")
    return tmp_path


@pytest.mark.parametrize("mountinfo", [V1, HYBRID])
def test_version_1_has_a_folder_in_each_hierarchy(mountinfo: str) -> None:
    found = cgroups.parse_mounts(mountinfo)
    assert found is not None
    assert found.version == 1
    assert found.cpuset == Path("/sys/fs/cgroup/cpuset")
    assert found.folders("worker-1") == [
        Path("/sys/fs/cgroup/cpu,cpuacct/kabench-test-worker-1"),
        Path("/sys/fs/cgroup/cpuset/kabench-test-worker-1"),
        Path("/sys/fs/cgroup/systemd/kabench-test-worker-1"),
    ]


def test_version_2_has_one_folder() -> None:
    found = cgroups.parse_mounts(V2)
    assert found == cgroups.Hierarchies(2, (Path("/sys/fs/cgroup"),), Path("/sys/fs/cgroup"))
    assert found.folders("system") == [Path("/sys/fs/cgroup/kabench-test-system")]


def test_a_machine_without_cgroups_has_none() -> None:
    assert cgroups.parse_mounts(V1.splitlines()[0]) is None


def test_version_1_fills_a_new_cpuset_in_from_its_parent(tree: Path) -> None:
    (tree / "cpuset").mkdir()
    (tree / "cpuset" / "cpuset.cpus").write_text("0-1\n")
    (tree / "cpuset" / "cpuset.mems").write_text("0\n")
    (tree / "pids").mkdir()
    found = cgroups.Hierarchies(1, (tree / "pids", tree / "cpuset"), tree / "cpuset")
    made = cgroups.make(found, "worker-1")
    assert made == [tree / "pids/ours-worker-1", tree / "cpuset/ours-worker-1"]
    assert (tree / "cpuset/ours-worker-1/cpuset.cpus").read_text() == "0-1\n"
    assert (tree / "cpuset/ours-worker-1/cpuset.mems").read_text() == "0\n"
    assert not (tree / "pids/ours-worker-1/cpuset.cpus").exists()


def test_version_2_hands_down_the_controllers_that_there_are(tree: Path) -> None:
    (tree / "cgroup.controllers").write_text("cpuset cpu memory rdma\n")
    found = cgroups.Hierarchies(2, (tree,), tree)
    assert cgroups.make(found, "worker-1") == [tree / "ours-worker-1"]
    assert (tree / "cgroup.subtree_control").read_text().split() == ["+cpu", "+cpuset", "+memory"]


def _bound(top: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    order: list[str] = []
    real = Path.write_text

    def write(path: Path, text: str) -> int:
        order.append(str(path.parent.relative_to(top)))
        return real(path, text)

    (top / "ours-worker-2/kubepods/pod").mkdir(parents=True)
    monkeypatch.setattr(Path, "write_text", write)
    cgroups.bind(cgroups.Hierarchies(version, (top,), top), layout.Worker(2), {1, 0})
    return order


def test_version_1_binds_children_first(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = _bound(tree, 1, monkeypatch)
    assert order == ["ours-worker-2/kubepods/pod", "ours-worker-2/kubepods", "ours-worker-2"]
    assert (tree / "ours-worker-2/kubepods/cpuset.cpus").read_text() == "0,1"


def test_version_2_binds_the_top(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _bound(tree, 2, monkeypatch) == ["ours-worker-2"]


@pytest.mark.parametrize(("version", "file", "expected"), [(1, "cpu.shares", "128"), (2, "cpu.weight", "12")])
def test_a_weight_is_a_part_of_the_default(tree: Path, version: int, file: str, expected: str) -> None:
    for name in ("cpu", "pids"):
        (tree / name / "ours-system").mkdir(parents=True)
    (tree / "cpu" / "ours-system" / file).write_text("0")
    found = cgroups.Hierarchies(version, (tree / "pids", tree / "cpu"), tree / "cpu")
    cgroups.weigh(found, "system", 1 / 8)
    assert (tree / "cpu" / "ours-system" / file).read_text() == expected
    with pytest.raises(SetupError, match="no cgroup hierarchy has cpu"):
        cgroups.weigh(found, "worker-1", 1)
