"""What `confirm` has found out about the best trials of a study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from studies.report.formatting import share_text
from studies.report.snapshot import Snapshot


class Confirmation(NamedTuple):
    """The seeds of the repetitions, the cells of each configuration by name, and a sentence on each comparison."""

    seeds: str
    rows: Mapping[str, tuple[str, ...]]
    sentences: tuple[str, ...]


def find_confirmation(snapshot: Snapshot) -> Confirmation | None:
    """Return what `confirm` has written; None if it has written nothing, or about other trials than these."""
    chosen = {record.experiment_name: record.outcome for record in snapshot.records.values() if record.outcome}
    try:
        found = json.loads(snapshot.folder.confirmation_path.read_text(encoding="utf-8"))
        items = found["configurations"]
        if any(item["first_val_char_accuracy"] != chosen[item["name"]].best_val_char_accuracy for item in items):
            return None
        sentences = tuple(comparison["sentence"] for comparison in found["comparisons"])
        rows = {item["name"]: _cells(item) for item in items}
        return Confirmation(", ".join(map(str, found["seeds"])), rows, sentences)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _cells(item: Mapping[str, Any]) -> tuple[str, ...]:
    texts = [share_text(item["first_val_char_accuracy"])]
    for figure in ("val_char_accuracy", "test_char_accuracy", "test_seq_accuracy"):
        deviation = item["standard_deviation"][figure]
        texts.append(share_text(item["mean"][figure]) + ("" if deviation is None else f" ± {deviation:.4f}"))
    return tuple(texts)
