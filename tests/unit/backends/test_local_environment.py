"""What is recorded of the machine, and how it says that it could not be read."""

from __future__ import annotations

import os
from pathlib import Path

from kabench.backends.local.environment import (
    autogroups,
    cpu_model,
    cpu_quota,
    kernel_hz,
    machine,
    read,
    why_not_awake,
)


def test_the_machine_is_described() -> None:
    found = machine()
    assert found["cpus"] == sorted(os.sched_getaffinity(0))
    assert found["kernel"] == os.uname().release
    assert len(found["load_average"]) == 3
    assert {"hz", "autogroup", "governor", "smt", "cpu_model", "machine", "python"} <= found.keys()
    assert autogroups([]).keys() == {"controller"}


def test_the_tick_rate_is_a_rate_or_says_why_not() -> None:
    hz = kernel_hz()
    assert hz in {100, 250, 300, 1000} or str(hz).startswith("unavailable: ")


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == "unavailable: No such file or directory"
    assert cpu_model(tmp_path / "none").startswith("unavailable: ")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A Fast One\n")
    assert cpu_model(tmp_path / "cpuinfo") == "A Fast One"


def test_a_containers_quota_of_either_cgroup_version(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) == "none"
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(tmp_path) == "none"
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    assert cpu_quota(tmp_path) == "cpu/cpu.cfs_quota_us: 150000"
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) == "none"
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cpu_quota(tmp_path) == "cpu.max: 50000 100000"


def test_cpus_are_kept_awake_in_a_virtual_machine_whose_cpus_share_no_cores(tmp_path: Path) -> None:
    cpuinfo, smt = tmp_path / "cpuinfo", tmp_path / "active"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu tsc hypervisor lahf_lm\n")
    assert why_not_awake(cpuinfo, smt) == ""  # no such file: a kernel without hyperthreads
    smt.write_text("1\n")
    assert why_not_awake(cpuinfo, smt) == "CPUs share cores here"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu tsc lahf_lm\n")
    assert why_not_awake(cpuinfo, smt).startswith("this is no virtual machine")
