"""Exporting a trial of a study as an experiments file that reproduces its training."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from search_spaces import (
    TrainingConfig,
    definitions_yaml,
    experiments_yaml,
    load_model_definitions,
    name_problem,
    resolve_config_path,
)
from search_spaces.diagnostics.atomic_files import write_text
from search_spaces.yaml_reader.file import PACKAGE_FOLDER
from studies import StudyInvariants, TrialRecord
from tuner.analysis.best_trial import Winner, winner_lines
from tuner.display.terminal import printable
from tuner.session.output_paths import NETWORKS, PRESET, check_output_file


@dataclass(frozen=True)
class Preset:
    """An experiments file that retrains the winner of a study.

    Attributes:
        name: The experiment's name.
        config: The experiment's settings.
        text: The content of the experiments file.
        models_path: The model definitions file to write to the same folder; None if no such file is needed.
        models_text: The content of the model definitions file.
    """

    name: str
    config: TrainingConfig
    text: str
    models_path: Path | None
    models_text: str


def preset_name(prefix: str, experiment_name: str) -> str:
    """Return a valid name for the repetition of an experiment: prefix and experiment name, truncated if too long."""
    return fitting_name(f"{prefix}_{experiment_name}")


def fitting_name(name: str, suffix: str = "") -> str:
    """Append a suffix to a name; the name is truncated until the result is valid."""
    while name_problem(f"{name}{suffix}") is not None:
        name = name[:-1]
    return f"{name}{suffix}"


def preset_config(record: TrialRecord, invariants: StudyInvariants, name: str, models_path: Path) -> TrainingConfig:
    """Return the settings that retrain a trial of a study, with bit-identical metrics on the same CPU model.

    The result of training only depends on the settings (including the seed), the dataset and the model definitions.

    Args:
        record: The trial.
        invariants: The fixed settings of the trial's study, with the last known path of the dataset.
        name: The name of the new experiment.
        models_path: The file with the trial's model definition.
    """
    return replace(
        record.training_config,
        experiment_name=name,
        metadata_path=str(invariants.dataset["metadata_path"]),
        model_config_path=str(models_path),
    )


def best_preset(winner: Winner, out: Path | None) -> Preset:
    """Create the experiments file that retrains the winner of a study.

    Args:
        winner: The winner.
        out: The file to be written; model definitions that are not built-in are written to the same folder. None to use
            the model definitions file of the study.
    """
    name = preset_name("best", winner.name)
    is_built_in = _uses_built_in_models(winner)
    existing = Path(TrainingConfig.model_config_path) if is_built_in else winner.folder.model_definitions_path
    to_write = None if is_built_in or out is None else _models_path(out)
    config = preset_config(winner.record, winner.invariants, name, to_write or existing)
    config = replace(config, threads=winner.outcome.threads)
    text = f"{_head(winner, out)}\n{experiments_yaml({name: config}, winner.targets)}"
    return Preset(name, config, text, to_write, definitions_yaml(winner.invariants.definitions))


def check_preset_path(out: Path, output_dir: str | Path) -> None:
    """Raise unless a preset and its model definitions file can be written; `check_output_file` documents the errors."""
    check_output_file(out, PRESET, output_dir, "--out")
    check_output_file(_models_path(out), NETWORKS, output_dir, f"--out {out}: model definitions file")


def write_preset(preset: Preset, out: Path, output_dir: str | Path) -> None:
    """Write the model definitions file of a preset, then the preset, which is never written without the definitions.

    Raises:
        ConfigurationError: One of the two files cannot be written.
    """
    check_preset_path(out, output_dir)
    if preset.models_path is not None:
        write_text(preset.models_path, preset.models_text)
    write_text(out, preset.text)


def _models_path(out: Path) -> Path:
    return out.absolute().with_name(f"{out.stem}_models.yaml")


def _uses_built_in_models(winner: Winner) -> bool:
    """Return whether the default model definitions file is the built-in one and has the winner's network."""
    default, name = Path(TrainingConfig.model_config_path), winner.record.training_config.model_name
    # A file of that name in the working directory takes precedence.
    is_built_in = resolve_config_path(default) == PACKAGE_FOLDER / default
    return is_built_in and load_model_definitions(default).get(name) == winner.invariants.definitions.get(name)


def _head(winner: Winner, out: Path | None) -> str:
    file = shlex.quote(str(out or "FILE"))
    dataset = str(winner.invariants.dataset.get("fingerprint", ""))[:12]
    lines = [
        "# Written by khmer-tuner best: the best trial of a study. To retrain it:",
        f"#   khmer-tuner run --config {file} --output-dir ANOTHER_FOLDER",
        "# On a CPU, this gives bit-identical metrics with the same dataset, PyTorch version and CPU model"
        f"{'' if winner.outcome.threads else ', and with the same number of threads in each epoch'}.",
        "#",
        *(f"# {line}" for line in winner_lines(winner)),
        f"# dataset     fingerprint {dataset}",
    ]
    return "".join(f"{printable(line)}\n" for line in lines)
