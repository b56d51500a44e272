"""`kabench doctor`, as a user calls it: what it prints of its findings, and what it ends with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from kabench.backends.kubernetes.access import Access
from kabench.backends.kubernetes.doctor import Finding
from kabench.cli import main
from kabench.controller import checkup
from kabench.core.spec import Scenario

OK = Finding("context", "ok", "kabench-test: a cluster that kabench makes")
WARNING = Finding("images", "warning", "not there yet: redis [7.4.2] on " + "worker-1, " * 12, "load them")
PROBLEM = Finding("workers", "problem", "4 take pods and 6 are wanted", "--agents 4")


class Checked:
    """Stands for the checks: tells the findings it was given, and keeps what it was asked."""

    def __init__(self, *findings: Finding) -> None:
        self.findings = findings
        self.access: Access | None = None
        self.scenario: Scenario | None = None
        self.schedulers: Sequence[str] = ()

    async def __call__(
        self, access: Access, scenario: Scenario, more_schedulers: Sequence[str], tell: Any
    ) -> None:
        self.access, self.scenario, self.schedulers = access, scenario, more_schedulers
        for finding in self.findings:
            tell(finding)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Checked:
    checked = Checked(OK)
    monkeypatch.setattr(checkup, "check_up", checked)
    return checked


def test_without_a_problem_a_run_could_start(checked: Checked, capsys: pytest.CaptureFixture[str]) -> None:
    checked.findings = (OK, WARNING)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "context", *OK.text.split()]
    assert lines[-1] == "a run could start"
    assert max(map(len, lines)) <= 80
    assert "redis [7.4.2]" in " ".join(lines[1].split())  # brackets are no markup
    assert any(line.strip() == "→ load them" for line in lines)


def test_with_a_problem_it_could_not(checked: Checked, capsys: pytest.CaptureFixture[str]) -> None:
    checked.findings = (OK, PROBLEM)
    assert main(["doctor"]) == 4
    assert capsys.readouterr().out.endswith(
        "problem workers     4 take pods and 6 are wanted\n"
        "                    → --agents 4\n"
        "a run could not start\n"
    )


def test_as_json_nothing_else_is_printed(checked: Checked, capsys: pytest.CaptureFixture[str]) -> None:
    checked.findings = (OK, PROBLEM)
    assert main(["doctor", "--json"]) == 4
    answer = json.loads(capsys.readouterr().out)
    assert answer["could_run"] is False
    assert answer["findings"][1] == {
        "check": "workers",
        "level": "problem",
        "text": PROBLEM.text,
        "advice": PROBLEM.advice,
    }


def test_what_the_flags_ask_for(checked: Checked) -> None:
    arguments = ["--agents", "3", "--scheduler", "mine", "--scheduler", "yours", "--alongside"]
    assert main(["doctor", *arguments]) == 0
    assert checked.scenario is not None
    assert checked.access is not None
    assert checked.schedulers == ["mine", "yours"]
    assert checked.scenario.agents == 3
    assert all(phase.policy is None for phase in checked.scenario.phases)  # as on Kubernetes
    assert checked.access.alongside


def test_a_scenario_of_the_users_own_is_checked_as_it_is(
    checked: Checked, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "nope"]) == 2
    assert "no such file, and no built-in scenario" in capsys.readouterr().err
    assert main(["doctor", "--agents", "0"]) == 2
