"""From a scenario's text to a checked `Scenario`, and from flags to a changed one.

Pure. Every error is found at once, and each names the line, the field's path, what stands there and what would be right.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kabench.core.own_pods import FILLED_IN, ReadFile, no_files, with_pods
from kabench.core.spec import HIDDEN, REVEAL, Phase, Scenario
from kabench.core.yaml_source import Document, Path, dotted, read_documents, short
from kabench.errors import SpecError

MOST_SHOWN = 10
"""Errors beyond these are only counted."""

A_NAME = "1 to 40 lower-case letters, digits and inner dashes"
PATTERNS: Mapping[int | str, str] = {
    "address": "HOST:PORT",
    "headers": "a header's NAME and value as HTTP has them",
    "method": "a method such as GET",
    "paths": "a path that begins with / and has no blanks",
}
"""What a field with a pattern wants, where it is no name."""

Arms = Mapping[str, Mapping[str, str]]
"""What `--phase NAME` means where the scenario has no phase of that name: name -> its way."""

LOCAL_ARMS: Arms = {
    "default": {"policy": "default"},
    "contention-aware": {"policy": "contention-aware"},
    "oracle-quiet": {"pin": "quiet"},
    "oracle-noisy": {"pin": "noisy"},
    "default-again": {"policy": "default"},
}
KUBERNETES_ARMS: Arms = {
    "default": {"scheduler": "default-scheduler"},
    "oracle-quiet": {"pin": "quiet"},
    "oracle-noisy": {"pin": "noisy"},
    "default-again": {"scheduler": "default-scheduler"},
}


def load_scenario(text: str, source_name: str, read: ReadFile = no_files) -> Scenario:
    """Read and check a scenario, and the manifests it names.

    Args:
        text: the YAML.
        source_name: its file, for messages.
        read: reads a file that the scenario names: a path as it stands there to (text, name for messages).

    Raises:
        SpecError: it is not YAML, or not a scenario; all that is wrong is named, a line each.
    """
    documents = read_documents(text, source_name)
    document = documents[0] if documents else Document(source_name, None, None)
    if not isinstance(document.data, dict):
        raise SpecError(f"{source_name}:1: a scenario is a mapping of fields (name, phases, targets, …)")
    if len(documents) > 1:
        raise SpecError(f"{documents[1].at(())}: a second document; give one scenario a file")
    try:
        # JSON's strictness: no true for 1 and no "4" for 4, yet a list for a tuple and a string for an enumeration
        scenario = Scenario.model_validate_json(json.dumps(document.data, default=str), strict=True)
    except ValidationError as error:
        found = sorted((document.line(_place(e)), _explain(e)) for e in _roots(error))
        raise SpecError(_few([f"{source_name}:{line}: {text}" for line, text in found])) from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{source_name}:1: it contains itself (an alias inside its own anchor)") from error
    problem = _noise_problem(scenario)
    if problem:
        raise SpecError(f"{document.at(('noise', 'nodes'))}: {problem}")
    scenario, problems = with_pods(scenario, document, read)
    if problems:
        raise SpecError(_few(problems))
    return scenario


def override(
    scenario: Scenario,
    *,
    agents: int | None = None,
    rate_per_s: float | None = None,
    blocks: int | None = None,
    phases: Sequence[str] = (),
    seed: int | None = None,
    arms: Arms = LOCAL_ARMS,
) -> Scenario:
    """The scenario with flags in place of what it says.

    Args:
        scenario: what the flags change.
        agents: nodes, with one agent on each.
        rate_per_s: in all, over agents and targets.
        blocks: planned blocks; those in reserve stay as they are.
        phases: `NAME` or `NAME=KIND:VALUE`; they replace all phases.
        seed: of all that is drawn.
        arms: what a mere NAME means where the scenario has no such phase.

    Raises:
        SpecError: a flag's value is wrong; all that is wrong is named.
    """
    flags: dict[Path, str] = {("phases",): "--phase"}
    data: dict[str, Any] = scenario.model_dump(mode="json", context=REVEAL)
    given: list[tuple[str, Path, Any]] = [
        ("--agents", ("agents",), agents),
        ("--rate", ("load", "rate_per_s"), rate_per_s),
        ("--blocks", ("blocks", "planned"), blocks),
        ("--seed", ("seed",), seed),
    ]
    for flag, path, value in given:
        if value is not None:
            flags[path] = flag
            place = data
            for part in path[:-1]:
                place = place[str(part)]
            place[str(path[-1])] = value
    if phases:
        data["phases"] = [_phase(flag, scenario.phases, arms) for flag in phases]
    return checked(data, flags)


def checked(data: Mapping[str, Any], flags: Mapping[Path, str]) -> Scenario:
    """The scenario of a plain form that flags have changed; `flags` names the one that set what is at a path.

    Raises:
        SpecError: a value is wrong; all that is wrong is named.
    """
    try:
        changed = Scenario.model_validate(data)
    except ValidationError as error:
        lines = [_explain(details, _flag_of(details["loc"], flags)) for details in _roots(error)]
        raise SpecError(_few(lines)) from error
    if problem := _noise_problem(changed):
        raise SpecError(problem)
    return changed


def _phase(flag: str, known: Sequence[Phase], arms: Arms) -> dict[str, Any]:
    """The phase that `--phase NAME[=KIND:VALUE]` means."""
    name, given, way = flag.partition("=")
    if given:
        kind, colon, value = way.partition(":")
        if not colon or kind not in ("policy", "scheduler", "pin") or not value:
            raise SpecError(
                f"--phase {flag}: give NAME=policy:NAME, NAME=scheduler:NAME or NAME=pin:quiet|noisy"
            )
        return {"name": name, kind: value}
    for phase in known:
        if phase.name == name:
            return phase.model_dump(mode="json")
    if name not in arms:
        names = sorted({phase.name for phase in known} | arms.keys())
        raise SpecError(
            f"--phase {flag}: no such phase{_guess(name, names)}; known are {', '.join(names)}, or NAME=KIND:VALUE"
        )
    return {"name": name, **arms[name]}


def with_arms(scenario: Scenario, arms: Arms) -> Scenario:
    """The scenario with `arms` as its phases: the built-in one, on a backend that knows other ways to place."""
    phases = tuple(Phase.model_validate({"name": name, **way}) for name, way in arms.items())
    return scenario.model_copy(update={"phases": phases})


def _noise_problem(scenario: Scenario) -> str:
    nodes, agents = scenario.noise.nodes, scenario.agents
    if nodes <= agents:
        return ""
    return (
        f"noise.nodes: found {nodes}; give at most {agents}, since there are no more nodes (agents: {agents})"
    )


def _roots(error: ValidationError) -> list[ErrorDetails]:
    """All errors but those that only follow from others: a list is too short once its items are refused."""
    details = error.errors()
    return [
        one
        for one in details
        if one["type"] != "too_short"
        or not any(other["loc"][: len(one["loc"])] == one["loc"] for other in details if other is not one)
    ]


def _place(error: ErrorDetails) -> Path:
    """Where the error is; one of the whole scenario begins with the name of the field it is about."""
    if error["loc"] or error["type"] != "value_error":
        return error["loc"]
    return (str(error["ctx"]["error"]).partition(":")[0],)


def _explain(error: ErrorDetails, flag: str = "") -> str:
    """One line for one of pydantic's errors: where, what was found, what would be right."""
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if "password" in error["loc"] or "headers" in error["loc"]:
        found = HIDDEN
    where = flag or dotted(tuple(part for part in error["loc"] if part != "[key]"))
    if kind == "extra_forbidden":
        known = sorted(_fields(error["loc"][:-1]))
        name = str(error["loc"][-1])
        guess = _guess(name, known)
        return f"{where}: unknown field {name!r}{guess or '; known are ' + ', '.join(known)}"
    if kind == "missing":
        return f"{where}: missing; give it"
    if kind == "value_error":
        return f"{where}: {context['error']}" if where else str(context["error"])
    bounds = {"greater_than": ">", "greater_than_equal": "≥", "less_than": "<", "less_than_equal": "≤"}
    if kind in bounds:
        bound = float(next(iter(context.values())))
        return f"{where}: found {found}; give a number {bounds[kind]} {int(bound) if bound.is_integer() else bound}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']+)'", str(context["expected"]))
        return f"{where}: found {found!r}{_guess(str(found), choices)}; give one of {', '.join(choices)}"
    if kind == "string_pattern_mismatch":
        wanted = next((PATTERNS[part] for part in error["loc"][-3:] if part in PATTERNS), A_NAME)
        return f"{where}: found {found!r}; give {wanted}"
    if kind == "too_short":
        return f"{where}: empty; give at least one"
    return f"{where}: found {short(found)}; {_wanted(error['msg'])}"


def _wanted(message: str) -> str:
    """`Input should be a valid integer` → `it should be a valid integer`."""
    return message.replace("Input should", "it should", 1)


def _guess(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _fields(path: Path) -> list[str]:
    """The fields that are known at `path`."""
    model: Any = Scenario
    for part in path:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    return [name for name in model.model_fields if name != FILLED_IN]


def _model_in(annotation: Any) -> Any:
    """The model in `X`, `X | None` or `tuple[X, …]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(found for found in map(_model_in, get_args(annotation)) if found)


def _flag_of(path: Path, flags: Mapping[Path, str]) -> str:
    """The flag that set what is at `path`."""
    return next((flag for place, flag in flags.items() if path[: len(place)] == place), "")


def _few(lines: Sequence[str]) -> str:
    shown = list(lines[:MOST_SHOWN])
    if len(lines) > MOST_SHOWN:
        shown.append(f"… and {len(lines) - MOST_SHOWN} more")
    return "\n".join(shown)
