"""Which cluster is meant, and whether it may be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from kabench.backends.kubernetes.access import IN_CLUSTER, Access, current_context
from kabench.errors import SpecError


@pytest.fixture(autouse=True)
def outside_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)


def kubeconfig(path: Path, current: str, *contexts: str) -> Path:
    names = "\n".join(f"- {{name: {name}, context: {{cluster: c, user: u}}}}" for name in contexts)
    path.write_text(f"current-context: {current}\ncontexts:\n{names}\n")
    return path


def test_our_own_contexts_may_be_used(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "a", "kabench-test", "kabench-test", "kind-kabench")
    assert Access(kubeconfig=path).check() == "kabench-test"
    assert Access("kind-kabench", path).check() == "kind-kabench"


def test_a_foreign_context_needs_its_name_repeated(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "a", "production", "production", "staging")
    for allowed in (None, "staging"):
        with pytest.raises(
            SpecError, match=r"'production' is no cluster that kabench made.*--allow-context prod"
        ):
            Access(kubeconfig=path, allow_context=allowed).check()
    assert Access(kubeconfig=path, allow_context="production").check() == "production"


def test_a_context_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "a", "one", "two", "one")
    with pytest.raises(SpecError, match=r"--context three: not in .*; it has one, two"):
        Access("three", path).check()


def test_the_first_file_with_a_current_context_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kubeconfig(tmp_path / "a", "''", "x")
    second = kubeconfig(tmp_path / "b", "kabench-test", "kabench-test")
    third = kubeconfig(tmp_path / "c", "x", "x")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'missing'}:{second}:{third}")
    assert current_context(Access()) == "kabench-test"
    assert Access().check() == "kabench-test"


def test_without_a_kubeconfig_there_is_no_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert current_context(Access()) == ""
    with pytest.raises(SpecError, match=r"no context: .*none has no current one; give --context"):
        Access().check()


def test_inside_a_cluster_the_pods_own_account_serves_and_must_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert current_context(Access()) == IN_CLUSTER
    with pytest.raises(SpecError, match=r"--allow-context in-cluster"):
        Access().check()
    assert Access(allow_context=IN_CLUSTER).check() == IN_CLUSTER


@pytest.mark.parametrize("text", ["- a list", "contexts: 3", "contexts: [{}]", "\x00", "a: ["])
def test_what_is_no_kubeconfig(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"bad: (does not read as|not) a kubeconfig"):
        Access("x", path).check()


def test_a_kubeconfig_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--kubeconfig .*none: no such file"):
        Access("x", tmp_path / "none").check()
