"""stress-ng's account, on its own words."""

from __future__ import annotations

import pytest

from kabench.backends.stressors import StressAccount, stress_ng_account, stress_ng_bytes
from kabench.core.placement import MIB
from kabench.core.spec import Stressor

REPORT = """---
system-info:
      stress-ng-version: 0.15.06
      run-by: 65532
      nodename: noise-1-worker-1-003-default
metrics:
    - stressor: cache
      bogo-ops: 254857
      bogo-ops-per-second-usr-sys-time: 336728.047216
      bogo-ops-per-second-real-time: 127409.377828
      wall-clock-time: 2.000300
      user-time: 0.711519
      system-time: 0.045344
      max-rss: 35312

...
"""


def test_the_account_has_work_time_and_version() -> None:
    assert stress_ng_account(REPORT) == StressAccount(254857.0, 2.0003, 0.757, "0.15.06")


def test_two_stressors_are_added_and_last_as_long_as_the_longer() -> None:
    second = "    - stressor: stream\n      bogo-ops: 4\n      wall-clock-time: 2.5\n"
    found = stress_ng_account(REPORT.replace("...\n", second))
    assert found is not None
    assert (found.ops, found.seconds) == (254861.0, 2.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stress-ng: error: no memory",
        REPORT[: REPORT.index("wall-clock")],
        REPORT.replace("254857", "1.2.3"),
    ],
)
def test_what_was_cut_off_is_no_account(text: str) -> None:
    assert stress_ng_account(text) is None


def test_memory_follows_workers_and_cache() -> None:
    assert stress_ng_bytes(Stressor(kind="stress-membw", workers=2), 32 * MIB) == 2 * 6 * 32 * MIB
    assert stress_ng_bytes(Stressor(kind="stress-cpu", workers=8), 32 * MIB) == 0
