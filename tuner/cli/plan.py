"""What a configuration file would train, as ``validate`` and ``run --dry-run`` show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.output import print_lines

if TYPE_CHECKING:
    from search_spaces import ExperimentFile, TrainingConfig


def print_plan(
    file: ExperimentFile, experiments: Mapping[str, TrainingConfig], states: Mapping[str, str] | None = None
) -> None:
    """Print a file's experiments as a table, its targets and its notes.

    Args:
        file: The checked file.
        experiments: The chosen experiments.
        states: Their states in a study, if there is one.
    """
    from tuner.display.terminal import plain_table

    headers = ["experiment", "model", "batch", "lr", "optimizer", "scheduler", "epochs"]
    table = plain_table(*headers, *(["state"] if states else []), right=(2, 3, 6))
    for name, config in experiments.items():
        cells = [name, config.model_name, f"{config.batch_size}", f"{config.learning_rate:g}"]
        cells += [config.optimizer_type, config.scheduler_type, f"{config.num_epochs}"]
        table.add_row(*cells, *([states[name]] if states else []))
    goals = ", ".join(file.targets.goals().values())
    targets = [f"targets: {goals}"] if goals else []
    print_lines([f"configuration: {file.path}", "", table, "", *targets, *file.messages])


def dataset_line(file: ExperimentFile, config: TrainingConfig) -> str:
    """Return where the dataset is, or how to get it."""
    path = Path(config.metadata_path)
    splits = f"splits {config.train_split}, {config.val_split}"
    if path.exists():
        return f"dataset: {path} ({splits})"
    if file.names_dataset:
        return f"dataset: {path} is not there; `khmer-tuner data` draws one"
    return f"dataset: {path} is not there yet; `khmer-tuner run` draws the default one first"
