"""The cluster's API, as far as kabench needs it: objects are plain dicts, as in the manifests.

Every call has a time-out, and is repeated while the API server does not answer (it may be restarting). What it refuses is a
ClusterError that says what and what to do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

import aiohttp
from kubernetes_asyncio import client, config

from kabench.backends.kubernetes.access import IN_CLUSTER, Access
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.naming import FIELD_MANAGER
from kabench.backends.kubernetes.refusals import Refused, passes, refused, said
from kabench.backends.patience import Patience
from kabench.backends.tasks import all_of
from kabench.clock import Clock, SystemClock
from kabench.errors import ClusterError, SpecError

CALL_S = 10.0
WATCH_S = 60
"""How long one watch request lasts; it is followed by another."""
PATIENCE_NS = 20_000_000_000
"""How long an API server may be away."""
SETTLING_NS = 10_000_000_000
"""How long an API server that was away may refuse what it granted before."""
REFRESH_S = 60.0
"""How often a credential that a plugin gives out is asked for again."""

APPLY = "application/apply-patch+yaml"
NOT_FOUND, GONE = 404, 410


class _Resource(NamedTuple):
    """Where a kind is found in the client."""

    api: str
    name: str
    namespaced: bool


_RESOURCES: Mapping[str, _Resource] = {
    "Namespace": _Resource("CoreV1Api", "namespace", False),
    "Node": _Resource("CoreV1Api", "node", False),
    "Pod": _Resource("CoreV1Api", "pod", True),
    "Secret": _Resource("CoreV1Api", "secret", True),
    "Service": _Resource("CoreV1Api", "service", True),
    "ResourceQuota": _Resource("CoreV1Api", "resource_quota", True),
    "ServiceAccount": _Resource("CoreV1Api", "service_account", True),
    "Event": _Resource("EventsV1Api", "event", True),
    "DaemonSet": _Resource("AppsV1Api", "daemon_set", True),
    "NetworkPolicy": _Resource("NetworkingV1Api", "network_policy", True),
    "ClusterRole": _Resource("RbacAuthorizationV1Api", "cluster_role", False),
    "ClusterRoleBinding": _Resource("RbacAuthorizationV1Api", "cluster_role_binding", False),
    "Job": _Resource("BatchV1Api", "job", True),
}


class Change(NamedTuple):
    """An event of a watch: `type` is ADDED, MODIFIED or DELETED."""

    type: str
    object: Object


@contextlib.asynccontextmanager
async def open_cluster(access: Access, clock: Clock | None = None) -> AsyncIterator[Cluster]:
    """Connect to the cluster that the flags name.

    Raises:
        SpecError: there is no such context, it is not ours, or its credentials do not load.
    """
    context = access.check()
    settings = client.Configuration()
    loader = None
    try:
        if context == IN_CLUSTER:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]  # typed in part
        else:
            loader = await config.load_kube_config(
                access.files, context, client_configuration=settings, persist_config=False
            )
    except (config.ConfigException, OSError, ValueError, KeyError) as error:
        raise SpecError(f"context {context}: its credentials do not load: {error}") from error
    refreshing = asyncio.create_task(_refresh(loader, settings), name="credentials") if loader else None
    try:
        async with client.ApiClient(settings) as api:
            yield Cluster(context, api, clock or SystemClock())
    finally:
        if refreshing is not None:
            refreshing.cancel()
            await asyncio.wait({refreshing})


async def _refresh(loader: Any, settings: client.Configuration) -> None:
    """Keep plugins' short-lived credentials fresh; ends at once where there are none."""
    await config.refresh_token(loader, settings, interval=REFRESH_S)


class Cluster:
    """One cluster's API.

    Args:
        context: the name of its context.
        api: the connected client.
        clock: measures patience.
    """

    def __init__(self, context: str, api: client.ApiClient, clock: Clock) -> None:
        self.context = context
        self._api, self._clock = api, clock
        self._groups: dict[str, Any] = {}
        self._away_ns: int | None = None

    async def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """The object, or None where there is none."""
        try:
            return await self._call(kind, "read", name, namespace=namespace)
        except Refused as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def list(
        self, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """All objects that match; without `namespace`, of all namespaces."""
        items: list[Object] = (await self._list(kind, namespace, labels, fields))["items"]
        return items

    async def apply(self, wanted: Object, *, dry_run: bool = False) -> Object:
        """Server-side apply: create it, or make it what is wanted.

        Raises:
            Refused: quota, admission or rights forbid it, or it is not valid.
            ClusterError: the API server does not answer.
        """
        metadata = wanted["metadata"]
        return await self._call(
            wanted["kind"],
            "patch",
            metadata["name"],
            namespace=metadata.get("namespace", ""),
            body=wanted,
            field_manager=FIELD_MANAGER,
            force=True,
            _content_type=APPLY,
            **({"dry_run": "All"} if dry_run else {}),
        )

    async def delete(self, kind: str, name: str, namespace: str = "", *, grace_s: int | None = None) -> bool:
        """Delete it in the background; False where there is none. `grace_s`: None is the pod's own grace period."""
        options = client.V1DeleteOptions(grace_period_seconds=grace_s, propagation_policy="Background")
        try:
            await self._call(kind, "delete", name, namespace=namespace, body=options)
        except Refused as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True

    async def delete_all(self, kind: str, namespace: str, labels: str, *, grace_s: int | None = None) -> None:
        """Delete all objects that match, in one call."""
        resource = _RESOURCES[kind]
        call = getattr(self._group(resource.api), f"delete_collection_namespaced_{resource.name}")
        options = client.V1DeleteOptions(grace_period_seconds=grace_s, propagation_policy="Background")
        await self._patiently(
            f"delete {kind} {labels}",
            lambda: call(namespace, label_selector=labels, body=options, **_RAW),
        )

    async def may(self, verb: str, group: str, resource: str, namespace: str = "", *, name: str = "") -> bool:
        """Whether we have a right: `resource` may have a subresource, as in `pods/proxy`; `name`: on that object."""
        kind, _, sub = resource.partition("/")
        attributes = {
            "verb": verb,
            "group": group,
            "resource": kind,
            "subresource": sub,
            "namespace": namespace,
            "name": name,
        }
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        review = body | {"spec": {"resourceAttributes": attributes}}
        call = self._group("AuthorizationV1Api").create_self_subject_access_review
        answer = await self._patiently("ask for rights", lambda: call(review, **_RAW))
        return bool(answer["status"].get("allowed"))

    async def version(self) -> str:
        """The API server's version, such as v1.36.3."""
        answer = await self._patiently(
            "ask for the version", lambda: self._group("VersionApi").get_code(**_RAW)
        )
        return str(answer["gitVersion"])

    async def groups(self) -> set[str]:
        """The API groups that are served, such as apps."""
        answer = await self._patiently(
            "list the API groups", lambda: self._group("ApisApi").get_api_versions(**_RAW)
        )
        return {str(group["name"]) for group in answer["groups"]}

    async def watch(
        self,
        kind: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        known: dict[str, Object] | None = None,
    ) -> AsyncIterator[Change]:
        """What is there, as ADDED, and then every change, without end: bound it from outside.

        A watch that ends, breaks or is too old for the server is begun anew with a list; what changed meanwhile is told.

        Args:
            kind: of the objects.
            namespace: of all namespaces without one.
            labels: a selector.
            fields: a selector.
            known: the objects by UID, kept up to date; what is in it at first is taken as told.

        Raises:
            Refused: the API server says no.
            ClusterError: it does not answer. Call again with the same `known`, and nothing is missed.
        """
        known = {} if known is None else known
        patience = Patience(self._clock, PATIENCE_NS)
        while True:
            listed = await self._list(kind, namespace, labels, fields)
            patience.answered()
            for change in relisted(known, listed["items"]):
                yield change
            version = listed["metadata"]["resourceVersion"]
            try:
                async for change in self._watch_once(kind, namespace, labels, fields, version):
                    _keep(known, change)
                    yield change
            except Refused as error:
                if error.status == GONE:
                    continue
                if not self._may_pass(error):
                    raise
                await patience.pause(error)
            except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: cut off within a line
                self._away_ns = self._clock.monotonic_ns()
                await patience.pause(self._unreachable(error))

    async def _watch_once(
        self, kind: str, namespace: str, labels: str, fields: str, version: str
    ) -> AsyncIterator[Change]:
        """One request, without end but by its time. The client's own Watch makes a client, with TLS, each time."""
        call, arguments = self._listing(kind, namespace)
        selectors = {"label_selector": labels or None, "field_selector": fields or None}
        more = {"watch": True, "resource_version": version, "timeout_seconds": WATCH_S}
        request_s = {"_preload_content": False, "_request_timeout": WATCH_S + CALL_S}
        response = await call(*arguments, **selectors, **more, **request_s)
        async with response:
            if response.status >= 400:
                raise refused(f"watch {kind}", response.status, said(await response.text()))
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise refused(f"watch {kind}", int(status.get("code", 0)), str(status.get("message")))
                yield Change(event["type"], event["object"])

    def proxied(
        self, namespace: str, pod: str, port: int
    ) -> tuple[str, dict[str, str], ssl.SSLContext | None]:
        """How to reach a pod's port over HTTP through the API server: base URL, headers, TLS."""
        settings = self._api.configuration
        url = f"{settings.host}/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy"
        headers = {name: str(value) for name, value in self._authorization().items()}
        connector = self._api.rest_client.pool_manager.connector
        tls = getattr(connector, "_ssl", None)
        return url, headers, tls if isinstance(tls, ssl.SSLContext) else None

    def _authorization(self) -> dict[str, str]:
        settings = self._api.configuration
        token = settings.api_key.get("BearerToken")
        if token:
            return {"Authorization": token}
        if settings.username:
            pair = f"{settings.username}:{settings.password}".encode()
            return {"Authorization": "Basic " + base64.b64encode(pair).decode()}
        return {}

    async def _list(self, kind: str, namespace: str, labels: str, fields: str) -> Object:
        call, arguments = self._listing(kind, namespace)
        return await self._patiently(
            f"list {kind}",
            lambda: call(*arguments, label_selector=labels or None, field_selector=fields or None, **_RAW),
        )

    def _listing(self, kind: str, namespace: str) -> tuple[Callable[..., Any], tuple[str, ...]]:
        resource = _RESOURCES[kind]
        api = self._group(resource.api)
        if not resource.namespaced:
            return getattr(api, f"list_{resource.name}"), ()
        if namespace:
            return getattr(api, f"list_namespaced_{resource.name}"), (namespace,)
        return getattr(api, f"list_{resource.name}_for_all_namespaces"), ()

    async def _call(
        self, kind: str, verb: str, name: str, *, namespace: str, body: Any = None, **more: Any
    ) -> Object:
        resource = _RESOURCES[kind]
        middle = "namespaced_" if resource.namespaced else ""
        call = getattr(self._group(resource.api), f"{verb}_{middle}{resource.name}")
        arguments = [name, *([namespace] if resource.namespaced else [])]
        if body is not None:
            more["body"] = body
        return await self._patiently(f"{verb} {kind} {name}", lambda: call(*arguments, **more, **_RAW))

    async def _patiently(self, what: str, call: Callable[[], Awaitable[aiohttp.ClientResponse]]) -> Object:
        """Call until an answer comes; every call here may be repeated.

        Raises:
            Refused: the API server says no.
            ClusterError: it does not answer.
        """
        patience = Patience(self._clock, PATIENCE_NS)
        while True:
            try:
                async with await call() as response:
                    text = await response.text()
                if response.status < 400:
                    answer: Object = json.loads(text)
                    return answer
                error = refused(what, response.status, said(text))
                if not self._may_pass(error):
                    raise error
                await patience.pause(error)
            except (aiohttp.ClientError, OSError) as unreachable:
                self._away_ns = self._clock.monotonic_ns()
                if isinstance(unreachable, aiohttp.ClientConnectorCertificateError):
                    raise self._unreachable(unreachable) from unreachable
                await patience.pause(self._unreachable(unreachable))

    def _may_pass(self, error: Refused) -> bool:
        """Whether to ask again. An API server that was away a moment ago may not have read all roles and bindings yet."""
        if error.status not in (401, 403) or self._away_ns is None:
            return passes(error)
        return passes(error) or self._clock.monotonic_ns() - self._away_ns < SETTLING_NS

    def _unreachable(self, error: Exception) -> ClusterError:
        cause = f"no answer within {CALL_S:g} s" if isinstance(error, TimeoutError) else str(error)
        return ClusterError(
            f"the API server of {self.context} at {self._api.configuration.host} is out of reach: {cause}; "
            f"see whether the cluster runs"
        )

    def _group(self, name: str) -> Any:
        if name not in self._groups:
            self._groups[name] = getattr(client, name)(self._api)
        return self._groups[name]


_RAW: Mapping[str, Any] = {"_preload_content": False, "_request_timeout": CALL_S}


async def apply_all(cluster: Cluster, wanted: Iterable[Object], *, dry_run: bool = False) -> list[Object]:
    """Apply objects together; what they have become, in their order.

    Raises:
        Refused: one is not let in.
        ClusterError: the API server does not answer.
    """
    calls = {
        f"apply {one['kind']} {one['metadata']['name']}": cluster.apply(one, dry_run=dry_run)
        for one in wanted
    }
    return await all_of(calls)


def relisted(known: dict[str, Object], items: list[Object]) -> list[Change]:
    """What must have happened between what was `known` (by UID; brought up to date here) and what is there now."""
    there = {item["metadata"]["uid"]: item for item in items}
    changes = [Change("DELETED", known[uid]) for uid in known.keys() - there.keys()]
    for uid, item in there.items():
        if uid not in known:
            changes.append(Change("ADDED", item))
        elif known[uid]["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            changes.append(Change("MODIFIED", item))
    known.clear()
    known.update(there)
    return changes


def _keep(known: dict[str, Object], change: Change) -> None:
    uid = change.object["metadata"]["uid"]
    if change.type == "DELETED":
        known.pop(uid, None)
    else:
        known[uid] = change.object
