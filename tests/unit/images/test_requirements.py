"""The agent image's requirements: those of the lock, and all that the agent imports."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[3]
PYTHONS = ("3.11", "3.12", "3.13")
OPTIONAL = {"isal", "pybase64"}
"""`core.inflate` does without, and an agent reads no logs."""
AGENT_FILES = ("requirements.txt", "build-requirements.txt")


def pins(path):
    """The versions of each package in a requirements file: more than one where Pythons differ."""
    found = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def hashes(path):
    blocks = re.split(r"^(?=[a-z])", path.read_text(), flags=re.MULTILINE)[1:]
    return {block.split("==")[0]: set(re.findall(r"sha256:[0-9a-f]{64}", block)) for block in blocks}


@pytest.mark.parametrize("name", AGENT_FILES)
def test_a_version_in_the_image_is_the_one_that_was_tested(name):
    locked = pins(REPOSITORY / "requirements.lock")
    found = pins(REPOSITORY / "agents" / name)
    assert found == {package: locked.get(package) for package in found}, "run `make lock`"


@pytest.mark.parametrize("name", AGENT_FILES)
def test_every_package_has_hashes_and_no_line_names_an_index(name):
    path = REPOSITORY / "agents" / name
    assert all(hashes(path).values())
    assert "://" not in path.read_text()


def test_the_image_has_all_that_its_programs_import_and_their_dependencies_and_nothing_else():
    graph = grimp.build_graph("kabench", "kabench_agent", "kabench_targets", include_external_packages=True)
    imported = set()
    for package in ("kabench_agent", "kabench_targets"):
        imported |= graph.find_upstream_modules(package, as_package=True)
    outside = {name for name in imported if graph.is_module_squashed(name)} - OPTIONAL
    distributions = metadata.packages_distributions()
    wanted = {canonicalize_name(found) for name in outside for found in distributions.get(name, ())}
    assert {"aiohttp", "numpy"} <= wanted  # the graph saw the outside

    assert set(pins(REPOSITORY / "agents/requirements.txt")) == closure(wanted)


def test_what_the_image_lacks_is_not_missed():
    """As in the image: no module of that name is found, and a log is still read."""
    code = """if True:
        import sys
        sys.modules |= {"isal": None, "pybase64": None}
        import importlib.util as util
        find = util.find_spec
        util.find_spec = lambda name, *more: None if name in ("isal", "pybase64") else find(name, *more)
        import kabench_agent.__main__
        from kabench.core import inflate
        assert not inflate.FAST
        assert inflate.from_base64("AP8=") == bytes([0, 255])
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def closure(wanted):
    """`wanted` and what they depend on, on Linux and every Python that we support."""
    found, ahead = set(), set(wanted)
    while ahead:
        name = ahead.pop()
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if applies(requirement.marker):
                ahead |= {canonicalize_name(requirement.name)} - found
    return found


def applies(marker):
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "extra": ""}
    return marker is None or any(
        marker.evaluate(linux | {"python_version": python, "python_full_version": f"{python}.2"})
        for python in PYTHONS
    )
