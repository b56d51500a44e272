"""Images without a registry: a base by debootstrap, the product's own and Redis on it, and their way to the workers."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import image_build, layout, sandbox
from cluster.shell import SetupError, run
from kabench.core.spec import Images

ARCHIVES = layout.CACHE / "images"
PACKAGES = ("ca-certificates", "python3", "python3-venv", "redis-server", "stress-ng")
DEBOOTSTRAP_S = 15 * 60
BUILDAH_S = 300
# What no container reads; a smaller base is a faster import.
NEEDLESS = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
)


def codename() -> str:
    """This machine's Debian release.

    Raises:
        SetupError: it is no Debian.
    """
    lines = Path("/etc/os-release").read_text().splitlines()
    found = [line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME=")]
    if not found:
        raise SetupError(
            "the pods' base image is made of Debian packages, and /etc/os-release names no release"
        )
    return found[0]


def parse_mirror(targets: str, release: str) -> str | None:
    """The archive with the main part of `release`, in lines of "address release component"."""
    for line in targets.splitlines():
        address, of, component = line.split()
        if (of, component) == (release, "main"):
            return address
    return None


def mirror(release: str) -> str:
    """Where this machine's apt gets `release` from.

    Raises:
        SetupError: apt has no such source.
    """
    form = "$(REPO_URI) $(CODENAME) $(COMPONENT)"
    found = parse_mirror(run("apt-get", "indextargets", "--format", form, "Created-By: Packages"), release)
    if found is None:  # a machine whose lists were removed
        run("apt-get", "update", "-q", timeout_s=BUILDAH_S)
        found = parse_mirror(
            run("apt-get", "indextargets", "--format", form, "Created-By: Packages"), release
        )
    if found is None:
        raise SetupError(f"apt's sources have no Debian {release} to make the pods' base image of")
    return found


def root_archive(release: str) -> Path:
    """A tar of a Debian with `PACKAGES`, from the cache or by debootstrap.

    Raises:
        SetupError: debootstrap failed.
    """
    digest = hashlib.sha256(" ".join((release, *PACKAGES, *NEEDLESS)).encode()).hexdigest()[:16]
    path = layout.CACHE / f"base-{release}-{digest}.tar"
    if path.exists():
        return path
    print("making the pods' base image by debootstrap, which takes a minute", flush=True)
    root = layout.CACHE / "base.new"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    included = ",".join(PACKAGES)
    run(
        *("debootstrap", "--variant=minbase", f"--include={included}", release, root, mirror(release)),
        timeout_s=DEBOOTSTRAP_S,
    )
    for name in NEEDLESS:
        shutil.rmtree(root / name)
        (root / name).mkdir()
    new = path.with_suffix(".new")
    run("tar", "--create", "--numeric-owner", "--file", new, "--directory", root, ".", timeout_s=BUILDAH_S)
    shutil.rmtree(root)
    new.replace(path)
    return path


def driver() -> str:
    """The storage driver of buildah that works here: overlay, or vfs where overlays cannot be stacked.

    Raises:
        SetupError: neither does.
    """
    for name in ("overlay", "vfs"):
        if (
            subprocess.run(
                ["buildah", "--storage-driver", name, "images"], capture_output=True, check=False
            ).returncode
            == 0
        ):
            return name
    raise SetupError("buildah works with neither the overlay nor the vfs storage driver here")


def base_image() -> str:
    """The name of the base in buildah's storage, which is made where it is not there.

    Raises:
        SetupError: it cannot be made.
    """
    release = codename()
    archive = root_archive(release)
    name, with_driver = f"localhost/kabench-base:{release}", ("buildah", "--storage-driver", driver())
    made_of = subprocess.run(
        [
            *with_driver,
            "inspect",
            "--type",
            "image",
            "--format",
            '{{index .OCIv1.Config.Labels "kabench.base"}}',
            name,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if made_of.returncode == 0 and made_of.stdout.strip() == archive.stem:
        return name
    container = run(*with_driver, "from", "scratch").strip()
    try:
        run(*with_driver, "add", "--quiet", container, archive, "/", timeout_s=BUILDAH_S)
        run(*with_driver, "config", "--label", f"kabench.base={archive.stem}", container)
        run(*with_driver, "commit", "--quiet", container, name, timeout_s=BUILDAH_S)
    finally:
        run(*with_driver, "rm", container)
    return name


def redis_archive(base: str) -> Path:
    """An image that stands in for the official Redis image under its name, with the `redis-server` of Debian.

    Raises:
        SetupError: buildah failed.
    """
    with_driver = ("buildah", "--storage-driver", driver())
    base_id = run(*with_driver, "inspect", "--type", "image", "--format", "{{.FromImageID}}", base).strip()
    path = ARCHIVES / f"redis-{base_id[:16]}.tar"
    if path.exists():
        return path
    container = run(*with_driver, "from", "--pull-never", base).strip()
    told = "Debian's redis-server, under the name of the official image, for the test cluster only"
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    try:
        run(
            *(*with_driver, "config", "--cmd", "redis-server", "--user", "999:999", "--workingdir", "/data"),
            *("--port", "6379", "--label", f"org.opencontainers.image.description={told}", container),
        )
        reference = image_build.full_reference(Images().redis)
        image = run(*with_driver, "commit", "--quiet", container, timeout_s=BUILDAH_S).strip()
        run(*with_driver, "push", "--quiet", image, f"docker-archive:{new}:{reference}", timeout_s=BUILDAH_S)
    finally:
        run(*with_driver, "rm", container)
    new.replace(path)
    return path


def archives() -> list[Path]:
    """The archives of all images that the workers have: sandbox, agent, noise and Redis. Each name tells the content.

    Raises:
        SetupError: one cannot be built.
    """
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    base = base_image()
    return [sandbox.archive(), redis_archive(base), *image_build.build(base, ARCHIVES).values()]


def names(paths: Iterable[Path]) -> list[str]:
    """What tells whether archives have changed."""
    return sorted(path.name for path in paths)


def ctr(worker: layout.Worker, *words: str | Path) -> str:
    """Ask the worker's containerd, in the namespace that its kubelet uses.

    Raises:
        SetupError: it failed.
    """
    return run("ctr", "--address", worker.socket, "--namespace", "k8s.io", *words)


def load(paths: Iterable[Path]) -> None:
    """Import image archives (docker's form or OCI) into all workers.

    Raises:
        SetupError: one cannot be imported.
    """
    found = list(paths)

    def into(worker: layout.Worker) -> None:
        for path in found:
            ctr(worker, "images", "import", path)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(into, layout.workers()))


def tag(reference: str, other: str) -> None:
    """Give an image that the workers have another name.

    Raises:
        SetupError: they do not have it.
    """
    for worker in layout.workers():
        ctr(worker, "images", "tag", "--force", reference, other)
