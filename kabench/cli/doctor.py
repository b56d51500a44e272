"""`kabench doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kabench.cli.cluster_flags import AllowContext, Context, Kubeconfig, Transport, access_of

if TYPE_CHECKING:
    from kabench.backends.kubernetes.doctor import Finding
    from kabench.core.spec import Scenario

STYLES = {"ok": "green", "note": "dim", "warning": "yellow", "problem": "bold red"}
LEVEL_WIDTH, CHECK_WIDTH = 7, 11


def doctor(
    scenario: Annotated[
        str, typer.Argument(help="What is to run: a YAML file, or the name of a built-in scenario.")
    ] = "seed",
    agents: Annotated[int | None, typer.Option(help="Nodes, with one agent on each.")] = None,
    scheduler: Annotated[
        list[str] | None, typer.Option(help="A schedulerName that must answer too; repeatable.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON and nothing else.")
    ] = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    allow_context: AllowContext = None,
    transport: Transport = "proxy",
    alongside: Annotated[
        bool, typer.Option("--alongside", help="Start pods although another run is active in the cluster.")
    ] = False,
) -> None:
    """Check whether a run could start on a cluster; say what to do.

    Ends with a trial: agents, and a pod for each scheduler, in a namespace of their own that is removed again.
    """
    import json
    from dataclasses import asdict

    from kabench.cli.cancelling import run_cancellable
    from kabench.cli.console import say
    from kabench.controller.checkup import check_up
    from kabench.errors import ClusterError

    access = access_of(context, kubeconfig, allow_context, transport, alongside)
    wanted = _wanted(scenario, agents)
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            _print(finding)

    run_cancellable(check_up(access, wanted, scheduler or [], tell))
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        say(json.dumps({"could_run": not problems, "findings": [asdict(one) for one in findings]}, indent=2))
    else:
        say("a run could start" if not problems else "a run could not start")
    if problems:
        raise typer.Exit(ClusterError.exit_code)


def _wanted(source: str, agents: int | None) -> Scenario:
    """The scenario as a run on Kubernetes would have it.

    Raises:
        SpecError: the scenario or a flag is wrong.
    """
    from kabench.cli.sources import is_built_in, load_source
    from kabench.core.scenario import KUBERNETES_ARMS, override, with_arms

    scenario = load_source(source)
    if is_built_in(source):
        scenario = with_arms(scenario, KUBERNETES_ARMS)
    return override(scenario, agents=agents, arms=KUBERNETES_ARMS)


def _print(finding: Finding) -> None:
    """Its level, its check, and what was found beside them; what to do has lines of its own."""
    from textwrap import wrap

    from rich.text import Text

    from kabench.cli.console import Terminal

    console = Terminal(highlight=False, markup=False, soft_wrap=True)
    head = f"{finding.level:{LEVEL_WIDTH}} {finding.check:{CHECK_WIDTH}} "
    room = max(20, console.width - len(head))
    lines = [*wrap(finding.text, room), *(wrap(f"→ {finding.advice}", room) if finding.advice else ())]
    line = Text(head + ("\n" + " " * len(head)).join(lines))
    line.stylize(STYLES[finding.level], 0, LEVEL_WIDTH)
    console.print(line)
