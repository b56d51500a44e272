"""Amounts as Kubernetes writes them, and what a pod's containers come to together."""

from __future__ import annotations

from typing import Any

import pytest

from kabench.core.quantities import Amounts, amounts_of, read_bytes, read_mib, read_millis


@pytest.mark.parametrize(
    ("text", "millis"),
    [("250m", 250), ("1", 1000), ("0.5", 500), ("0m", 0), (2, 2000), (0.1, 100), ("1e2m", None), ("100u", 1)],
)
def test_cpu_is_read(text: str | float, millis: int | None) -> None:
    if millis is None:
        with pytest.raises(ValueError, match="'1e2m' is no amount; give one such as 250m"):
            read_millis(text)
    else:
        assert read_millis(text) == millis


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("64Mi", 64),
        ("1Gi", 1024),
        ("1025Ki", 2),
        ("0Mi", 0),
        ("128M", 123),
        (134217728, 128),
        ("1.5Gi", 1536),
        ("1e9", 954),
        ("1E", 953674316407),
    ],
)
def test_memory_is_read(text: str | int, mib: int) -> None:
    assert read_mib(text) == mib


def test_bytes_are_read() -> None:
    assert [read_bytes(text) for text in ("1Ki", "1.5G", 7, "100m")] == [1024, 1_500_000_000, 7, 1]


@pytest.mark.parametrize("text", ["64MB", "-1Mi", "", "Mi", "1 Gi", True, "1ee3"])
def test_what_is_no_amount_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="is no amount"):
        read_mib(text)


def container(cpu: str, memory: str, limit: str, **more: Any) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": limit}}, **more}


def test_a_pod_is_the_sum_of_its_containers_or_its_largest_init_container() -> None:
    containers = [container("100m", "64Mi", "96Mi"), container("0.2", "32Mi", "64Mi")]
    assert amounts_of({"containers": containers}) == Amounts(300, 96, 160)
    init = [container("1", "16Mi", "16Mi"), container("50m", "128Mi", "128Mi")]
    assert amounts_of({"initContainers": init, "containers": containers}) == Amounts(1000, 128, 160)


def test_a_sidecar_runs_beside_what_comes_after_it() -> None:
    init = [
        container("300m", "1Mi", "1Mi"),
        container("100m", "10Mi", "10Mi", restartPolicy="Always"),
        container("450m", "1Mi", "1Mi"),
    ]
    assert amounts_of({"initContainers": init, "containers": [container("400m", "1Mi", "1Mi")]}) == Amounts(
        550, 11, 11
    )
