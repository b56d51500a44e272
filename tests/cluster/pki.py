"""The cluster's certificates, by openssl: one authority, made anew with each cluster."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from cluster import layout
from cluster.shell import run

DAYS = "30"
CA = layout.PKI / "ca.pem"
CA_KEY = layout.PKI / "ca.key"
SERVICE_ACCOUNT_KEY = layout.PKI / "service-account.key"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, for a client, a server or both."""

    name: str

    @property
    def certificate(self) -> Path:
        """The certificate's file."""
        return layout.PKI / f"{self.name}.pem"

    @property
    def key(self) -> Path:
        """The key's file."""
        return layout.PKI / f"{self.name}.key"


ADMIN = Identity("admin")
API_SERVER = Identity("kube-apiserver")
KUBELET_CLIENT = Identity("kube-apiserver-kubelet-client")
CONTROLLER_MANAGER = Identity("kube-controller-manager")
SCHEDULER = Identity("kube-scheduler")


def node(worker: layout.Worker) -> Identity:
    """A kubelet's, as a client and as a server."""
    return Identity(worker.name)


def configuration(names: tuple[str, ...]) -> str:
    """What openssl is to put into a certificate for `names`: addresses and DNS names."""
    kinds = (f"{'IP' if name[0].isdigit() else 'DNS'}:{name}" for name in names)
    alternative = f"subjectAltName = {','.join(kinds)}\n" if names else ""
    return (
        "[req]\ndistinguished_name = subject\nx509_extensions = leaf\n[subject]\n[leaf]\n"
        "basicConstraints = critical,CA:FALSE\nkeyUsage = critical,digitalSignature\n"
        f"extendedKeyUsage = clientAuth,serverAuth\n{alternative}"
    )


def issue(identity: Identity, user: str, group: str = "", names: tuple[str, ...] = ()) -> None:
    """Make the certificate of `user` in `group`, which is good for a server at `names` too.

    Raises:
        SetupError: openssl failed.
    """
    config = layout.PKI / f"{identity.name}.cnf"
    config.write_text(configuration(names))
    subject = f"/O={group}/CN={user}" if group else f"/CN={user}"
    run(
        *("openssl", "req", "-x509", "-config", config, "-CA", CA, "-CAkey", CA_KEY, *_NEW_KEY),
        *("-days", DAYS, "-subj", subject, "-keyout", identity.key, "-out", identity.certificate),
    )


def make() -> None:
    """Make all of them.

    Raises:
        SetupError: openssl failed.
    """
    shutil.rmtree(layout.PKI, ignore_errors=True)
    layout.PKI.mkdir(parents=True, mode=0o700)
    run(
        "openssl",
        "req",
        "-x509",
        *_NEW_KEY,
        "-days",
        DAYS,
        "-subj",
        "/CN=kabench-test",
        "-keyout",
        CA_KEY,
        "-out",
        CA,
    )
    run(
        "openssl",
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
        SERVICE_ACCOUNT_KEY,
    )
    issue(ADMIN, "kabench-admin", "system:masters")
    services = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1")
    issue(API_SERVER, "kube-apiserver", names=(layout.CONTROL_ADDRESS, layout.API_SERVICE_ADDRESS, *services))
    issue(KUBELET_CLIENT, "kube-apiserver-kubelet-client", "system:masters")
    issue(CONTROLLER_MANAGER, "system:kube-controller-manager")
    issue(SCHEDULER, "system:kube-scheduler")
    for worker in layout.workers():
        issue(node(worker), f"system:node:{worker.name}", "system:nodes", (worker.name, worker.address))


def write_kubeconfig(path: Path, identity: Identity, *, context: str = layout.CONTEXT) -> None:
    """Write a kubeconfig (JSON, which is YAML) of `identity`, with the files' paths."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [
            {"name": context, "cluster": {"server": layout.API_URL, "certificate-authority": str(CA)}},
        ],
        "users": [
            {
                "name": identity.name,
                "user": {"client-certificate": str(identity.certificate), "client-key": str(identity.key)},
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": identity.name}}],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    path.chmod(0o600)
