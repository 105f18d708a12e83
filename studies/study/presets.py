"""Presets as enqueued trials: each name once in a study, whatever is killed, repeated or run side by side."""

from __future__ import annotations

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
from studies.trials.record import TrialKind, TrialPhase, TrialRecord
from studies.trials.records import latest_presets, latest_records, own_records

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
    """Add the presets that the study does not have yet, as waiting trials in their order.

    Args:
        study: From `create_or_join_study`.
        folder: The study's folder.
        experiments: The presets by name.
        space: What the search may vary, fixed by this call if it is not fixed yet; None for the study's.
        file_order: All names of the file that the presets come from, if they are a selection; results keep
            that order.
        starts_search: Whether search trials follow, so that this call fixes the space even if none is given.
        on_note: Receives a note for each value of a preset that is outside the space.

    Returns:
        The trial of each of the given presets, in the given order.

    Raises:
        ConfigurationError: A name is taken in the study by other settings, or differs from a taken one in upper and
            lower case only, or the study has another space. All problems are reported together; nothing is added.
    """
    with lock_of(study, folder):
        refuse_changed_presets(study, experiments, space)
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
    """Return the names of the study's presets in the order of their file."""
    return read_attribute(study, _PRESET_ORDER, TypeAdapter(list[str]).validate_python, [])


def study_space(study: optuna.Study) -> SearchSpace:
    """Return the study's search space, or the shipped one until it is fixed, widened to hold the study's presets.

    Raises:
        ConfigurationError: If this version cannot read it.
    """
    if (fixed := fixed_space(study)) is not None:
        return fixed
    return default_search_space(study_invariants(study).definitions).widened(_preset_configs(study).values())


def fixed_space(study: optuna.Study) -> SearchSpace | None:
    """Return the study's search space; None until the search starts or a command names one."""
    return read_attribute(study, _SPACE, parse_search_space) if _SPACE in study.user_attrs else None


def refuse_changed_presets(
    study: optuna.Study, experiments: Mapping[str, TrainingConfig], space: SearchSpace | None
) -> None:
    """Refuse presets and a search space that are not the study's; nothing is changed.

    Raises:
        ConfigurationError: As `enqueue_presets`.
    """
    known = latest_presets(study)
    problems = [*_preset_problems(known, experiments), *_space_problems(study, space, experiments)]
    if problems:
        raise ConfigurationError(problems)


def retry_failed_trials(study: optuna.Study, folder: OutputFolder) -> list[str]:
    """Enqueue every failed trial once more, under its name and with its parameters; the new trial supersedes it.

    Search trials that diverged are left out: they would diverge again, and the sampler has learned from them.

    Returns:
        The names of the trials.
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
    """Refuse trials of other programs that have a parameter of the space with an incompatible distribution.

    Raises:
        ConfigurationError: There is such a trial; Optuna would not let any trial suggest that parameter.
    """
    own = {record.number for record in own_records(study)}
    for trial in study.get_trials(deepcopy=False):
        for item in space if trial.number not in own else ():
            theirs, mine = trial.distributions.get(item.name), to_distribution(item.domain)
            try:
                check_distribution_compatibility(theirs or mine, mine)
            except ValueError as error:
                what = f"trial {trial.number}, of another program, has the distribution {theirs} for {item.name!r}"
                remedy = "Optuna allows one distribution a parameter: start a new study with another --output-dir"
                raise ConfigurationError(f"{what}, the search space has {mine}; {remedy}") from error


def fix_space(
    study: optuna.Study, space: SearchSpace | None = None, experiments: Mapping[str, TrainingConfig] | None = None
) -> list[str]:
    """Fix the study's search space, if it is not fixed yet, and widen it to hold the presets; under the study's lock.

    Args:
        study: The study.
        space: The space if it is not fixed yet; None for the shipped one.
        experiments: Presets that are about to be enqueued.

    Returns:
        A note for each value of a preset that was outside the space.
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
    study: optuna.Study, space: SearchSpace | None, experiments: Mapping[str, TrainingConfig]
) -> list[str]:
    fixed = fixed_space(study)
    if space is None or fixed is None:
        return []
    # A killed command may have fixed the space, widened to hold its experiments, before it enqueued these.
    presets = {**_preset_configs(study), **experiments}
    return [
        f"study {study.study_name!r}: its search space is fixed: {change}; leave out --space, "
        "or start another study with another --output-dir"
        for change in fixed.widened(presets.values()).changes(space.widened(presets.values()))
    ]


def _enqueue(study: optuna.Study, name: str, config: TrainingConfig) -> None:
    """Add one preset in one transaction: a kill leaves it out or in, never half."""
    attributes = {
        trial_record.KIND: TrialKind.PRESET.value,
        trial_record.EXPERIMENT_NAME: name,
        trial_record.CONFIG: asdict(config),
        trial_record.CONFIG_DIGEST: config_digest(config),
    }
    # All settings: which of them are parameters is known once the space is fixed, which may be later.
    study.enqueue_trial(asdict(config), user_attrs=attributes)


def _preset_problems(known: Mapping[str, TrialRecord], experiments: Mapping[str, TrainingConfig]) -> list[str]:
    taken = {name.casefold(): name for name in known}
    problems: list[str] = []
    for name, config in experiments.items():
        other = taken.get(name.casefold(), name)
        if other != name:
            problems.append(
                f"experiment {name!r}: the study has {other!r} already, and the two would share a folder "
                "where upper and lower case are the same; choose another name"
            )
        elif name in known and known[name].config_digest != config_digest(config):
            problems.append(_change_text(known[name], config))
    return problems


def _change_text(record: TrialRecord, config: TrainingConfig) -> str:
    changes = differing_fields(record.training_config, config)
    told = ", ".join(f"{field} was {old!r} and is {new!r} now" for field, (old, new) in changes.items())
    return (
        f"experiment {record.experiment_name!r}: this study has it with other settings "
        f"({told or 'of another version'}); change them back, give the experiment a new name, "
        "or begin another study with another --output-dir"
    )


def _keep_order(study: optuna.Study, file_order: list[str], experiments: Mapping[str, TrainingConfig]) -> None:
    old = preset_order(study)
    new = merged_order(old, file_order)
    wanted = [name for name in new if name in old or name in experiments]
    if wanted != old:
        study.set_user_attr(_PRESET_ORDER, wanted)


def merged_order(known: Sequence[str], latest: Sequence[str]) -> list[str]:
    """Merge two orders: what the latest knows takes its order, what only the older knows keeps its place.

    Args:
        known: The order so far.
        latest: The order of the file that is run now.

    Returns:
        All names, each once. A new name stands right after its predecessor in `latest`.
    """
    shared = iter([name for name in latest if name in known])
    merged = [next(shared) if name in latest else name for name in known]
    for position, name in enumerate(latest):
        if name not in merged:
            merged.insert(_place(merged, latest, position), name)
    return merged


def _place(merged: list[str], latest: Sequence[str], position: int) -> int:
    if position > 0:
        return merged.index(latest[position - 1]) + 1
    followers = [merged.index(name) for name in latest[1:] if name in merged]
    return min(followers, default=len(merged))
