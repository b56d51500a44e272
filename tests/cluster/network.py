"""One bridge; the control plane and each worker in a network namespace on it. No default route, no NAT, no firewall."""

from __future__ import annotations

import ipaddress
import json

from cluster import layout
from cluster.shell import SetupError, run


def check() -> None:
    """Refuse where the machine already routes into our network.

    Raises:
        SetupError: it does.
    """
    ours = ipaddress.ip_network(layout.NETWORK)
    for route in json.loads(run("ip", "-json", "-4", "route", "show", "table", "main")):
        if route["dst"] == "default" or route["dev"] == layout.BRIDGE:
            continue
        if ours.overlaps(ipaddress.ip_network(route["dst"])):
            raise SetupError(
                f"this machine has a route to {route['dst']}, which the test cluster's {ours} overlaps"
            )


def host_commands() -> list[str]:
    """What `ip` does in the host's namespace."""
    commands = [
        f"link add {layout.BRIDGE} type bridge",
        f"addr add {layout.BRIDGE_ADDRESS}/24 dev {layout.BRIDGE}",
        f"link set {layout.BRIDGE} up",
    ]
    ends = [("kabench-c", layout.CONTROL_NAMESPACE), *((one.link, one.namespace) for one in layout.workers())]
    for link, namespace in ends:
        commands += [
            f"netns add {namespace}",
            f"link add {link} type veth peer name eth0 netns {namespace}",
            f"link set {link} master {layout.BRIDGE} up",
        ]
    commands += [f"route add {one.pods} via {one.address}" for one in layout.workers()]
    return commands


def namespace_commands(address: str, own_pods: str = "") -> list[str]:
    """What `ip` does in the namespace at `address`, whose pods' subnet the CNI plugin routes itself."""
    commands = ["link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"]
    if address == layout.CONTROL_ADDRESS:
        commands.append(f"addr add {layout.API_SERVICE_ADDRESS}/32 dev lo")
    else:
        commands.append(f"route add {layout.SERVICES} via {layout.CONTROL_ADDRESS}")
    commands += [
        f"route add {one.pods} via {one.address}" for one in layout.workers() if one.pods != own_pods
    ]
    return commands


def make() -> None:
    """Make all of it.

    Raises:
        SetupError: the machine has a route into it, or does not let us.
    """
    check()
    run("ip", "-batch", "-", stdin="\n".join(host_commands()) + "\n")
    places = [(layout.CONTROL_NAMESPACE, layout.CONTROL_ADDRESS, "")]
    places += [(one.namespace, one.address, one.pods) for one in layout.workers()]
    for namespace, address, pods in places:
        run("ip", "-n", namespace, "-batch", "-", stdin="\n".join(namespace_commands(address, pods)) + "\n")
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        run("nsenter", f"--net={layout.NAMESPACES / namespace}", "sh", "-c", forward)


def links() -> list[str]:
    """Our interfaces in the host's namespace."""
    found = [link["ifname"] for link in json.loads(run("ip", "-json", "link", "show"))]
    return [name for name in found if name == layout.BRIDGE or name.startswith(("kabench-w", "kabench-c"))]


def namespaces() -> list[str]:
    """Our network namespaces."""
    if not layout.NAMESPACES.is_dir():
        return []
    return sorted(path.name for path in layout.NAMESPACES.iterdir() if path.name.startswith("kabench-"))


def remove() -> None:
    """Remove what is there of it.

    Raises:
        SetupError: `ip` failed.
    """
    commands = [f"link delete {name}" for name in links()]  # the other end and the routes go with it
    commands += [f"netns delete {name}" for name in namespaces()]
    if commands:
        run("ip", "-batch", "-", stdin="\n".join(commands) + "\n")
