"""What a configuration file would have done: shown by ``validate`` and ``run --dry-run``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces import ExperimentFile, TrainingConfig


def print_plan(
    file: ExperimentFile, experiments: Mapping[str, TrainingConfig], states: Mapping[str, str] | None = None
) -> None:
    """Print a file's experiments as a table, its targets and its notes.

    Args:
        file: The checked file.
        experiments: Those of it that are meant.
        states: Where they stand in a study, if one was looked at.
    """
    from tuner.display.terminal import console_on, plain_table

    console = console_on(sys.stdout)
    console.print(f"configuration: {file.path}", soft_wrap=True)
    console.print()
    headers = ["experiment", "model", "batch", "lr", "optimizer", "scheduler", "epochs"]
    table = plain_table(*headers, *(["state"] if states else []), right=(2, 3, 6))
    for name, config in experiments.items():
        cells = [name, config.model_name, f"{config.batch_size}", f"{config.learning_rate:g}"]
        cells += [config.optimizer_type, config.scheduler_type, f"{config.num_epochs}"]
        table.add_row(*cells, *([states[name]] if states else []))
    console.print(table)
    console.print()
    goals = ", ".join(file.targets.goals().values())
    for line in [*([f"targets: {goals}"] if goals else []), *file.messages]:
        console.print(line, soft_wrap=True)


def dataset_line(file: ExperimentFile, config: TrainingConfig) -> str:
    """Say where the dataset is, or what becomes of it if it is not there."""
    path = Path(config.metadata_path)
    splits = f"splits {config.train_split}, {config.val_split}"
    if path.exists():
        return f"dataset: {path} ({splits})"
    if file.names_dataset:
        return f"dataset: {path} is not there; `khmer-tuner data` draws one"
    return f"dataset: {path} is not there yet; `khmer-tuner run` draws the default one first"
