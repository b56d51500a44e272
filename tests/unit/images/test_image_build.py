"""When an image is built anew, of what, and under which names. Nothing is built here."""

import io
import tarfile
from pathlib import Path

import pytest

from cluster import image_build
from cluster.image_build import (
    AGENT,
    CONTROLLER,
    NOISE,
    Buildah,
    context_files,
    full_reference,
    inputs_digest,
)
from cluster.pip_access import Access
from cluster.shell import SetupError

REPOSITORY = Path(__file__).resolve().parents[3]


class FakeBuilder:
    """Builds nothing, and notes what it was asked for."""

    base_id = "sha256:base"

    def __init__(self):
        self.built = []

    def build(self, recipe, ways):
        assert ways.secrets["pip"].exists()
        self.built.append(recipe.name)

    def save(self, recipe, archive):
        with tarfile.open(archive, "w") as tar:
            tar.addfile(tarfile.TarInfo(recipe.name), io.BytesIO())


@pytest.fixture
def builder(monkeypatch):
    fake = FakeBuilder()
    monkeypatch.setattr(image_build, "find_builder", lambda base: fake)
    return fake


@pytest.fixture
def digests(monkeypatch):
    """The digests of the images, which a test may change."""
    found = {AGENT: "a" * 64, NOISE: "b" * 64, CONTROLLER: "d" * 64}
    monkeypatch.setattr(image_build, "inputs_digest", lambda recipe, base_id: found[recipe])
    return found


def test_archives_are_found_by_the_names_that_pods_ask_for(builder, tmp_path):
    archives = image_build.build("base", tmp_path)
    assert set(archives) == {
        "docker.io/library/kabench-agent:0.1.0",
        "docker.io/library/kabench-noise:0.1.0",
    }
    assert all(tarfile.is_tarfile(path) for path in archives.values())


def test_what_has_not_changed_is_not_built_again_and_what_has_replaces_the_old(builder, digests, tmp_path):
    before = image_build.build("base", tmp_path)
    assert image_build.build("base", tmp_path) == before
    assert builder.built == ["kabench-agent", "kabench-noise"]

    digests[AGENT] = "c" * 64
    after = image_build.build("base", tmp_path)
    assert builder.built == ["kabench-agent", "kabench-noise", "kabench-agent"]
    assert sorted(tmp_path.iterdir()) == sorted(after.values())


def test_a_build_that_fails_leaves_the_old_archive_and_none_that_looks_finished(
    builder, digests, tmp_path, monkeypatch
):
    before = image_build.build("base", tmp_path)

    def fail(recipe, archive):
        archive.write_bytes(b"half")
        raise SetupError("the disk is full")

    monkeypatch.setattr(builder, "save", fail)
    digests[AGENT] = "c" * 64
    with pytest.raises(SetupError, match="the disk is full"):
        image_build.build("base", tmp_path)
    assert sorted(tmp_path.glob("*.tar")) == sorted(before.values())


@pytest.fixture
def small_repository(monkeypatch, tmp_path):
    """A repository of a few files, with the real ignore files."""
    monkeypatch.setattr(image_build, "REPOSITORY", tmp_path)
    for recipe in (AGENT, CONTROLLER):
        path = tmp_path / recipe.ignore_file
        path.parent.mkdir()
        path.write_text((REPOSITORY / recipe.ignore_file).read_text())
    for name in (
        "agents/Dockerfile",
        "kabench/core/spec.py",
        "kabench/__pycache__/spec.pyc",
        "docs/method.md",
        "requirements.lock",
        "LICENSE",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def all_of(base_id="base"):
    return [inputs_digest(recipe, base_id) for recipe in (AGENT, NOISE, CONTROLLER)]


@pytest.mark.parametrize(
    ("name", "agent_noise_controller"),
    [
        ("agents/Dockerfile", [True, True, True]),
        ("kabench/core/spec.py", [True, False, True]),
        ("LICENSE", [True, False, True]),
        ("requirements.lock", [False, False, True]),
        ("docs/method.md", [False, False, False]),
        ("kabench/__pycache__/spec.pyc", [False, False, False]),
    ],
)
def test_an_image_depends_on_what_it_is_made_of(small_repository, name, agent_noise_controller):
    before = all_of()
    (small_repository / name).write_text("changed")
    assert [one != other for one, other in zip(all_of(), before, strict=True)] == agent_noise_controller


def test_an_image_depends_on_its_base_and_on_its_files_names(small_repository):
    before = all_of()
    assert all(changed != one for changed, one in zip(all_of("another"), before, strict=True))
    (small_repository / "kabench/core/spec.py").rename(small_repository / "kabench/core/specs.py")
    assert inputs_digest(AGENT, "base") != before[0]


def test_the_context_holds_the_agent_and_neither_tests_nor_results():
    found = {str(path.relative_to(REPOSITORY)) for path in context_files(AGENT)}
    assert {"agents/requirements.txt", "agents/kabench_agent/__main__.py", "pyproject.toml"} <= found
    assert not {name.split("/")[0] for name in found} & {"tests", "results", "docs", ".git", ".venv"}


def test_an_image_of_one_name_is_not_taken_for_an_older_one_of_another(builder, digests, tmp_path):
    on_nodes = image_build.build("base", tmp_path)
    controller = image_build.build("base", tmp_path, [CONTROLLER])
    assert sorted(tmp_path.iterdir()) == sorted([*on_nodes.values(), *controller.values()])


def test_a_base_that_no_builder_has_is_named(monkeypatch):
    monkeypatch.setattr(image_build.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match="no image localhost/nothing to build on"):
        image_build.find_builder("localhost/nothing")


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"overlay", "vfs", "docker"}, Buildah("base", "id", "overlay")),
        ({"vfs", "docker"}, Buildah("base", "id", "vfs")),
        ({"docker"}, image_build.Docker("base", "id")),
    ],
)
def test_the_builder_is_the_first_that_has_the_base(monkeypatch, has, expected):
    def answer(*command):
        return "id" if has & {"docker" if command[0] == "docker" else command[2]} else ""

    monkeypatch.setattr(image_build.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(image_build, "_answer", answer)
    assert image_build.find_builder("base") == expected


def test_buildah_is_lent_secrets_and_folders_and_saves_under_the_full_name(monkeypatch):
    asked = []
    monkeypatch.setattr(image_build, "run", lambda *words, timeout_s: asked.append(" ".join(map(str, words))))
    monkeypatch.setattr(image_build, "_answer", lambda *command: "id")
    buildah = Buildah("localhost/base:1", "id", "vfs")
    buildah.build(AGENT, Access({"ca": Path("/ca.pem")}, (Path("/wheels"),)))
    buildah.save(AGENT, Path("/out.tar"))
    built, saved = asked
    assert "--storage-driver vfs" in built
    assert "--volume=/wheels:/wheels:ro" in built
    assert "--secret=id=ca,src=/ca.pem" in built
    assert "--build-arg BASE=localhost/base:1 --build-arg VERSION=0.1.0" in built
    assert "--target agent --tag localhost/kabench-agent:0.1.0" in built
    assert saved.endswith(
        "push localhost/kabench-agent:0.1.0 docker-archive:/out.tar:docker.io/library/kabench-agent:0.1.0"
    )


def test_a_name_without_a_registry_is_one_of_dockers_library():
    assert full_reference("redis:7.4.2") == "docker.io/library/redis:7.4.2"
