"""The kind cluster's command lines, and the CPUs of its workers. No docker runs here."""

import pytest

from cluster import kind
from cluster.kind import cpu_sets, how_far_apart, workers
from cluster.shell import SetupError
from kabench.backends.kubernetes.naming import KIND_CONTEXT

WORKERS = ["kabench-worker", *(f"kabench-worker{number}" for number in range(2, 7))]


class FakeShell:
    """Answers by the longest known beginning of a command, and writes all commands down.

    `refused` are beginnings too: what starts so fails.
    """

    def __init__(self, answers=None, refused=()):
        self.asked = []
        self._answers = {
            "docker info": "2\n",
            "kind get nodes": "\n".join([*reversed(WORKERS), "kabench-control-plane", ""]),
        } | (answers or {})
        self._refused = refused

    def ask(self, command):
        line = self._note(command)
        if line.startswith(tuple(self._refused)):
            raise SetupError(f"{line} ended with 1")
        known = [start for start in self._answers if line.startswith(start)]
        return self._answers[max(known, key=len)] if known else ""

    def agrees(self, command):
        return not self._note(command).startswith(tuple(self._refused))

    def _note(self, command):
        self.asked.append(" ".join(map(str, command)))
        return self.asked[-1]

    def starting(self, text):
        return [line for line in self.asked if line.startswith(text)]


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    """The programs on the PATH; a test may take some away."""
    found = {"docker", "kind", "go"}
    monkeypatch.setattr(kind.shutil, "which", lambda name: f"/usr/bin/{name}" if name in found else None)
    return found


def test_the_context_of_the_cluster_is_the_one_that_kabench_takes_for_its_own():
    assert f"kind-{kind.CLUSTER}" == KIND_CONTEXT
    assert f"\nname: {kind.CLUSTER}\n" in kind.CONFIG.read_text()


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        (1, ["0"] * 6),
        (2, ["0", "0", "0", "1", "1", "1"]),
        (4, ["0", "0", "1", "2", "2", "3"]),
        (6, ["0", "1", "2", "3", "4", "5"]),
        (16, ["0-1", "2-4", "5-7", "8-9", "10-12", "13-15"]),
    ],
)
def test_workers_have_contiguous_cpus_and_share_where_there_are_too_few(cpus, expected):
    assert list(cpu_sets(WORKERS, cpus).values()) == expected


@pytest.mark.parametrize(
    ("cpus", "last"),
    [(1, "nothing can be separated"), (2, "2 CPUs for 6 workers"), (6, "each worker has CPUs of its own")],
)
def test_it_says_how_far_the_workers_are_apart(cpus, last):
    lines = how_far_apart(cpu_sets(WORKERS, cpus))
    assert last in lines[-1]
    assert all(sum(name in line.replace(",", "").split() for line in lines) == 1 for name in WORKERS)


def test_up_creates_the_cluster_and_then_binds_each_worker(capsys):
    shell = FakeShell()
    kind.up(shell)
    create, *updates = [line for line in shell.asked if line.startswith(("kind create", "docker update"))]
    assert create == f"kind create cluster --config {kind.CONFIG} --wait {kind.READY}"
    assert updates == [
        f"docker update --cpuset-cpus {cpu} {name}" for cpu, name in zip("000111", WORKERS, strict=True)
    ]
    assert "CPU 1: kabench-worker4, kabench-worker5, kabench-worker6" in capsys.readouterr().out


def test_up_on_a_cluster_that_is_there_only_binds_it_again():
    shell = FakeShell({"kind get clusters": "other\nkabench\n"})
    kind.up(shell)
    assert not shell.starting("kind create")
    assert len(shell.starting("docker update")) == 6


def test_without_kind_the_pinned_one_is_built_by_go(tools):
    tools.remove("kind")
    built = f"go -C {kind.MODULE} tool kind"
    shell = FakeShell({f"{built} get nodes": "kabench-worker\n"})
    kind.up(shell)
    assert shell.starting(f"{built} create cluster")


def test_load_takes_all_images_and_looks_for_each_in_every_worker():
    shell = FakeShell()
    kind.load(shell)
    (loaded,) = shell.starting("kind load")
    assert (
        loaded == "kind load docker-image --name kabench kabench-agent:0.1.0 kabench-noise:0.1.0 redis:7.4.2"
    )
    seen = shell.starting("docker exec")
    assert len(seen) == 3 * len(WORKERS)
    assert "docker exec kabench-worker6 crictl inspecti --quiet docker.io/library/kabench-agent:0.1.0" in seen
    assert not shell.starting("docker pull")


def test_load_fetches_redis_where_the_engine_has_none():
    shell = FakeShell(refused=["docker image inspect redis"])
    kind.load(shell)
    assert shell.starting("docker pull") == ["docker pull redis:7.4.2"]


def test_an_image_that_a_node_does_not_have_afterwards_is_named_with_the_node():
    shell = FakeShell(refused=["docker exec kabench-worker3 crictl inspecti --quiet docker.io/library/redis"])
    with pytest.raises(SetupError, match=r"redis:7\.4\.2 on kabench-worker3$"):
        kind.load(shell)


def test_load_before_the_images_are_built_says_how_to():
    shell = FakeShell(refused=["docker image inspect kabench-noise"])
    with pytest.raises(SetupError, match=r"no image kabench-noise:0\.1\.0.*make image"):
        kind.load(shell)
    assert not shell.starting("kind load")


def test_image_builds_all_on_the_base_that_the_dockerfiles_name():
    shell = FakeShell()
    kind.image(shell)
    agent, noise, controller = shell.starting("docker build")
    assert "--target agent --tag kabench-agent:0.1.0" in agent
    assert "--target noise --tag kabench-noise:0.1.0" in noise
    assert "controller.Dockerfile" in controller
    assert "--tag kabench:0.1.0" in controller
    assert "--target" not in controller
    assert "BASE=" not in agent + noise + controller


def test_down_deletes_the_cluster():
    shell = FakeShell()
    kind.down(shell)
    assert shell.starting("kind delete") == ["kind delete cluster --name kabench"]


def test_workers_are_in_the_order_of_their_numbers():
    nodes = "kabench-worker10\nkabench-worker2\nkabench-control-plane\nkabench-worker\nkabench2-worker\n"
    shell = FakeShell({"kind get nodes": nodes})
    assert workers(shell, ("kind",)) == ["kabench-worker", "kabench-worker2", "kabench-worker10"]


@pytest.mark.parametrize(
    ("missing", "refused", "said"),
    [
        ({"docker"}, (), "docker is not installed"),
        (set(), ("docker info",), "no docker engine answers"),
        ({"kind", "go"}, (), "kind is not installed, nor Go"),
    ],
)
@pytest.mark.parametrize("action", [kind.up, kind.load, kind.down])
def test_each_action_says_what_is_missing(tools, action, missing, refused, said):
    tools -= missing
    with pytest.raises(SetupError, match=said):
        action(FakeShell(refused=refused))


def test_load_without_a_cluster_says_how_to_make_one():
    with pytest.raises(SetupError, match=r"no kind cluster kabench.*make kind-up"):
        kind.load(FakeShell({"kind get nodes": ""}))
