"""The few questions that the harness itself asks the API server."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

from cluster import layout, pki


def get(path: str, *, timeout_s: float = 5) -> Any:
    """GET `path` as the administrator; None where the API server does not answer with 200."""
    try:
        context = ssl.create_default_context(cafile=str(pki.CA))
        context.load_cert_chain(pki.ADMIN.certificate, pki.ADMIN.key)
        connection = http.client.HTTPSConnection(
            layout.CONTROL_ADDRESS, layout.API_PORT, context=context, timeout=timeout_s
        )
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None
    if answer.status != 200:
        return None
    return json.loads(body) if body[:1] == b"{" else body.decode()


def ready() -> bool:
    """Whether the API server says that it is ready."""
    return bool(get("/readyz") == "ok")


def ready_nodes(nodes: Any) -> set[str]:
    """The names of those in a NodeList that are Ready, and that a scheduler may use: a taint goes a little later."""
    return {
        node["metadata"]["name"]
        for node in (nodes or {}).get("items", [])
        for condition in node["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True" and not node["spec"].get("taints")
    }


def nodes_ready() -> set[str]:
    """The names of the nodes that are Ready now."""
    return ready_nodes(get("/api/v1/nodes"))
