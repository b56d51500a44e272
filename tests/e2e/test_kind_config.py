"""kind itself reads kind-config.yaml and plans its containers; a stand-in for docker writes down what it is asked.

No docker engine is needed, and none is touched: `docker` on kind's PATH is the stand-in. kind parses strictly, validates,
and starts every node's container, before it first needs one that really runs.
"""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "kind-config.yaml"
MODULE = REPOSITORY / "tests" / "kind"
BUILD_TIMEOUT_S = 600
TIMEOUT_S = 60

STAND_IN = """#!/bin/sh
printf '%s\\n' "$*" >> "$ASKED"
case "$*" in
  -v) echo 'Docker version 28.0.0' ;;
  'info --format {{json .}}') echo '{"CgroupVersion": "2", "CgroupDriver": "systemd", "CPUShares": true}' ;;
  'network ls'*) echo kind ;;
  logs*) echo 'Reached target Multi-User System.' ;;
  exec*) exit 1 ;;
esac
"""


@pytest.fixture(scope="module")
def kind():
    """The kind of the Go module."""
    if shutil.which("go") is None:
        pytest.fail("Go is not installed, and kind is built with it: install golang 1.24 or newer")
    found = subprocess.run(
        ["go", "-C", MODULE, "tool", "-n", "kind"],
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@pytest.fixture
def create(kind, tmp_path):
    """Runs `kind create cluster` on a file; returns what kind said and what docker was asked."""
    stand_in = tmp_path / "bin" / "docker"
    stand_in.parent.mkdir()
    stand_in.write_text(STAND_IN)
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    asked = tmp_path / "asked"
    asked.touch()

    def run(config):
        done = subprocess.run(
            [kind, "create", "cluster", "--config", config],
            env={
                "PATH": f"{stand_in.parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
                "HOME": str(tmp_path),
                "KUBECONFIG": str(tmp_path / "kubeconfig"),
                "ASKED": str(asked),
            },
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode != 0  # there is no node to set up
        return done.stderr, asked.read_text().splitlines()

    return run


def test_kind_starts_a_control_plane_and_six_workers_of_one_pinned_image(create):
    _, asked = create(CONFIG)
    started = [line.split() for line in asked if line.startswith("run ")]
    names = sorted(words[words.index("--name") + 1] for words in started)
    assert names == [
        "kabench-control-plane",
        "kabench-worker",
        *(f"kabench-worker{number}" for number in range(2, 7)),
    ]
    (image,) = {words[-1] for words in started}
    assert image == default_image()


def default_image():
    """The node image that this kind was released with, from its sources."""
    listed = subprocess.run(
        ["go", "-C", MODULE, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    source = Path(listed.stdout.strip()) / "pkg/apis/config/defaults/image.go"
    (line,) = [line for line in source.read_text().splitlines() if line.startswith("const Image = ")]
    return line.split('"')[1]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("- role: control-plane", "- lables: {}\n    role: control-plane", "field lables not found"),
        ("{role: worker, image: *node}", "{role: wroker, image: *node}", '"wroker" is not a valid node role'),
    ],
)
def test_kind_refuses_the_file_with_a_mistake_in_it(create, tmp_path, right, wrong, said):
    config = tmp_path / "kind-config.yaml"
    text = CONFIG.read_text()
    assert right in text
    config.write_text(text.replace(right, wrong, 1))
    complaint, asked = create(config)
    assert said in complaint
    assert not any(line.startswith("run ") for line in asked)
