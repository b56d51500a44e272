"""The pods' images, built from the real Dockerfile on any base, as archives that a containerd imports.

With buildah, which needs no engine, or with docker where an engine runs: whichever has the base. How the machine reaches
the package index (pip's settings, certificates) is read from it, and lent to the build as secrets and read-only volumes,
so that none of it is in the images.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.pip_access import Access, access
from cluster.shell import SetupError, run
from kabench import __version__
from kabench.core.spec import Images

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Recipe:
    """An image of the product's own.

    Attributes:
        reference: what it is called, without a registry's name, as pods ask for it.
        dockerfile: from the repository's root.
        stage: of the Dockerfile; "" for the last.
        of_sources: whether sources go into it.
    """

    reference: str
    dockerfile: str
    stage: str = ""
    of_sources: bool = True

    @property
    def ignore_file(self) -> str:
        """The list of what a build may read, from the repository's root."""
        return f"{self.dockerfile}.dockerignore"

    @property
    def name(self) -> str:
        """The reference without its tag."""
        return self.reference.partition(":")[0]


AGENT = Recipe(Images().agent, "agents/Dockerfile", "agent")
NOISE = Recipe(Images().noise, "agents/Dockerfile", "noise", of_sources=False)
CONTROLLER = Recipe(f"kabench:{__version__}", "manifests/controller.Dockerfile")
ON_NODES = (AGENT, NOISE)
"""What a run's pods need."""

BUILD_TIMEOUT_S = 1200
SAVE_TIMEOUT_S = 300


def build(base: str, out: Path, recipes: Sequence[Recipe] = ON_NODES) -> Mapping[str, Path]:
    """Build the images on `base`, and return a docker archive in `out` for each, by its full reference.

    An archive whose inputs (Dockerfile, sources, base) are as before is left as it is; others of its name are removed.

    Raises:
        SetupError: no builder has `base`, or the build failed.
    """
    builder = find_builder(base)
    out.mkdir(parents=True, exist_ok=True)
    archives = {}
    for recipe in recipes:
        archive = out / f"{recipe.name}-{inputs_digest(recipe, builder.base_id)[:16]}.tar"
        if not archive.exists():
            unfinished = archive.with_suffix(".unfinished")
            unfinished.unlink(missing_ok=True)
            with lent(access_of_machine()) as ways:
                builder.build(recipe, ways)
            builder.save(recipe, unfinished)
            for older in out.glob(f"{recipe.name}-{'[0-9a-f]' * 16}.tar"):
                older.unlink()
            unfinished.rename(archive)
        archives[full_reference(recipe.reference)] = archive
    return archives


def full_reference(reference: str) -> str:
    """`reference` as a containerd has it: a name without a registry is one of Docker's own library."""
    return f"docker.io/library/{reference}"


def context_files(recipe: Recipe) -> Iterator[Path]:
    """The files that a build may read: those that the ignore file lets through."""
    for line in (REPOSITORY / recipe.ignore_file).read_text().splitlines():
        if line.startswith("!"):
            found = REPOSITORY / line[1:]
            files = [found] if found.is_file() else sorted(found.rglob("*"))
            yield from (file for file in files if file.is_file() and "__pycache__" not in file.parts)


def inputs_digest(recipe: Recipe, base_id: str) -> str:
    """SHA-256 of all that the image is made of."""
    digest = hashlib.sha256(f"{base_id} {__version__}".encode())
    for file in context_files(recipe) if recipe.of_sources else (REPOSITORY / recipe.dockerfile,):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"\n{content} {file.relative_to(REPOSITORY)}".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Buildah:
    """Builds in a chroot, without an engine and without privileges beyond root's. `driver` is the storage's."""

    base: str
    base_id: str
    driver: str

    def build(self, recipe: Recipe, ways: Access) -> None:
        """Build it under its reference, and drop what had that name before."""
        tag = f"localhost/{recipe.reference}"
        before = self._image_id(tag)
        volumes = [f"--volume={folder}:{folder}:ro" for folder in ways.folders]
        run(
            *(
                "buildah",
                "--storage-driver",
                self.driver,
                "bud",
                "--isolation",
                "chroot",
                "--network",
                "host",
            ),
            *("--layers", f"--ignorefile={REPOSITORY / recipe.ignore_file}", *volumes),
            *build_arguments(recipe, ways, base=self.base, tag=tag),
            timeout_s=BUILD_TIMEOUT_S,
        )
        if before and before != self._image_id(tag):
            # its layers would stay for ever; where something still uses them they may
            command = ("buildah", "--storage-driver", self.driver, "rmi", before)
            subprocess.run(command, capture_output=True, check=False)

    def save(self, recipe: Recipe, archive: Path) -> None:
        """Write it into `archive`."""
        tag = f"localhost/{recipe.reference}"
        place = f"docker-archive:{archive}:{full_reference(recipe.reference)}"
        run("buildah", "--storage-driver", self.driver, "push", tag, place, timeout_s=SAVE_TIMEOUT_S)

    def _image_id(self, tag: str) -> str:
        return buildah_image_id(tag, self.driver)


@dataclass(frozen=True)
class Docker:
    """Builds with a docker engine. It cannot mount folders into a build: the index must be reachable, or be lent."""

    base: str
    base_id: str

    def build(self, recipe: Recipe, ways: Access) -> None:
        """Build it under its reference."""
        run(*docker_build(recipe, ways, base=self.base), timeout_s=BUILD_TIMEOUT_S)

    def save(self, recipe: Recipe, archive: Path) -> None:
        """Write it into `archive`."""
        run("docker", "save", "--output", archive, recipe.reference, timeout_s=SAVE_TIMEOUT_S)


def find_builder(base: str) -> Buildah | Docker:
    """What can build on `base`.

    Raises:
        SetupError: neither buildah nor a docker engine has it.
    """
    for driver in ("overlay", "vfs") if shutil.which("buildah") else ():
        if found := buildah_image_id(base, driver):
            return Buildah(base, found, driver)
    if shutil.which("docker") and (
        found := _answer("docker", "image", "inspect", "--format", "{{.Id}}", base)
    ):
        return Docker(base, found)
    raise SetupError(
        f"no image {base} to build on, in buildah's storage or a docker engine: make it first, or install buildah or docker"
    )


def buildah_image_id(image: str, driver: str) -> str:
    """The id of a local image; empty where there is none, or where the storage driver does not work here."""
    return _answer(
        *("buildah", "--storage-driver", driver, "inspect", "--type", "image"),
        *("--format", "{{.FromImageID}}", image),
    )


def docker_build(recipe: Recipe, ways: Access, base: str = "") -> list[str | Path]:
    """The command line that builds it with docker; without `base` on the Dockerfile's own."""
    return ["docker", "build", *build_arguments(recipe, ways, base=base, tag=recipe.reference)]


def build_arguments(recipe: Recipe, ways: Access, *, base: str, tag: str) -> list[str | Path]:
    """What docker and buildah are both told."""
    bases = ["--build-arg", f"BASE={base}"] if base else []
    stage = ["--target", recipe.stage] if recipe.stage else []
    secrets = [f"--secret=id={name},src={path}" for name, path in ways.secrets.items()]
    version = ["--build-arg", f"VERSION={__version__}"]
    file = REPOSITORY / recipe.dockerfile
    return ["--file", file, *bases, *version, *secrets, *stage, "--tag", tag, REPOSITORY]


def access_of_machine() -> Callable[[Path], Access]:
    """How this machine's pip reaches its index, to be written into a folder."""
    listed = _answer(sys.executable, "-m", "pip", "config", "list")
    return access(listed.splitlines(), os.environ)


@contextmanager
def lent(write: Callable[[Path], Access]) -> Iterator[Access]:
    """The secrets' files, for as long as a build needs them: an index address may carry a password."""
    with tempfile.TemporaryDirectory(prefix="kabench-build-") as folder:
        yield write(Path(folder))


def _answer(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
