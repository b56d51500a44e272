"""The cluster that this tier runs on: six real kubelets on this machine, and a controller with the shipped rights only."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from e2e_kit import Admin, Cluster, controller_kubeconfig

from cluster import cgroups, image_build, images, layout, lifecycle, state, teardown

BRISK = 8
"""The weight of the cluster's own programs here, where they must get on beside noise; where figures count, they give way."""


@pytest.fixture(scope="session")
def cluster_up() -> Iterator[None]:
    """The test cluster; one that was up already stays up."""
    known = state.load(layout.STATE)
    was_up = known is not None and lifecycle.healthy(known)
    lifecycle.up()
    groups = cgroups.hierarchies()
    cgroups.weigh(groups, "system", BRISK)
    yield
    cgroups.weigh(groups, "system", lifecycle.CONTROL)
    if not was_up:
        with lifecycle.locked():
            teardown.down()


@pytest.fixture(scope="session")
def controller_image(request: pytest.FixtureRequest, cluster_up: None) -> Iterator[Future[Path]]:
    """The archive of the controller's image, which is built beside the other tests where one of them wants it."""
    wanted = any("controller_image" in getattr(item, "fixturenames", ()) for item in request.session.items)
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(built_controller) if wanted else Future()


def built_controller() -> Path:
    [archive] = image_build.build(images.base_image(), images.ARCHIVES, [image_build.CONTROLLER]).values()
    return archive


@pytest.fixture(scope="session")
def admin(controller_image: object) -> Admin:
    """What a cluster's administrator can see and do."""
    return Admin(layout.KUBECONFIG)


@pytest.fixture(scope="session")
def kubeconfig(admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig of the service account whose rights the manifests give: all that a run has."""
    path = tmp_path_factory.mktemp("account") / "kubeconfig"
    controller_kubeconfig(layout.KUBECONFIG, path)
    return path


@pytest.fixture
def cluster(admin: Admin, kubeconfig: Path, tmp_path: Path) -> Iterator[Cluster]:
    """Commands on the cluster, each test in a folder of its own; what a test leaves in the cluster fails it."""
    before = admin.run_namespaces()
    assert not before, f"an earlier test, or somebody else, left {before}"
    cluster = Cluster(admin, kubeconfig, tmp_path)
    yield cluster
    cluster.end()
    left = admin.run_namespaces()
    for name in left:
        admin.remove(name)
    assert not left, f"the test left {left}"
