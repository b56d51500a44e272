"""What may be said of a comparison, in words: verdicts, the headline and the notes beside it.

A verdict (better, worse, equivalent, inconclusive) needs controls that worked: the oracle arms lie apart, so this host can
separate its nodes, and the A/A pair does not, so the noise floor is below what is claimed. Without them a run reports a
*difference*, or that none was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kabench.analysis.inference import ALPHA, blocks_needed, smallest_effect
from kabench.analysis.words import bound_of, capital, change, signed_percent, span, was_decided_by
from kabench.analysis.work import noise_work
from kabench.core.result import (
    BlockRecord,
    Contrast,
    KindComparison,
    NodeRecord,
    PlacementAccuracy,
    RoundRecord,
    Verdict,
)
from kabench.core.spec import NS_PER_MS

ERRORS_ALLOWED = 0.001
"""An arm with a larger share of errors cannot be called better: what fails is not in its response times."""

NO_WIN = "so it cannot be called better"

VOIDS_APART = 2
"""Blocks voided on account of one arm more than of the other from which on the voiding counts as unequal. A single void
block falls on one arm by necessity."""


CONTROLS = {"oracle": "oracle arms", "a/a": "A/A arm"}
"""The roles of the contrasts that a verdict needs, in words."""

BUSY_CODES = frozenset({"lag", "strangers"})
WHEN_BUSY = (
    "This machine, or the host it shares, was too busy for these gates: run again when it is quiet, or ask for less in a "
    "scenario with wider gates (kabench scenario show seed)."
)
"""What to do about a run that others made void."""


@dataclass(frozen=True)
class RunFacts:
    """All that is known when the words are chosen."""

    scenario: Mapping[str, Any]
    placement_note: str
    blocks: Sequence[BlockRecord]
    rounds: Sequence[RoundRecord]
    contrasts: Sequence[Contrast]
    accuracy: Sequence[PlacementAccuracy]
    nodes: Sequence[NodeRecord] = ()

    def contrast(self, role: str) -> Contrast | None:
        """The contrast with that role, if the run has it."""
        return next((contrast for contrast in self.contrasts if contrast.role == role), None)

    def control(self, role: str, kind: str) -> KindComparison | None:
        """A control's comparison for one kind; None unless it has an interval."""
        contrast = self.contrast(role)
        found = next((k for k in contrast.kinds if k.kind == kind), None) if contrast else None
        return found if found and found.low is not None and not found.withheld else None

    @property
    def valid(self) -> list[BlockRecord]:
        """The blocks that count."""
        return [block for block in self.blocks if block.valid]

    @property
    def margin(self) -> float:
        """Within 1/(1+m) … 1+m two arms are equivalent."""
        return float(self.scenario["gates"]["equivalence_margin"])


def verdicts(run: RunFacts) -> list[Verdict]:
    """One for each kind of the effect contrast."""
    effect = run.contrast("effect")
    return [_Judgement(run, effect, kind).verdict() for kind in effect.kinds] if effect else []


class _Judgement:
    """One kind of the effect contrast, on the way to its verdict."""

    def __init__(self, run: RunFacts, effect: Contrast, kind: KindComparison) -> None:
        self._run, self._effect, self._kind = run, effect, kind
        self._kinds = len(effect.kinds)

    def verdict(self) -> Verdict:
        """Outcome and sentence; the smallest effect where blocks suffice."""
        logs = [point.log_ratio for point in self._kind.blocks]
        outcome, reason = self._outcome()
        sentence = (
            f"{self._kind.kind}: {self._finding()}; {reason}." if logs else f"{self._kind.kind}: {reason}."
        )
        bound = bound_of(self._run.scenario, self._effect.b)
        if bound and outcome in ("better", "worse"):
            outcome = "headroom"
        if bound and logs:
            sentence += f" {capital(self._effect.b)} is {bound}, and no scheduler."
        return Verdict(self._kind.kind, outcome, sentence, smallest_effect(logs, self._kinds))

    def _finding(self) -> str:
        kind, effect = self._kind, self._effect
        assert kind.ratio is not None
        found = f"p99 response time of {effect.b} {change(kind.ratio)} {effect.a}'s"
        if kind.low is None or kind.high is None:
            return f"{found} over {len(kind.blocks)} blocks, too few for an interval"
        p = f", p {kind.p_holm:.3f}" if kind.p_holm is not None else ""
        return f"{found} (95% interval {span(kind.low, kind.high)}, {len(kind.blocks)} blocks{p})"

    def _outcome(self) -> tuple[str, str]:
        if self._kind.withheld:
            return "none", self._kind.withheld
        unequal = unequal_voids(self._run.blocks, self._effect.a, self._effect.b)
        if unequal:
            return "none", unequal
        controls = missing_controls(self._run, self._kind.kind)
        differs, why = self._difference()
        if differs and self._winner_fails():
            return ("none" if controls else "inconclusive"), self._winner_fails()
        if controls:
            return (
                "difference" if differs else "no difference found"
            ), f"{why}; no verdict, since {controls}"
        if self._equivalent():
            return "equivalent", f"equivalent within {self._run.margin:.0%}, in response and service time"
        if not differs:
            return "inconclusive", why
        return ("better" if self._lower() else "worse"), why

    def _lower(self) -> bool:
        return self._kind.ratio is not None and self._kind.ratio < 1

    def _difference(self) -> tuple[bool, str]:
        """Whether response and service time both show the same difference, and that in words."""
        kind = self._kind
        if kind.p_holm is None or kind.p_holm > ALPHA:
            return False, "no difference found"
        if kind.service_low is None or kind.service_high is None:
            return False, "service time has too few samples to confirm it"
        if not (kind.service_high < 1 if self._lower() else kind.service_low > 1):
            return False, "the service time does not show it, so it is not claimed"
        return True, "the service time shows it too"

    def _winner_fails(self) -> str:
        """Why the arm that looks better cannot be called so; "" where it can."""
        kind, effect = self._kind, self._effect
        name, share = (effect.b, kind.b_error_share) if self._lower() else (effect.a, kind.a_error_share)
        if share > ERRORS_ALLOWED:
            return f"{name} has {share:.2%} errors, {NO_WIN}"
        pending = {entry.phase: entry.unplaced for entry in self._run.accuracy}
        if pending.get(name, 0) > min(pending.get(effect.a, 0), pending.get(effect.b, 0)):
            return f"{name} left {pending[name]} targets pending, {NO_WIN}"
        return ""

    def _equivalent(self) -> bool:
        limits = 1 / (1 + self._run.margin), 1 + self._run.margin
        ends = (self._kind.low, self._kind.high, self._kind.service_low, self._kind.service_high)
        return all(end is not None and limits[0] <= end <= limits[1] for end in ends)


def missing_controls(run: RunFacts, kind: str) -> str:
    """Why the controls allow no verdict on `kind`; "" where they do."""
    missing = [words for role, words in CONTROLS.items() if run.contrast(role) is None]
    if len(missing) == len(CONTROLS):
        return "the run has no controls (oracle and A/A arms)"
    if missing:
        return f"the run has no {missing[0]}"
    oracle, same = run.control("oracle", kind), run.control("a/a", kind)
    if oracle is None or same is None:
        return "the controls have too few blocks"
    if oracle.high is None or oracle.high >= 1:
        return "the oracle arms do not differ: this host cannot separate its nodes"
    if same.p is not None and same.p <= ALPHA:
        return "two arms with the same placement differ (A/A)"
    return ""


def unequal_voids(blocks: Sequence[BlockRecord], a: str, b: str) -> str:
    """In words, that blocks were voided on account of one arm more than of the other; "" where not."""
    counts = void_phases(blocks)
    if abs(counts[a] - counts[b]) < VOIDS_APART:
        return ""
    return f"blocks were voided unequally ({counts[a]} for {a}, {counts[b]} for {b})"


def void_phases(blocks: Sequence[BlockRecord]) -> Counter[str]:
    """How many void blocks each phase gave a reason for."""
    return Counter(phase for block in blocks for phase in {r.phase for r in block.void if r.phase})


def headline(run: RunFacts, found: Sequence[Verdict]) -> str:
    """One sentence, no stronger than what the run allows."""
    plain = _plain_headline(run)
    if plain:
        return plain
    effect = run.contrast("effect")
    assert effect is not None
    by_kind = {verdict.kind: verdict for verdict in found}
    outcomes = {verdict.outcome for verdict in found}
    bound = bound_of(run.scenario, effect.b)
    parts = [f"{kind.kind} {_brief(kind, by_kind[kind.kind])}" for kind in effect.kinds]
    subject = f"{capital(bound)} ({effect.b})" if bound else effect.b
    start = f"{subject} against {effect.a}, p99 response time: "
    if run.placement_note:
        start = f"{capital(run.placement_note)}: {start}"
    no_verdict = {"difference", "no difference found"} & outcomes
    why = missing_controls(run, effect.kinds[0].kind) if no_verdict else ""
    end = f" No verdict: {why}." if why else ""
    if bound:
        end += " No second scheduler was compared."
    return f"{start}{'; '.join(parts)}.{end}"


def _plain_headline(run: RunFacts) -> str:
    """What there is to say where nothing can be compared; "" where something can."""
    if not run.blocks:
        return "Nothing was measured."
    if not run.valid:
        codes = Counter(code for block in run.blocks for code in {reason.code for reason in block.void})
        most = f" (most often: {codes.most_common(1)[0][0]})" if codes else ""
        return f"Void: none of {len(run.blocks)} blocks is valid{most}, so nothing can be compared."
    if not any(role == "quiet" for block in run.valid for role in block.roles.values()):
        return "No headline: no node was quiet, so every agent's own delay follows the noise."
    effect = run.contrast("effect")
    if effect is None:
        phases = [str(phase["name"]) for phase in run.scenario["phases"]]
        if len(phases) == 1:
            return f"Described, not compared: {phases[0]} is the only phase."
        return f"Described, not compared: {phases[0]} and {phases[1]} are placed in the same way."
    if not effect.kinds:
        return "No headline: nothing was measured in the valid blocks."
    if all(kind.withheld for kind in effect.kinds):
        needed = blocks_needed(len(effect.kinds))
        if len(run.valid) < needed:
            return f"Too few blocks to compare: {len(run.valid)} valid, {needed} needed."
        return f"No headline: {effect.kinds[0].withheld}."
    return ""


def _brief(kind: KindComparison, verdict: Verdict) -> str:
    if kind.ratio is None or kind.low is None or kind.high is None or kind.withheld:
        return f"not compared ({kind.withheld})"
    amount = f"{signed_percent(kind.ratio)} [{signed_percent(kind.low)}, {signed_percent(kind.high)}]"
    if verdict.sentence.endswith(f"{NO_WIN}."):
        return f"{amount}, which is not claimed: {verdict.sentence.rpartition('; ')[2].removesuffix('.')}"
    unclaimed = verdict.outcome in ("no difference found", "inconclusive")
    if unclaimed and kind.p_holm is not None and kind.p_holm <= ALPHA:
        return f"{amount} in response time, which the service time does not show: not claimed"
    words = {
        "better": f"better, {amount}",
        "worse": f"worse, {amount}",
        "headroom": amount,
        "equivalent": f"equivalent ({amount})",
        "inconclusive": f"inconclusive ({amount})",
        "difference": amount,
        "no difference found": f"no difference found ({amount})",
        "none": f"no statement ({amount})",
    }
    return words[verdict.outcome]


def notes(run: RunFacts) -> list[str]:
    """What a reader must know beside the headline."""
    found = [
        _setting(run),
        _voids(run),
        _strangers(run),
        *_arms(run),
        *_controls(run),
        *_withheld(run),
        *_price(run),
    ]
    return [note for note in found if note]


def _setting(run: RunFacts) -> str:
    if not run.placement_note:
        return _machines(run)
    text = f"{capital(run.placement_note)}: latencies are real, but this is no evidence about Kubernetes."
    if run.scenario["noise"]["nodes"]:
        text += " Stressors share their targets' CPUs, so an effect is CPU contention before all else."
    return text


def _machines(run: RunFacts) -> str:
    """Nodes of one boot id are one machine, whatever a cluster calls them."""
    machines = len({node.boot_id for node in run.nodes if node.boot_id})
    if machines in (0, len(run.nodes)):
        return ""
    they = "are one machine (one boot id): they"
    if machines > 1:
        they = f"are {machines} machines (by boot id): those on one"
    text = f"The {len(run.nodes)} nodes {they} share its kernel, last-level cache and memory bus."
    if run.scenario["noise"]["nodes"]:
        text += " Noise shares its targets' CPUs, so an effect is CPU contention before all else."
    return text


def _voids(run: RunFacts) -> str:
    void = [block for block in run.blocks if not block.valid]
    if not void:
        return ""
    by_phase = ", ".join(f"{phase} {count}" for phase, count in sorted(void_phases(void).items()))
    of = f"{len(void)} of {len(run.blocks)} blocks void"
    text = f"{of} (by phase: {by_phase})." if by_phase else f"{of}."
    codes = {reason.code for block in void for reason in block.void}
    effect = run.contrast("effect")
    withheld = effect is not None and all(kind.withheld for kind in effect.kinds)
    if (withheld or not run.valid) and codes & BUSY_CODES:
        text += f" {WHEN_BUSY}"
    return text


def _strangers(run: RunFacts) -> str:
    valid = {block.block for block in run.valid}
    known = [record.strangers_cpu_share is not None for record in run.rounds if record.block in valid]
    if all(known):
        return ""
    if not any(known):
        return "What other processes on the nodes used of the CPUs is not known on this backend: no block was void for it."
    return f"CPU use by other processes could not be read in {len(known) - sum(known)} rounds."


def _arms(run: RunFacts) -> list[str]:
    """Who bound the targets: where it was another scheduler than the phase's, the arm is not what its name says."""
    if run.placement_note:
        return []
    asked = {str(phase["name"]): phase.get("scheduler") for phase in run.scenario["phases"]}
    found = []
    for entry in run.accuracy:
        name = asked.get(entry.phase)
        others = {by: n for by, n in entry.decided_by.items() if name and not was_decided_by(by, name)}
        if others:
            who = ", ".join(f"{count} by {by}" for by, count in others.items())
            found.append(
                f"{entry.phase} asks for the scheduler {name}, but of its targets were bound: {who}."
            )
    bound = [f"{entry.phase}: {', '.join(entry.decided_by)}" for entry in run.accuracy if entry.decided_by]
    return [*found, f"Targets were bound by: {'; '.join(bound)}."] if bound else found


def _controls(run: RunFacts) -> list[str]:
    found = []
    for role, words in (("oracle", "Oracle"), ("a/a", "A/A")):
        contrast = run.contrast(role)
        for kind in contrast.kinds if contrast else []:
            if contrast and kind.ratio is not None and kind.low is not None and kind.high is not None:
                ratio = f"{kind.ratio:.2f} [{span(kind.low, kind.high)}]"
                found.append(f"{words}, {kind.kind}: {contrast.b} over {contrast.a} {ratio}.")
    return found


def _withheld(run: RunFacts) -> list[str]:
    effect = run.contrast("effect")
    return [
        f"{kind.kind}: {len(run.valid) - len(kind.blocks)} valid blocks are left out, with too few samples for a p99."
        for kind in (effect.kinds if effect else [])
        if kind.blocks and len(kind.blocks) < len(run.valid)
    ]


def _price(run: RunFacts) -> list[str]:
    """What a better p99 may have cost: the noise's own work, and the time targets waited for a place."""
    return [*_work_price(run), *_schedule_price(run)]


def _schedule_price(run: RunFacts) -> list[str]:
    placed = [phase for phase in run.accuracy if phase.to_schedule_p50_ns is not None]
    if not placed:
        return []
    waits = ", ".join(
        f"{phase.phase} {(phase.to_schedule_p50_ns or 0) / NS_PER_MS:,.0f} ms"
        f" (at most {(phase.to_schedule_max_ns or 0) / NS_PER_MS:,.0f})"
        for phase in placed
    )
    pending = ", ".join(f"{phase.phase} {phase.unplaced}" for phase in placed if phase.unplaced)
    return [f"Median time to schedule: {waits}. Targets left pending: {pending or 'none'}."]


def _work_price(run: RunFacts) -> list[str]:
    effect = run.contrast("effect")
    if effect is None:
        return []
    work = noise_work(run.valid, run.rounds)
    tools = sorted({stressor for _, stressor in work})
    ratios = [
        f"{stressor} {work[effect.b, stressor] / work[effect.a, stressor]:.2f}"
        for stressor in tools
        if work.get((effect.a, stressor)) and work.get((effect.b, stressor))
    ]
    return [f"Noise's own work, {effect.b} over {effect.a}: {', '.join(ratios)}."] if ratios else []
