"""What README and docs quote of `make perf` is what it wrote, not what somebody typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUOTE = re.compile(r"<!-- perf/(\w+)\.md, by make perf -->\n(.*?)\n<!-- end -->", re.DOTALL)


@pytest.mark.parametrize(
    ("document", "quoted"), [("README.md", ["headlines"]), ("docs/performance.md", ["table"])]
)
def test_a_quote_is_the_file_that_make_perf_wrote(document: str, quoted: list[str]) -> None:
    found = dict(QUOTE.findall((ROOT / document).read_text(encoding="utf-8")))
    assert list(found) == quoted
    for name, text in found.items():
        assert text == (ROOT / "perf" / f"{name}.md").read_text(encoding="utf-8").rstrip("\n")
