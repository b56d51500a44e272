"""The results folder: journal, agents' logs, `results.json`; and the merging of whatever folders hold.

Knows files and `core`; nothing of agents or backends.
"""

from kabench.store.files import free_bytes
from kabench.store.journal import read_journal
from kabench.store.merging import MergeReport, merge_paths
from kabench.store.run_store import RunStore, read_result

__all__ = ["MergeReport", "RunStore", "free_bytes", "merge_paths", "read_journal", "read_result"]
