"""Finding the best trial of a study, and exporting it as an experiments file, without importing PyTorch."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from search_spaces import (
    ConfigurationError,
    Targets,
    TrainingConfig,
    definitions_yaml,
    experiments_yaml,
    load_model_definitions,
    name_problem,
    resolve_config_path,
)
from search_spaces.diagnostics.disk import write_text
from search_spaces.yaml_reader.file import PACKAGE_FOLDER
from studies import (
    OutputFolder,
    StudyInvariants,
    TrialOutcome,
    TrialRecord,
    best_records,
    ended_records,
    study_invariants,
    study_status,
    study_targets,
)
from tuner.display.terminal import printable
from tuner.session.output_paths import NETWORKS, PRESET, check_output_file
from tuner.training.history import EpochMetrics, best_checkpoint_path, read_metrics

_UNITS = {"latency_ms": "ms per image", "parameters": "parameters"}


@dataclass(frozen=True)
class Winner:
    """The best completed trial of a study, or of its trials within limits.

    The results file names the same trial: the completed trial with the highest validation character accuracy. Ties are
    resolved by the highest validation sequence accuracy, then by the lowest trial number. Pruned trials are ignored.

    Attributes:
        study: The study's name.
        folder: The study's output folder.
        invariants: The fixed settings of the study.
        targets: The study's targets.
        record: The trial.
        why: Why the trial is the winner, as text.
        leader: The name of a trial within the limits with a better value of the monitored metric; None if no trial has.
    """

    study: str
    folder: OutputFolder
    invariants: StudyInvariants
    targets: Targets
    record: TrialRecord
    why: str
    leader: str | None

    @property
    def name(self) -> str:
        """The name of the experiment or search trial."""
        return self.record.experiment_name

    @property
    def outcome(self) -> TrialOutcome:
        """The outcome of the trial."""
        assert self.record.outcome is not None, f"trial {self.record.number} has completed, but has no outcome"
        return self.record.outcome

    @property
    def checkpoint(self) -> Path:
        """The path of the trial's best checkpoint; the file may be missing."""
        return best_checkpoint_path(self.folder.trial_dir(self.name))

    @property
    def best_epoch(self) -> EpochMetrics | None:
        """The metrics of the trial's best epoch; None if the trial's files are missing."""
        epochs = read_metrics(self.folder.trial_dir(self.name))
        return next((epoch for epoch in epochs if epoch.epoch == self.outcome.best_epoch), None)


def find_winner(
    study: optuna.Study, folder: OutputFolder, *, latency_ms: float | None = None, parameters: int | None = None
) -> Winner:
    """Return the best completed trial of a study.

    `latency_ms` and `parameters` are the highest accepted values; None for no limit. Unknown values are not accepted.

    Raises:
        ConfigurationError: No trial of the study has completed, or none is within the limits.
    """
    completed = best_records(ended_records(study))
    if not completed:
        raise ConfigurationError(
            f"output folder {folder.path}: no trial of the study has completed yet, so there is no best trial; "
            "run `khmer-tuner status` to see the progress"
        )
    limits = {"latency_ms": latency_ms, "parameters": parameters}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    ranked = [record for record in completed if all(_value(record, name) <= given[name] for name in given)]
    maxima = " and ".join(f"at most {limit:,.10g} {_UNITS[name]}" for name, limit in given.items())
    within = f" with {maxima}" if maxima else ""
    if not ranked:
        lowest = "; ".join(_lowest(completed, name) for name in given)
        remedy = "use higher limits or none, or search among smaller models"
        raise ConfigurationError(f"output folder {folder.path}: found no completed trial{within}; {lowest}; {remedy}")
    best_of = f"the highest validation character accuracy of {len(ranked)} completed trials"
    status, numbers = study_status(study, folder), {record.number for record in ranked}
    status = replace(status, rows=tuple(row for row in status.rows if row.number in numbers))
    leader = status.leader_over(ranked[0].experiment_name)
    return Winner(
        study=study.study_name,
        folder=folder,
        invariants=study_invariants(study),
        targets=study_targets(study),
        record=ranked[0],
        why=(best_of if len(ranked) > 1 else "the only completed trial") + within,
        leader=None if leader is None else leader.name,
    )


def _value(record: TrialRecord, name: str) -> float:
    return getattr(record.outcome, name) or math.inf  # unknown


def _lowest(records: Sequence[TrialRecord], name: str) -> str:
    """Describe the lowest known value of a property, rounded up so that it can be used as a limit."""
    lowest = min(records, key=lambda record: _value(record, name))
    if (value := _value(lowest, name)) == math.inf:
        return f"no trial has a measurement of its {_UNITS[name]}"
    return f"the lowest is {math.ceil(value * 1000) / 1000:,.10g} {_UNITS[name]} ({lowest.experiment_name})"


def best_checkpoint(study: optuna.Study, folder: OutputFolder) -> Path:
    """Return the checkpoint of a study's best completed trial.

    Raises:
        ConfigurationError: No trial of the study has completed, or the checkpoint is missing.
    """
    return existing_checkpoint(find_winner(study, folder).record, folder)


def existing_checkpoint(record: TrialRecord, folder: OutputFolder) -> Path:
    """Return the best checkpoint of a trial; raise ConfigurationError if it is missing."""
    checkpoint = best_checkpoint_path(folder.trial_dir(record.experiment_name))
    if not checkpoint.is_file():
        raise ConfigurationError(
            f"checkpoint {checkpoint}: the best checkpoint of trial {record.experiment_name!r} (number "
            f"{record.number}, {record.phase.value}) is missing; restore it, use another trial, or train this one to "
            "its end"
        )
    return checkpoint


def winner_lines(winner: Winner) -> list[str]:
    """Format the description of a winner, one line per property."""
    outcome, config = winner.outcome, winner.record.training_config
    ended = f"{outcome.why_ended.text} after {outcome.total_epochs} of {config.num_epochs} epochs"
    lines = [
        f"trial       {winner.name} (number {winner.record.number}), {ended}",
        f"why best    {winner.why}",
        f"validation  {_metrics_text(winner)}",
    ]
    if outcome.unseen_text:
        lines.append(f"unseen      {outcome.unseen_text} (designs that are in no other split)")
    if outcome.size_and_speed_text:
        lines.append(f"size        {outcome.size_and_speed_text}")
    if winner.leader is not None:
        lines.append(f"            {winner.leader} has a better {winner.invariants.monitor}, the monitored metric")
    missing = "" if winner.checkpoint.is_file() else " (missing)"
    return [
        *lines,
        f"checkpoint  {winner.checkpoint}{missing}",
        f"study       {winner.study} in {winner.folder.path}",
        f"versions    {', '.join(f'{name} {version}' for name, version in winner.invariants.versions.items())}",
    ]


def _metrics_text(winner: Winner) -> str:
    """Format the metrics of the winner's best epoch.

    Without the trial's metrics file, the highest accuracies of all epochs are shown instead.
    """
    epoch = winner.best_epoch
    if epoch is None:
        return f"char {winner.outcome.best_val_char_accuracy:.4f}, seq {winner.outcome.best_val_seq_accuracy:.4f}"
    accuracies = f"char {epoch.val_char_accuracy:.4f}, seq {epoch.val_seq_accuracy:.4f}"
    return f"{accuracies}, loss {epoch.val_loss:.4f} (epoch {epoch.epoch})"


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
