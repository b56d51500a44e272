"""Noise and decoys as pods, and what the noise did by its own account."""

from __future__ import annotations

from collections.abc import Sequence

from kabench.backends.base import NoiseWork
from kabench.backends.kubernetes.api import Cluster
from kabench.backends.kubernetes.ending import end_pods
from kabench.backends.kubernetes.losses import Losses
from kabench.backends.kubernetes.naming import DECOY, NOISE
from kabench.backends.kubernetes.objects import RunSetup, decoy_pods, noise_pods
from kabench.backends.kubernetes.pods import Pod
from kabench.backends.kubernetes.table import PodTable
from kabench.backends.stressors import stress_ng_account
from kabench.backends.tasks import all_of
from kabench.errors import ClusterError

START_S = 30.0


class NoiseMaker:
    """The noise of one round at a time."""

    def __init__(self, cluster: Cluster, table: PodTable, setup: RunSetup, losses: Losses) -> None:
        self._cluster, self._table, self._setup, self._losses = cluster, table, setup, losses
        self._started: dict[str, str] = {}
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
        wanted = [
            *noise_pods(self._setup, noisy, seconds, window),
            *decoy_pods(self._setup, decoys, seconds, window),
        ]
        made = await all_of({pod["metadata"]["name"]: self._cluster.apply(pod) for pod in wanted})
        uids = [one["metadata"]["uid"] for one in made]
        for one in made:
            pod = Pod(one)
            if pod.role == NOISE:
                self._started[pod.uid] = pod.label("workload")

        def check() -> bool | None:
            found = [self._table.pods.get(uid) for uid in uids]
            for pod in found:
                if pod is not None and not pod.running:
                    self._table.check(pod)
            return True if all(pod is not None and pod.running for pod in found) else None

        def why() -> str:
            found = [self._table.pods.get(uid) for uid in uids]
            late = [pod.name for pod in found if pod is not None and not pod.running]
            return f"the noise does not run after {START_S:g} s: {', '.join(late) or 'its pods are gone'}"

        await self._table.until(check, START_S, why)

    async def stop(self) -> list[NoiseWork]:
        """End noise and decoys; what each stressor did stands in its pod's last status."""
        started, self._started = self._started, {}
        left_out, self._left_out = self._left_out, []
        before = {pod.uid: pod for pod in self._table.of(NOISE)}
        early = {uid for uid, pod in before.items() if pod.end or pod.ending}
        await end_pods(self._cluster, self._table, self._setup, self._losses, NOISE, DECOY)
        work = []
        for uid, stressor in started.items():
            last = self._table.gone.get(uid) or self._table.pods.get(uid) or before.get(uid)
            if last is not None:
                work.append(_work(last, stressor, uid in early or uid not in before))
        self._table.forget(*list(self._table.gone))
        missing = [NoiseWork(node, "", "", 0.0, None, None, "out of reach: no noise") for node in left_out]
        return sorted([*work, *missing], key=lambda one: (one.node, one.stressor))


def _work(last: Pod, stressor: str, early: bool) -> NoiseWork:
    account = stress_ng_account(last.last_words)
    notes = ["" if account else "it left no account of its work"]
    notes.append(f"ended early: {last.end or 'the pod was deleted'}" if early else "")
    return NoiseWork(
        node=last.node,
        stressor=stressor,
        tool=f"stress-ng {account.version}".strip() if account else "stress-ng",
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
