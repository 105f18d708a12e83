"""The results of `confirm` in the report."""

from __future__ import annotations

from typing import Any

from search_spaces.files.regular_files import parse_json, read_bytes
from studies.report.formatting import share_text
from studies.report.snapshot import Snapshot


def find_confirmation(snapshot: Snapshot) -> dict[str, Any] | None:
    """Return what `confirm --json` prints, with the ``cells`` of each configuration; None if it is of other trials."""
    chosen = {record.experiment_name: record.outcome for record in snapshot.records.values() if record.outcome}
    try:
        found: dict[str, Any] = parse_json(read_bytes(snapshot.folder.confirmation_path))
        for item in found["configurations"]:
            if item["first_val_char_accuracy"] != chosen[item["name"]].best_val_char_accuracy:
                return None
            item["cells"] = [share_text(item["first_val_char_accuracy"])]
            for figure in ("val_char_accuracy", "test_char_accuracy", "test_seq_accuracy"):
                deviation = item["standard_deviation"][figure]
                spread = "" if deviation is None else f" ± {deviation:.4f}"
                item["cells"].append(f"{share_text(item['mean'][figure])}{spread}")
    except (OSError, ValueError, LookupError, TypeError):  # confirm has not ended yet, or the file is damaged
        return None
    return found if {"seeds", "comparisons"} <= found.keys() else None
