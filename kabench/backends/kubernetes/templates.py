"""What runs in a pod: from the manifests with the scenario's figures, or from a manifest of the user's. Pure.

Where it runs, under which name and scheduler, is a round's, and stands in `objects`.
"""

from __future__ import annotations

import copy
from typing import Any

from kabench.backends.kubernetes.manifests import Object, load
from kabench.backends.kubernetes.naming import HTTP_PORT, REDIS_PORT
from kabench.backends.stressors import MAX_CACHE, stress_ng_arguments, stress_ng_bytes
from kabench.core.identity import Kind
from kabench.core.quantities import MIB, amounts_of, mib, millis
from kabench.core.spec import Kubernetes, OwnPod, Requests, Stressor, Target

TARGET_ROOM_MIB = 192
"""A target's memory limit is so much above its request and its data: interpreters, connections, buffers."""

REDIS_KEY_BYTES = 256
"""What a key takes beside its value, at most, and twice both for what the allocator leaves unused."""

NOISE_ROOM_MIB = 128
LARGEST_CACHE_MIB = 1280
"""stress-ng's cache stressor takes the last-level cache's own size; virtual machines tell of up to 1 GiB and a little."""

TARGET_GRACE_S, NOISE_GRACE_S = 1, 3
"""For own pods that give none, as the manifests of the built-in ones have it: Kubernetes' 30 s would be waited for in every
round by what does not handle SIGTERM."""


def target_pod(target: Target, kubernetes: Kubernetes) -> Object:
    """A replica of a target."""
    if target.pod is not None:
        return _own_pod(target.pod, TARGET_GRACE_S)
    redis = target.kind == Kind.REDIS
    pod = load("redis-target" if redis else "http-target")
    use_image(pod, kubernetes.images.redis if redis else kubernetes.images.agent, kubernetes.pull_policy)
    [container] = pod["spec"]["containers"]
    if not redis:
        arguments = container["args"]
        arguments[arguments.index("--cpu-us") + 1] = str(target.http.cpu_us)
    limit_mib = target.requests.memory_mib + TARGET_ROOM_MIB + _data_mib(target)
    set_resources(container, target.requests, limit_mib)
    return pod


def target_port(target: Target) -> int:
    """Where a replica listens."""
    if target.pod is not None:
        return target.pod.port
    return REDIS_PORT if target.kind == Kind.REDIS else HTTP_PORT


def noise_pod(stressor: Stressor, kubernetes: Kubernetes, seconds: int, cache_bytes: int) -> Object:
    """A stressor at work; a built-in one for `seconds`, an own one as long as it likes."""
    if stressor.pod is not None:
        return _own_pod(stressor.pod, NOISE_GRACE_S)
    pod = load(stressor.kind)
    use_image(pod, kubernetes.images.noise, kubernetes.pull_policy)
    [container] = pod["spec"]["containers"]
    bounded = min(cache_bytes, MAX_CACHE)
    report = container["terminationMessagePath"]
    container["args"] = stress_ng_arguments(stressor, seconds, bounded, "/dev/shm", report)
    set_resources(container, stressor.requests, noise_limit_mib(stressor, bounded))
    return pod


def decoy_pod(stressor: Stressor, kubernetes: Kubernetes) -> Object:
    """What a scheduler takes for that stressor, and idle."""
    pod = load("decoy")
    use_image(pod, kubernetes.images.agent, kubernetes.pull_policy)
    [container] = pod["spec"]["containers"]
    set_resources(container, stressor.requests, stressor.requests.memory_mib + NOISE_ROOM_MIB)
    return pod


def noise_limit_mib(stressor: Stressor, cache_bytes: int) -> int:
    """The memory limit of a noise pod in MiB."""
    if stressor.pod is not None:
        return amounts_of(stressor.pod.template["spec"]).limit_mib
    takes_mib = stress_ng_bytes(stressor, cache_bytes) // MIB
    if stressor.kind == "stress-cache":
        takes_mib = max(takes_mib, LARGEST_CACHE_MIB)
    return max(takes_mib, stressor.requests.memory_mib) + NOISE_ROOM_MIB


def noise_workers(stressor: Stressor) -> int:
    """How many CPUs a stressor may keep busy; of an own one only its request is known."""
    if stressor.pod is None:
        return stressor.workers
    return -(-stressor.requests.cpu_millis // 1000)


def use_image(pod: Object, image: str, pull_policy: str) -> None:
    """Give all containers the image."""
    for container in pod["spec"]["containers"]:
        container["image"] = image
        container["imagePullPolicy"] = pull_policy


def set_resources(container: Object, requests: Requests, limit_mib: int) -> None:
    """Requests of CPU and memory, written out where they are 0 (else the limit would be taken); no CPU limit."""
    container["resources"] = {
        "requests": {"cpu": millis(requests.cpu_millis), "memory": mib(requests.memory_mib)},
        "limits": {"memory": mib(limit_mib)},
    }


def _own_pod(own: OwnPod, grace_s: int) -> Object:
    """The user's template, and no more than a pod of a round needs beside it; the rest is left as it stands."""
    template: dict[str, Any] = copy.deepcopy(own.template)
    template["spec"] |= {"restartPolicy": "Never"}
    template["spec"].setdefault("terminationGracePeriodSeconds", grace_s)
    return {"apiVersion": "v1", "kind": "Pod", **template}


def _data_mib(target: Target) -> int:
    """Memory that a Redis target's keys may take."""
    if target.kind != Kind.REDIS:
        return 0
    values = target.redis.keys * target.redis.values_a_key
    return 2 * values * (target.redis.value_bytes + REDIS_KEY_BYTES) // MIB
