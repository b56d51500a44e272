"""Who has which CPUs and addresses."""

import ipaddress

import pytest

from cluster import layout


def _cpus(count: int) -> list[list[int]]:
    return [sorted(cpus) for cpus in layout.cpu_sets(range(count)).values()]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [[0]] * 6),
        (2, [[0], [0], [0], [1], [1], [1]]),
        (3, [[0], [0], [1], [1], [2], [2]]),
        (6, [[0], [1], [2], [3], [4], [5]]),
        (12, [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]),
    ],
)
def test_workers_are_as_far_apart_as_the_cpus_allow(count: int, expected: list[list[int]]) -> None:
    assert _cpus(count) == expected


def test_cpu_sets_take_the_cpus_that_there_are() -> None:
    assert layout.cpu_sets([3, 7])["worker-1"] == {3}
    assert layout.cpu_sets([3, 7])["worker-6"] == {7}


def test_no_two_share_an_address_and_all_are_in_the_network() -> None:
    workers = layout.workers()
    singles = [layout.BRIDGE_ADDRESS, layout.CONTROL_ADDRESS, *(worker.address for worker in workers)]
    subnets = [
        ipaddress.IPv4Network(text) for text in (layout.SERVICES, *(worker.pods for worker in workers))
    ]
    assert len(set(singles)) == len(singles) == 8
    assert all(ipaddress.IPv4Network(layout.NETWORK).supernet_of(subnet) for subnet in subnets)
    assert not any(one.overlaps(other) for one in subnets for other in subnets if one is not other)
    assert not any(ipaddress.ip_address(address) in subnet for address in singles for subnet in subnets)
    assert (
        ipaddress.ip_address(layout.API_SERVICE_ADDRESS) == subnets[0][1]
    )  # what the API server gives its Service


def test_interface_names_fit_into_the_kernels_fifteen_bytes() -> None:
    assert all(len(name) <= 15 for name in (layout.BRIDGE, *(worker.link for worker in layout.workers())))
