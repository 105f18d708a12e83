"""The output of ``validate`` and ``run --dry-run`` about an experiments file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.output import print_lines

if TYPE_CHECKING:
    from search_spaces import ExperimentFile, TrainingConfig
    from tuner.data.vocabulary import Vocabulary


def print_plan(
    file: ExperimentFile, experiments: Mapping[str, TrainingConfig], states: Mapping[str, str] | None = None
) -> None:
    """Print a file's experiments as a table, followed by its targets and notes.

    Args:
        file: The validated file.
        experiments: The selected experiments.
        states: The states of the experiments in the study, keyed by name; None or empty to omit the column.
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


def input_lines(config: TrainingConfig) -> list[str]:
    """Format lines that name the model definitions file and the dataset, or say that `run` generates the dataset."""
    path, splits = Path(config.metadata_path), f"splits {config.train_split}, {config.val_split}"
    missing = f"{path} does not exist; `khmer-tuner run` generates the default dataset first"
    return [models_line(config.model_config_path), f"dataset: {f'{path} ({splits})' if path.exists() else missing}"]


def characters_line(vocabulary: Vocabulary) -> str:
    """Format a line with the characters of a dataset and the vocabulary sizes."""
    from tuner.display.terminal import printable

    sizes = ", ".join(f"{field} {size}" for field, size in vocabulary.sizes.items())
    return printable(f"characters: {vocabulary} ({sizes})")


def models_line(path: str) -> str:
    """Format a line with the resolved path of a model definitions file and the names of its models."""
    from search_spaces import load_model_definitions, resolve_config_path

    return f"models: {resolve_config_path(path)} ({', '.join(load_model_definitions(path))})"
