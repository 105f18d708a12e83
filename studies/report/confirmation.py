"""The results of `confirm` in the report."""

from __future__ import annotations

from typing import Any

from search_spaces.files.regular_files import parse_json, read_bytes
from studies.report.formatting import value_text
from studies.report.snapshot import Snapshot


def find_confirmation(snapshot: Snapshot) -> dict[str, Any] | None:
    """Return the results of `confirm`, with the formatted ``cells`` of each configuration for the table.

    Returns None if the file is missing or damaged, or if the study no longer has the results that were confirmed.
    """
    outcomes = {record.experiment_name: record.outcome for record in snapshot.records.values() if record.outcome}
    try:
        found: dict[str, Any] = parse_json(read_bytes(snapshot.folder.confirmation_path))
        for item in found["configurations"]:
            if item["first_val_char_accuracy"] != outcomes[item["name"]].best_val_char_accuracy:
                return None
            item["cells"] = [value_text(item["first_val_char_accuracy"])]
            for metric in ("val_char_accuracy", "test_char_accuracy", "test_seq_accuracy"):
                deviation = item["standard_deviation"][metric]
                spread = "" if deviation is None else f" ± {deviation:.4f}"
                item["cells"].append(f"{value_text(item['mean'][metric])}{spread}")
    except (OSError, ValueError, LookupError, TypeError):  # confirm has not finished, or the file is damaged
        return None
    return found if {"seeds", "comparisons"} <= found.keys() else None
