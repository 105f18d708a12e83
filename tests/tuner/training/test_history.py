import json
from dataclasses import asdict

import pytest

from tuner.training.history import EpochMetrics, read_metrics

EPOCHS = [EpochMetrics(number, 2.0, 2.0, 0.1, 0.1, 0.0, 0.0, 1e-3, 1.0, 100.0, 100.0) for number in (1, 2)]
WRONG_TYPES = json.dumps(asdict(EPOCHS[0]) | {"epoch": 3, "epoch_seconds": [1]}) + "\n"


@pytest.mark.parametrize(
    "damage",
    ['{"epoch": 3, "train', "\0\0\0}\n", "[1, 2]}\n", '{"epoch": 3}\n', "\n", WRONG_TYPES],
    ids=["half a line", "zeros after a power cut", "no object", "missing metrics", "empty", "wrong types"],
)
def test_damaged_lines_are_skipped(damage, tmp_path):
    first, second = (json.dumps(asdict(epoch)) + "\n" for epoch in EPOCHS)
    (tmp_path / "metrics.jsonl").write_text(first + damage + ("" if damage.endswith("\n") else "\n") + second)
    assert read_metrics(tmp_path) == EPOCHS


def test_missing_file_gives_no_epochs(tmp_path):
    assert read_metrics(tmp_path) == []
