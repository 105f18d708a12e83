"""Presets as enqueued trials: one per name, even if commands are killed, repeated or run in parallel."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.trial import TrialState
from pydantic import TypeAdapter

from search_spaces.errors import ConfigurationError
from search_spaces.space.file import default_search_space, parse_search_space
from search_spaces.space.space import SearchSpace
from search_spaces.training_config import TrainingConfig, config_digest, differing_fields
from studies.sampling.distributions import to_distribution
from studies.storage.output_folder import OutputFolder
from studies.study.lifecycle import read_attribute, study_invariants
from studies.trials import record as trial_record
from studies.trials.leases import lock_of
from studies.trials.record import TrialKind, TrialPhase, TrialRecord, foreign_trials, latest_presets, latest_records

_PRESET_ORDER = "experiments"
_SPACE = "space"


def enqueue_presets(
    study: optuna.Study,
    folder: OutputFolder,
    experiments: Mapping[str, TrainingConfig],
    space: SearchSpace | None = None,
    *,
    file_order: Sequence[str] | None = None,
    starts_search: bool = False,
    on_note: Callable[[str], object] = lambda note: None,
) -> dict[str, TrialRecord]:
    """Enqueue the presets that the study does not contain yet, in the given order.

    Args:
        study: The study from `create_or_join_study`.
        folder: The study's output folder.
        experiments: The presets' configurations, keyed by experiment name.
        space: The search space, which this call fixes if the study has no fixed space yet; None for the study's space.
        file_order: All experiment names of the file in its order, which is the order of the results; None if
            `experiments` has all of them.
        starts_search: Whether search trials follow, so that this call fixes the space even if `space` is None.
        on_note: Called with a note for each preset setting that is outside the space.

    Returns:
        The records of the given presets, keyed by name, in the given order.

    Raises:
        ConfigurationError: The study contains a preset of the same name with other settings or a preset whose name
            differs only in case, or it has another search space. All problems are reported together; nothing is
            enqueued.
    """
    with lock_of(study, folder):
        refuse_changed_presets(study, folder, experiments, space)
        known = latest_presets(study)
        _keep_order(study, list(file_order or experiments), experiments)
        if starts_search or space is not None or _SPACE in study.user_attrs:
            for note in fix_space(study, space, experiments):
                on_note(note)
        for name, config in experiments.items():
            if name not in known:
                _enqueue(study, name, config)
        enqueued = latest_presets(study)
    return {name: enqueued[name] for name in experiments}


def preset_order(study: optuna.Study) -> list[str]:
    """Return the names of the study's presets in the order of the experiments file."""
    return read_attribute(study, _PRESET_ORDER, TypeAdapter(list[str]).validate_python, [])


def study_space(study: optuna.Study) -> SearchSpace:
    """Return the study's search space; until it is fixed, the default space, widened to contain the study's presets.

    Raises:
        ConfigurationError: This version of the program cannot read the stored space.
    """
    if (fixed := fixed_space(study)) is not None:
        return fixed
    return default_search_space(study_invariants(study).definitions).widened(_preset_configs(study).values())


def fixed_space(study: optuna.Study) -> SearchSpace | None:
    """Return the study's fixed search space; None until a search starts or a command sets a space."""
    return read_attribute(study, _SPACE, parse_search_space) if _SPACE in study.user_attrs else None


def refuse_changed_presets(
    study: optuna.Study, folder: OutputFolder, experiments: Mapping[str, TrainingConfig], space: SearchSpace | None
) -> None:
    """Check that presets and a search space do not conflict with those of the study, without changing anything.

    Raises:
        ConfigurationError: As `enqueue_presets`.
    """
    known = latest_presets(study)
    problems = [*_preset_problems(known, experiments), *_space_problems(study, folder, space, experiments)]
    if problems:
        raise ConfigurationError(problems)


def retry_failed_trials(study: optuna.Study, folder: OutputFolder) -> list[str]:
    """Enqueue a retry of every failed trial, with the same name and parameters; the retry supersedes the failed trial.

    Diverged search trials are not retried, because they would diverge again and the sampler has learned from them.

    Returns:
        The names of the retried trials.
    """
    with lock_of(study, folder):
        trials = study.get_trials(deepcopy=False)
        failed = [record for record in latest_records(study) if record.phase is TrialPhase.FAILED]
        failed = [record for record in failed if trials[record.number].state != TrialState.PRUNED]
        for record in failed:
            if record.kind is TrialKind.PRESET:
                _enqueue(study, record.experiment_name, record.training_config)
            else:
                named = {trial_record.KIND: record.kind.value, trial_record.EXPERIMENT_NAME: record.experiment_name}
                study.enqueue_trial(trials[record.number].params, user_attrs=named)
    return [record.experiment_name for record in failed]


def require_same_distributions(study: optuna.Study, space: SearchSpace) -> None:
    """Check that the distributions of other programs' trials are compatible with the search space.

    Raises:
        ConfigurationError: A distribution is incompatible, so Optuna would reject every suggestion of the parameter.
    """
    for trial in foreign_trials(study):
        for item in space:
            found, expected = trial.distributions.get(item.name), to_distribution(item.domain)
            try:
                check_distribution_compatibility(found or expected, expected)
            except ValueError as error:
                what = f"trial {trial.number}, of another program, has the distribution {found} for {item.name!r}"
                remedy = "Optuna allows one distribution per parameter: start a new study with another --output-dir"
                raise ConfigurationError(f"{what}, but the search space has {expected}; {remedy}") from error


def fix_space(
    study: optuna.Study, space: SearchSpace | None = None, experiments: Mapping[str, TrainingConfig] | None = None
) -> list[str]:
    """Fix the study's search space if it is not fixed yet, and widen it to contain the presets.

    The caller must hold the study lock.

    Args:
        study: The study.
        space: The space to fix; None for the default space. Ignored if a space is fixed already.
        experiments: Presets that are about to be enqueued, keyed by name.

    Returns:
        A note for each preset setting that was outside the space.
    """
    fixed, known = fixed_space(study), _preset_configs(study)
    presets = {**known, **(experiments or {})}
    kept = fixed or space or default_search_space(study_invariants(study).definitions)
    widened = kept.widened(presets.values())
    require_same_distributions(study, widened)
    if widened.as_dict() != study.user_attrs.get(_SPACE):
        study.set_user_attr(_SPACE, widened.as_dict())
    return kept.preset_notes({name: config for name, config in presets.items() if fixed is None or name not in known})


def _preset_configs(study: optuna.Study) -> dict[str, TrainingConfig]:
    return {name: preset.training_config for name, preset in latest_presets(study).items()}


def _space_problems(
    study: optuna.Study, folder: OutputFolder, space: SearchSpace | None, experiments: Mapping[str, TrainingConfig]
) -> list[str]:
    fixed = fixed_space(study)
    if space is None or fixed is None:
        return []
    # A killed command may have widened the fixed space for experiments that it did not enqueue: ignore that widening.
    presets = {**_preset_configs(study), **experiments}
    return [
        f"study {study.study_name!r}: its search space is fixed: {change}; leave out --space, or start a new study "
        f"that learns from this one: add `--warm-start {shlex.quote(str(folder.path))}` and another --output-dir"
        for change in fixed.widened(presets.values()).changes(space.widened(presets.values()))
    ]


def _enqueue(study: optuna.Study, name: str, config: TrainingConfig) -> None:
    """Enqueue one preset in one transaction, so that a killed process never leaves an incomplete trial."""
    attributes = {
        trial_record.KIND: TrialKind.PRESET.value,
        trial_record.EXPERIMENT_NAME: name,
        trial_record.CONFIG: asdict(config),
        trial_record.CONFIG_DIGEST: config_digest(config),
    }
    # All settings are enqueued, because the space, which determines the parameters, may be fixed later.
    study.enqueue_trial(asdict(config), user_attrs=attributes)


def _preset_problems(known: Mapping[str, TrialRecord], experiments: Mapping[str, TrainingConfig]) -> list[str]:
    existing = {name.casefold(): name for name in known}
    problems: list[str] = []
    for name, config in experiments.items():
        other = existing.get(name.casefold(), name)
        if other != name:
            problems.append(
                f"experiment {name!r}: the study already contains {other!r}, and both names mean the same folder on a "
                "case-insensitive file system; choose another name"
            )
        elif name in known and known[name].config_digest != config_digest(config):
            problems.append(_change_text(known[name], config))
    return problems


def _change_text(record: TrialRecord, config: TrainingConfig) -> str:
    changes = differing_fields(record.training_config, config)
    text = ", ".join(f"{field} was {old!r} and is {new!r} now" for field, (old, new) in changes.items())
    return (
        f"experiment {record.experiment_name!r}: the study contains it with other settings "
        f"({text or 'stored by another version'}); restore the values (file or --set), rename the experiment, "
        "or start a new study with another --output-dir"
    )


def _keep_order(study: optuna.Study, file_order: list[str], experiments: Mapping[str, TrainingConfig]) -> None:
    old = preset_order(study)
    new = merged_order(old, file_order)
    order = [name for name in new if name in old or name in experiments]
    if order != old:
        study.set_user_attr(_PRESET_ORDER, order)


def merged_order(known: Sequence[str], latest: Sequence[str]) -> list[str]:
    """Merge two orders of names: names in `latest` take its order, and the other known names keep their positions.

    Args:
        known: The stored order.
        latest: The order in the current file.

    Returns:
        All names, each once. A new name comes right after its predecessor in `latest`.
    """
    shared = iter([name for name in latest if name in known])
    merged = [next(shared) if name in latest else name for name in known]
    for position, name in enumerate(latest):
        if name not in merged:
            merged.insert(_insert_position(merged, latest, position), name)
    return merged


def _insert_position(merged: list[str], latest: Sequence[str], position: int) -> int:
    if position > 0:
        return merged.index(latest[position - 1]) + 1
    followers = [merged.index(name) for name in latest[1:] if name in merged]
    return min(followers, default=len(merged))
