"""Noise and decoys as pods, and what the noise did by its own account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kabench.backends.base import NoiseWork
from kabench.backends.kubernetes.api import Cluster, apply_all
from kabench.backends.kubernetes.ending import end_each, end_pods
from kabench.backends.kubernetes.losses import Losses
from kabench.backends.kubernetes.manifests import Object
from kabench.backends.kubernetes.naming import DECOY, NOISE, WORKLOAD
from kabench.backends.kubernetes.objects import MOST_NOISE_S, RunSetup, decoy_pods, noise_pods
from kabench.backends.kubernetes.pods import Pod
from kabench.backends.kubernetes.table import PodTable
from kabench.backends.stressors import stress_ng_account
from kabench.backends.tasks import all_of
from kabench.clock import Clock
from kabench.core.spec import NS_PER_S
from kabench.errors import ClusterError

START_S = 30.0


@dataclass(frozen=True)
class _Decoys:
    """Those on one node, and when they were made; monotonic."""

    uids: tuple[str, ...]
    made_ns: int


class NoiseMaker:
    """The noise of one round at a time, and the decoys.

    Decoys stay where they are wanted in the next round too, idle as they are: ended and made anew, they would cost a
    round two fifths of its pods, and the quiet nodes the work of both.
    """

    def __init__(
        self, cluster: Cluster, table: PodTable, setup: RunSetup, losses: Losses, clock: Clock
    ) -> None:
        self._cluster, self._table, self._setup = cluster, table, setup
        self._losses, self._clock = losses, clock
        self._started: dict[str, str] = {}
        self._decoys: dict[str, _Decoys] = {}
        self._left_out: list[str] = []

    async def start(
        self, noisy: Sequence[str], decoys: Sequence[str], left_out: Sequence[str], seconds: int, window: str
    ) -> None:
        """Bring noise and decoys up on nodes given by hostname, and wait until they run.

        Args:
            noisy: where the noise goes.
            decoys: where the decoys go.
            left_out: noisy nodes that are out of reach, for the record.
            seconds: after which it ends by itself.
            window: for the pods' names.

        Raises:
            SpecError: an image is not to be had.
            ClusterError: one does not start.
        """
        self._left_out = list(left_out)
        await self._end_decoys([host for host in self._decoys if not self._lasts(host, decoys, seconds)])
        fresh = [host for host in decoys if host not in self._decoys]
        wanted = {host: decoy_pods(self._setup, [host], MOST_NOISE_S, window) for host in fresh}
        noise, *made = await all_of(
            {
                "noise": self._apply(noise_pods(self._setup, noisy, seconds, window)),
                **{f"decoys on {host}": self._apply(pods) for host, pods in wanted.items()},
            }
        )
        self._started.update({pod.uid: pod.label(WORKLOAD) for pod in noise})
        now_ns = self._clock.monotonic_ns()
        for host, pods in zip(fresh, made, strict=True):
            self._decoys[host] = _Decoys(tuple(pod.uid for pod in pods), now_ns)
        uids = [*self._started, *(uid for one in self._decoys.values() for uid in one.uids)]
        await self._table.until(lambda: self._all_run(uids), START_S, lambda: self._late(uids))

    async def stop(self) -> list[NoiseWork]:
        """End the noise; what each stressor did stands in its pod's last status."""
        started, self._started = self._started, {}
        left_out, self._left_out = self._left_out, []
        before = {pod.uid: pod for pod in self._table.of(NOISE)}
        early = {uid for uid, pod in before.items() if pod.end or pod.ending}
        await end_pods(self._cluster, self._table, self._setup, self._losses, NOISE)
        work = []
        for uid, stressor in started.items():
            last = self._table.gone.get(uid) or before.get(uid)
            if last is not None:
                work.append(_work(last, stressor, uid in early or uid not in before))
        self._table.forget(*list(self._table.gone))
        missing = [NoiseWork(node, "", "", 0.0, None, None, "out of reach: no noise") for node in left_out]
        return sorted([*work, *missing], key=lambda one: (one.node, one.stressor))

    async def _apply(self, pods: Sequence[Object]) -> list[Pod]:
        return [Pod(one) for one in await apply_all(self._cluster, pods)]

    def _lasts(self, host: str, wanted: Sequence[str], seconds: int) -> bool:
        """Whether the decoys on a node are wanted, there, and young enough to outlive another round."""
        decoys = self._decoys[host]
        pods = [self._table.pods.get(uid) for uid in decoys.uids]
        age_s = (self._clock.monotonic_ns() - decoys.made_ns) / NS_PER_S
        there = all(pod is not None and pod.running and not pod.ending for pod in pods)
        return host in wanted and there and age_s + seconds < MOST_NOISE_S

    async def _end_decoys(self, hosts: Sequence[str]) -> None:
        """End those on these nodes, and those of a start that was broken off."""
        for host in hosts:
            del self._decoys[host]
        kept = {uid for one in self._decoys.values() for uid in one.uids}
        ending = [pod for pod in self._table.of(DECOY) if pod.uid not in kept]
        await end_each(self._cluster, self._table, self._setup, self._losses, ending)

    def _all_run(self, uids: Sequence[str]) -> bool | None:
        found = [self._table.pods.get(uid) for uid in uids]
        for pod in found:
            if pod is not None and not pod.running:
                self._table.check(pod)
        return True if all(pod is not None and pod.running for pod in found) else None

    def _late(self, uids: Sequence[str]) -> str:
        found = [self._table.pods.get(uid) for uid in uids]
        late = [pod for pod in found if pod is not None and not pod.running]
        why = next((pod.trouble.text for pod in late if pod.trouble), ", ".join(pod.name for pod in late))
        return f"the noise does not run after {START_S:g} s: {why or 'its pods are gone'}"


def _work(last: Pod, stressor: str, early: bool) -> NoiseWork:
    account = stress_ng_account(last.last_words)
    notes = ["" if account else "it left no account of its work"]
    notes.append(f"ended early: {last.end or 'the pod was deleted'}" if early else "")
    return NoiseWork(
        node=last.node,
        stressor=stressor,
        tool=f"stress-ng {account.version}".strip() if account else "unknown",
        seconds=round(account.seconds, 3) if account else 0.0,
        ops=account.ops if account else None,
        cpu_seconds=account.cpu_seconds if account else None,
        note="; ".join(filter(None, notes)),
    )


def require_room(seconds: float, most: float) -> int:
    """Seconds that the noise of a round lasts at most.

    Raises:
        ClusterError: it is more than noise may last.
    """
    if seconds > most:
        raise ClusterError(
            f"a round of {seconds:.0f} s is longer than noise may last ({most:.0f} s); shorten timing.window_s"
        )
    return round(seconds)
