"""etcd, the API server, the controller manager and two schedulers, in a network namespace of their own."""

from __future__ import annotations

import json
from pathlib import Path

from cluster import api, build, cgroups, layout, pki
from cluster.shell import SetupError, spawn, wait_until
from cluster.state import Process, alive

SECOND_SCHEDULER = "second"
# A node is lost after this long without a sign; a lease is renewed every 5 s (workers.LEASE_S / 4).
GRACE = "16s"


def _enter(*command: str | Path) -> list[str | Path]:
    return ["nsenter", f"--net={layout.NAMESPACES / layout.CONTROL_NAMESPACE}", *command]


def etcd() -> list[str | Path]:
    """The store. Nothing in it must outlive the machine, so it does not wait for the disk."""
    url = "http://127.0.0.1:2379"
    return _enter(
        *(
            "etcd",
            "--data-dir",
            layout.FOLDER / "etcd",
            "--listen-client-urls",
            url,
            "--advertise-client-urls",
            url,
        ),
        *(
            "--listen-peer-urls",
            "http://127.0.0.1:2380",
            "--unsafe-no-fsync",
            "--logger",
            "zap",
            "--log-level",
            "warn",
        ),
    )


def api_server() -> list[str | Path]:
    """The API server, with the default admission plugins and NodeRestriction."""
    options: dict[str, str | Path] = {
        "etcd-servers": "http://127.0.0.1:2379",
        "bind-address": "0.0.0.0",  # of its own namespace
        "secure-port": str(layout.API_PORT),
        "advertise-address": layout.CONTROL_ADDRESS,
        "service-cluster-ip-range": layout.SERVICES,
        "endpoint-reconciler-type": "none",
        "tls-cert-file": pki.API_SERVER.certificate,
        "tls-private-key-file": pki.API_SERVER.key,
        "client-ca-file": pki.CA,
        "kubelet-certificate-authority": pki.CA,
        "kubelet-client-certificate": pki.KUBELET_CLIENT.certificate,
        "kubelet-client-key": pki.KUBELET_CLIENT.key,
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": pki.SERVICE_ACCOUNT_KEY,
        "service-account-signing-key-file": pki.SERVICE_ACCOUNT_KEY,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "profiling": "false",
    }
    return _enter(build.binary("kube-apiserver"), *(f"--{name}={value}" for name, value in options.items()))


def controller_manager() -> list[str | Path]:
    """The controller manager: the sooner it notices a lost node, the shorter the tests."""
    options: dict[str, str | Path] = {
        "kubeconfig": layout.CONFIG / "controller-manager.kubeconfig",
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
        "use-service-account-credentials": "true",  # its controllers' rights are bound to these
        "root-ca-file": pki.CA,
        "service-account-private-key-file": pki.SERVICE_ACCOUNT_KEY,
        "allocate-node-cidrs": "false",
        "node-monitor-period": "2s",
        "node-monitor-grace-period": GRACE,
        "profiling": "false",
    }
    return _enter(
        build.binary("kube-controller-manager"), *(f"--{name}={value}" for name, value in options.items())
    )


def scheduler(name: str, port: int) -> list[str | Path]:
    """A scheduler that binds the pods which name it."""
    config = layout.CONFIG / f"scheduler-{name}.json"
    content = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(layout.CONFIG / "scheduler.kubeconfig")},
        "leaderElection": {"leaderElect": False},
        "enableProfiling": False,
        "profiles": [{"schedulerName": name}],
    }
    config.write_text(json.dumps(content))
    return _enter(
        build.binary("kube-scheduler"),
        f"--config={config}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
    )


def start_one(name: str, command: list[str | Path]) -> Process:
    """Start one of them, in the cgroup of the cluster's own processes.

    Raises:
        SetupError: it did not start.
    """
    own = cgroups.hierarchies().folders("system")
    return spawn(name, command, log=layout.LOGS / f"{name}.log", cgroups=own)


def start_store() -> dict[str, Process]:
    """Start etcd and the API server, which waits for it by itself.

    Raises:
        SetupError: one did not start.
    """
    (layout.FOLDER / "etcd").mkdir(mode=0o700)
    return {"etcd": start_one("etcd", etcd()), "kube-apiserver": start_one("kube-apiserver", api_server())}


def await_api(process: Process, timeout_s: float = 60) -> None:
    """Wait until the API server is ready.

    Raises:
        SetupError: it ended, or is not ready within `timeout_s`.
    """
    log = layout.LOGS / "kube-apiserver.log"

    def ready() -> bool:
        if not alive(process):
            raise SetupError(f"the API server ended: see {log}")
        return api.ready()

    wait_until(ready, f"the API server is not ready after {timeout_s:.0f} s: see {log}", timeout_s=timeout_s)


def start_rest() -> dict[str, Process]:
    """Start what works through the API server.

    Raises:
        SetupError: one did not start.
    """
    pki.write_kubeconfig(layout.CONFIG / "controller-manager.kubeconfig", pki.CONTROLLER_MANAGER)
    pki.write_kubeconfig(layout.CONFIG / "scheduler.kubeconfig", pki.SCHEDULER)
    return {
        "kube-controller-manager": start_one("kube-controller-manager", controller_manager()),
        "kube-scheduler": start_one("kube-scheduler", scheduler("default-scheduler", 10259)),
        "kube-scheduler-second": start_one("kube-scheduler-second", scheduler(SECOND_SCHEDULER, 10261)),
    }
