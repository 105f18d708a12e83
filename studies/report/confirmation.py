"""The results of `confirm` in the report."""

from __future__ import annotations

from typing import Any

from search_spaces.files.regular_files import parse_json, read_bytes
from studies.report.formatting import value_text
from studies.report.snapshot import Snapshot


def find_confirmation(snapshot: Snapshot) -> dict[str, Any] | None:
    """Return the content of `confirm --json` with table ``cells`` per configuration; None if it is missing or stale."""
    outcomes = {record.experiment_name: record.outcome for record in snapshot.records.values() if record.outcome}
    try:
        found: dict[str, Any] = parse_json(read_bytes(snapshot.folder.confirmation_path))
        for item in found["configurations"]:
            if item["first_val_char_accuracy"] != outcomes[item["name"]].best_val_char_accuracy:
                return None
            item["cells"] = [value_text(item["first_val_char_accuracy"])]
            for figure in ("val_char_accuracy", "test_char_accuracy", "test_seq_accuracy"):
                deviation = item["standard_deviation"][figure]
                spread = "" if deviation is None else f" ± {deviation:.4f}"
                item["cells"].append(f"{value_text(item['mean'][figure])}{spread}")
    except (OSError, ValueError, LookupError, TypeError):  # confirm has not finished, or the file is damaged
        return None
    return found if {"seeds", "comparisons"} <= found.keys() else None
