"""The images as the test cluster has them: what is in them, how large they are, and who they run as."""

import contextlib
import json
import tarfile

import pytest

from cluster import image_build, images

AGENT_BUDGET_BYTES = 120_000_000


class Archive:
    """An image in the form of `docker save`."""

    def __init__(self, tar):
        self._tar = tar
        (manifest,) = json.load(self._tar.extractfile("manifest.json"))
        image = json.load(self._tar.extractfile(manifest["Config"]))
        self.config = image["config"]
        self.layers = dict(zip(image["rootfs"]["diff_ids"], manifest["Layers"], strict=True))

    def files(self, layer):
        """(name, size) of what a layer has."""
        with tarfile.open(fileobj=self._tar.extractfile(self.layers[layer])) as inner:
            return [(member.name, member.size) for member in inner]


@pytest.fixture(scope="module")
def archives():
    """The agents' image and the noise's, built unless they are there."""
    found = image_build.build(images.base_image(), images.ARCHIVES)
    with contextlib.ExitStack() as stack:
        yield {
            name.rpartition("/")[2].partition(":")[0]: Archive(stack.enter_context(tarfile.open(path)))
            for name, path in found.items()
        }


@pytest.fixture(scope="module")
def agent_files(archives):
    """What the agents' image has beyond its base, which it shares with the noise's."""
    agent, noise = archives["kabench-agent"], archives["kabench-noise"]
    own = [layer for layer in agent.layers if layer not in noise.layers]
    assert 0 < len(own) < len(agent.layers)
    return [entry for layer in own for entry in agent.files(layer)]


def test_the_agent_adds_at_most_120_mb_to_its_base(agent_files):
    assert 0 < sum(size for _, size in agent_files) <= AGENT_BUDGET_BYTES


def test_the_agent_has_neither_pip_nor_what_only_the_controller_needs(agent_files):
    packages = {name.partition("/site-packages/")[2].partition("/")[0] for name, _ in agent_files}
    assert {"kabench_agent", "kabench_targets", "numpy"} <= packages
    assert not packages & {"pip", "pydantic", "typer", "matplotlib", "kubernetes_asyncio", "hdrh", "scipy"}
    assert {name for name, _ in agent_files if name.startswith("opt/kabench/bin/")} == {
        f"opt/kabench/bin/{name}" for name in ("python", "python3", "python3.11")
    }


def test_every_module_of_the_agent_is_compiled(agent_files):
    names = {name for name, _ in agent_files}
    modules = [name for name in names if "/kabench_agent/" in name and name.endswith(".py")]
    assert modules
    for module in modules:
        folder, _, file = module.rpartition("/")
        assert any(name.startswith(f"{folder}/__pycache__/{file[:-3]}.cpython-") for name in names)


@pytest.mark.parametrize("name", ["kabench-agent", "kabench-noise"])
def test_nobody_runs_them_and_they_say_what_they_are(archives, name):
    config = archives[name].config
    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.opencontainers.image.title"] == name
    assert config["Labels"]["org.opencontainers.image.version"] == image_build.__version__


def test_the_noise_is_interrupted_at_its_end(archives):
    assert archives["kabench-noise"].config["StopSignal"] == "SIGINT"
