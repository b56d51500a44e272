"""The workers: each a containerd and a kubelet in a network and a mount namespace of its own.

In its mount namespace a worker has the folders of `PRIVATE` to itself, at their usual places: nothing of it collides with
another worker's or the machine's own, and its mounts vanish with its last process.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from cluster import api, build, cgroups, layout, pki, sandbox, seed, tools
from cluster.shell import SetupError, spawn, wait_until
from cluster.state import Process, alive

PRIVATE = (
    Path("/var/lib/kubelet"),
    Path("/var/lib/containerd"),
    Path("/var/lib/cni"),
    Path("/var/log/pods"),
    Path("/var/log/containers"),
    Path("/run/containerd"),
    Path("/opt/containerd"),
)
# What kubelets change of the whole machine.
SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
LEASE_S = 20


def containerd_config(worker: layout.Worker, cni: Path) -> str:
    """The containerd's configuration, in TOML.

    Not even root may lower an OOM score without CAP_SYS_RESOURCE, hence `restrict_oom_score_adj`.
    """
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing"]

[grpc]
  address = "{worker.socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox.REFERENCE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  stats_collect_period = 60
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{worker.folder / "cni.conf"}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def cni_config(worker: layout.Worker) -> dict[str, Any]:
    """The pods' network: a bridge in the worker's namespace, addresses of its subnet, no NAT."""
    ranges = {"type": "host-local", "ranges": [[{"subnet": worker.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": ranges}
    return {"cniVersion": "0.4.0", "name": "kabench", "plugins": [bridge]}


def kubelet_config(worker: layout.Worker) -> dict[str, Any]:
    """The KubeletConfiguration. Periods are long, so that an idle cluster leaves its CPUs alone."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": worker.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.CA)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.node(worker).certificate),
        "tlsPrivateKeyFile": str(pki.node(worker).key),
        "containerRuntimeEndpoint": f"unix://{worker.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup(worker.name)}",
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": False,
        "failSwapOn": False,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "volumeStatsAggPeriod": "-1s",
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
        "resolvConf": "",
        "nodeLeaseDurationSeconds": LEASE_S,
        "nodeStatusReportFrequency": "5m0s",
        "syncFrequency": "1m0s",
        "containerLogMonitorInterval": "1m0s",
        "enableProfilingHandler": False,
    }


def _prepare(worker: layout.Worker, images: Path) -> None:
    """Write what the worker's programs read.

    Raises:
        SetupError: no CNI plugins.
    """
    cni = tools.cni_plugins()
    if cni is None:
        raise SetupError(f"no CNI plugins (package {tools.CNI_PACKAGE})")
    worker.run.mkdir(parents=True)
    (worker.folder / "cni.conf").mkdir(parents=True)
    for path in PRIVATE:
        own(worker, path).mkdir(parents=True, exist_ok=True)
    seed.plant(images, own(worker, Path("/var/lib/containerd")))
    (worker.folder / "containerd.toml").write_text(containerd_config(worker, cni))
    (worker.folder / "cni.conf" / "10-kabench.conflist").write_text(json.dumps(cni_config(worker)))
    (worker.folder / "kubelet.json").write_text(json.dumps(kubelet_config(worker)))
    pki.write_kubeconfig(worker.folder / "kubeconfig", pki.node(worker))


def own(worker: layout.Worker, path: Path) -> Path:
    """What the worker has in the place of `path`."""
    return worker.folder / "root" / path.relative_to("/")


def start_containerd(worker: layout.Worker, images: Path) -> Process:
    """Start the worker's containerd, in new namespaces, with the images that the folder `images` has.

    Raises:
        SetupError: it did not start.
    """
    _prepare(worker, images)
    binds = [f"mount --bind {shlex.quote(str(own(worker, path)))} {path}" for path in PRIVATE]
    inner = " && ".join(
        [*binds, shlex.join(["exec", "containerd", "--config", f"{worker.folder}/containerd.toml"])]
    )
    command = [
        *("nsenter", f"--net={layout.NAMESPACES / worker.namespace}"),
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", inner),
    ]
    name = f"containerd-{worker.number}"
    folders = cgroups.hierarchies().folders("system")
    return spawn(name, command, log=layout.LOGS / f"{name}.log", cgroups=folders)


def await_containerd(worker: layout.Worker, process: Process) -> None:
    """Wait until it answers.

    Raises:
        SetupError: it ended, or does not within 20 s.
    """
    log = layout.LOGS / f"containerd-{worker.number}.log"

    def answers() -> bool:
        if not alive(process):
            raise SetupError(f"the containerd of {worker.name} ended: see {log}")
        return worker.socket.exists()

    wait_until(answers, f"the containerd of {worker.name} does not answer: see {log}", timeout_s=20)


def start_kubelet(worker: layout.Worker, containerd: Process) -> Process:
    """Start the worker's kubelet, beside its containerd.

    Raises:
        SetupError: it did not start.
    """
    name = f"kubelet-{worker.number}"
    command: list[str | Path] = [
        *(
            "nsenter",
            f"--net={layout.NAMESPACES / worker.namespace}",
            f"--mount=/proc/{containerd.pid}/ns/mnt",
        ),
        *(build.binary("kubelet"), f"--config={worker.folder}/kubelet.json"),
        *(f"--kubeconfig={worker.folder}/kubeconfig", f"--hostname-override={worker.name}"),
        *(f"--node-ip={worker.address}", "--housekeeping-interval=30s"),
    ]
    folders = cgroups.hierarchies().folders("system")
    return spawn(name, command, log=layout.LOGS / f"{name}.log", cgroups=folders)


def await_ready(processes: dict[str, Process], timeout_s: float = 60) -> None:
    """Wait until all workers are Ready.

    Raises:
        SetupError: a kubelet ended, or one is not Ready within `timeout_s`.
    """
    wanted = {worker.name for worker in layout.workers()}

    def all_ready() -> bool:
        for name, process in processes.items():
            if not alive(process):
                raise SetupError(f"{name} ended: see {layout.LOGS / name}.log")
        return api.nodes_ready() >= wanted

    wait_until(
        all_ready,
        f"not all workers are Ready after {timeout_s:.0f} s: see {layout.LOGS}",
        timeout_s=timeout_s,
    )
