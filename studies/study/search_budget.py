"""The open search of a study: its settings, which are fixed when it starts, and its budget of search trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Annotated, Any

import optuna
from pydantic import Field, TypeAdapter

from search_spaces.diagnostics.diagnostics import suggest
from search_spaces.errors import ConfigurationError
from search_spaces.space.file import check_fixed
from search_spaces.training_config import TrainingConfig, config_from_settings, differing_fields
from studies.sampling.pruning import PrunerName, Pruning
from studies.sampling.samplers import SamplerName
from studies.storage.output_folder import OutputFolder
from studies.study.invariants import StudyInvariants
from studies.study.lifecycle import read_attribute, study_invariants
from studies.study.presets import fix_space, study_space
from studies.study.warm_start import SEARCH, EarlierStudy, build_prior, digest_of, save_prior, study_prior
from studies.trials.leases import lock_of
from studies.trials.record import KIND, TrialKind, TrialPhase, TrialRecord, latest_presets, latest_records

# Every enqueued trial waits for a disk write, so a large budget is enqueued in steps of at most this many trials.
MOST_WAITING = 20

_BUDGET = "search_trials"
# The settings of a request that the first search trial fixes; the stored settings have the same names.
_FIXED = ("sampler", "pruner", "prune_share", "prune_grace", "parallelism")


@dataclass(frozen=True)
class SearchRequest:
    """A request for search trials; a setting that is None stands for the study's value, or the default in a new search.

    Example::

        from tuner import HyperparameterTuner, RunOptions, SearchRequest

        # Trains the experiments, then search trials until the study has four search trials.
        search = SearchRequest(at_least=4, sampler="random")
        options = RunOptions(output_dir="search_output", space_file="space.yaml", search=search)
        HyperparameterTuner("experiments.yaml", options=options).run_experiments()

    Attributes:
        sampler: ``tpe``, ``random`` or ``gp``; fixed for the study by its first search trial.
        pruner: Rule that prunes unpromising trials: ``quantile``, ``hyperband`` or ``none``; fixed like the sampler.
        prune_share: Quantile at the end of the grace period; see `Pruning.prune_share`.
        prune_grace: Grace period in epochs; see `Pruning.prune_grace`.
        parallelism: Number of search trials that may be trained at the same time; see `SearchSettings.parallelism`.
        at_least: The number of search trials that the study should have, including those of earlier runs.
        more: The number of search trials to add to the study's budget.
        fixed: Fixed settings of all search trials, keyed by field name of `TrainingConfig`.
        base: Experiments whose common settings are the base settings of search trials; empty for the study's presets.
        warm_start: Earlier studies from which the search learns; fixed like the sampler.
    """

    sampler: SamplerName | None = None
    pruner: PrunerName | None = None
    prune_share: float | None = None
    prune_grace: int | None = None
    parallelism: int | None = None
    at_least: int = 0
    more: int = 0
    fixed: Mapping[str, Any] = field(default_factory=dict)
    base: tuple[TrainingConfig, ...] = ()
    warm_start: tuple[EarlierStudy, ...] = ()

    def __post_init__(self) -> None:
        """Convert the names of sampler and pruner; raise a `ConfigurationError` for an invalid setting."""
        kinds: dict[str, type[StrEnum]] = {"sampler": SamplerName, "pruner": PrunerName}
        for name, kind in kinds.items():
            if (value := getattr(self, name)) not in (None, *kind):
                raise ConfigurationError(f"{name}: found {value!r}; {suggest(value, list(kind))}")
            object.__setattr__(self, name, value and kind(value))
        if self.parallelism is not None and self.parallelism < 1:
            raise ConfigurationError(f"parallelism: found {self.parallelism}; expected a whole number above 0")

    @property
    def starts_search(self) -> bool:
        """Whether search trials are requested, so that the search space and settings become fixed."""
        return bool(self.at_least or self.more)

    @property
    def chosen_sampler(self) -> SamplerName:
        """The sampler if this request starts the search."""
        return self.sampler or SamplerName.TPE

    @property
    def chosen_pruner(self) -> PrunerName:
        """The pruner if this request starts the search.

        The default is ``quantile``, or ``none`` for the GP sampler, which does not learn from pruned trials.
        """
        return self.pruner or (PrunerName.NONE if self.sampler is SamplerName.GP else PrunerName.QUANTILE)


@dataclass(frozen=True)
class SearchSettings:
    """The search settings of a study.

    Attributes:
        sampler: The sampler.
        pruning: The pruner and its settings.
        start: The base settings of search trials; a trial's sampled parameters override them.
        parallelism: Search trial n is sampled from and pruned against the trials numbered ``n - parallelism`` and
            below, and starts once all of these have finished.
    """

    sampler: SamplerName
    pruning: Pruning
    start: TrainingConfig
    parallelism: Annotated[int, Field(ge=1)]


_STORED, _STORED_BUDGET = TypeAdapter(SearchSettings), TypeAdapter(Annotated[int, Field(ge=0, le=100_000_000)])


def check_search(request: SearchRequest) -> None:
    """Check that the settings of a request are compatible.

    Raises:
        ConfigurationError: A pruner is combined with the GP sampler, or a setting has no effect with the pruner.
    """
    problems = []
    if request.sampler is SamplerName.GP and request.pruner not in (None, PrunerName.NONE):
        problems.append(
            f"--pruner: found {request.pruner.value!r} with the sampler gp, which does not learn from pruned trials; "
            "remove --pruner, or choose --sampler tpe"
        )
    pruner = request.chosen_pruner
    if request.prune_share is not None and pruner is not PrunerName.QUANTILE:
        problems.append(f"--prune-share: has no effect with the pruner {pruner.value}; remove --prune-share")
    if request.prune_grace is not None and pruner is PrunerName.NONE:
        problems.append("--prune-grace: has no effect without a pruner; remove --prune-grace")
    if request.warm_start and not request.starts_search:
        problems.append("--warm-start: has no effect without search trials; add --trials N, or remove --warm-start")
    if request.warm_start and request.sampler is SamplerName.RANDOM:
        problems.append("--warm-start: the sampler random does not learn from earlier trials; choose another --sampler")
    if problems:
        raise ConfigurationError(problems)


def add_search_trials(
    study: optuna.Study, folder: OutputFolder, request: SearchRequest, default_parallelism: int = 1
) -> None:
    """Add search trials to a study's budget, and enqueue the first of them; the first call fixes the search settings.

    Presets must have been enqueued before. The budget is stored before any trial is enqueued, so `top_up` enqueues the
    trials that a killed process did not enqueue.

    Args:
        study: The study.
        folder: The study's output folder.
        request: The number of trials and the settings.
        default_parallelism: The parallelism of a new search if the request has none.

    Raises:
        ConfigurationError: The study has other search settings, or a fixed setting of the request is invalid for its
            search space; all differences are reported together.
    """
    if request.fixed:
        check_fixed(study_space(study), request.fixed, study_invariants(study).definitions)
    with lock_of(study, folder):
        require_same_search(study, request)
        fix_space(study)
        if SEARCH not in study.user_attrs:
            settings = _first_settings(study, request, request.parallelism or default_parallelism)
            start, presets = config_from_settings(settings["start"]), _preset_configs(study)
            save_prior(
                study, build_prior(request.warm_start, study_invariants(study), study_space(study), start, presets)
            )
            study.set_user_attr(SEARCH, settings)
        # `more` adds to the whole budget, including trials that are not enqueued yet.
        current = max(search_budget(study), len(search_records(study)))
        budget = max(current + request.more, request.at_least)
        if budget != search_budget(study):
            study.set_user_attr(_BUDGET, budget)
    top_up(study, folder)


def require_same_search(study: optuna.Study, request: SearchRequest) -> None:
    """Check that the requested search settings are those of the study, without changing anything.

    Raises:
        ConfigurationError: As `add_search_trials`.
    """
    stored, settings = study.user_attrs.get(SEARCH), search_settings(study)
    if stored is None or settings is None:
        return
    known = {**asdict(settings.start), **stored}
    requested = {name: getattr(request, name) for name in _FIXED} | dict(request.fixed)
    changes = {name: (known[name], value) for name, value in requested.items() if value not in (None, known[name])}
    if request.base:
        space = study_space(study)
        base = differing_fields(settings.start, space.start_config(request.base))
        fixed = {name for name in base if name in request.fixed or space.parameter(name) is not None}
        changes |= {f"base {name}": change for name, change in base.items() if name not in fixed}
    problems = [
        f"study {study.study_name!r}: its search has {name} {'unset' if old is None else old}, not {new}; all search "
        "trials of a study share this setting; remove the option, or start a new study with another --output-dir"
        for name, (old, new) in changes.items()
    ]
    if request.warm_start and digest_of(request.warm_start) != study_prior(study).digest:
        before = "with other trials of earlier studies" if study_prior(study).digest else "without a warm start"
        problems.append(
            f"study {study.study_name!r}: --warm-start: its search started {before}; leave out the option to continue, "
            "or start a new study with another --output-dir"
        )
    if problems:
        raise ConfigurationError(problems)


def search_settings(study: optuna.Study) -> SearchSettings | None:
    """Return the search settings of a study; None if no search has started."""
    if SEARCH not in study.user_attrs:
        return None

    def parsed(data: Any) -> SearchSettings:
        pruning = {field.name: data[field.name] for field in fields(Pruning)}  # an incomplete attribute is damaged
        return _STORED.validate_python({**data, "pruning": pruning})

    return read_attribute(study, SEARCH, parsed)


def earlier_study(name: str, study: optuna.Study) -> EarlierStudy:
    """Read a study that a new search learns from; `name` is the name of its output folder or file.

    Raises:
        ConfigurationError: The study has no finished trial, or is damaged.
    """
    settings = search_settings(study)
    start = settings.start if settings else TrainingConfig()
    return EarlierStudy.of(name, study, start)


def search_budget(study: optuna.Study) -> int:
    """Return the number of search trials that the study should have."""
    return read_attribute(study, _BUDGET, _STORED_BUDGET.validate_python, 0)


def count_unenqueued(study: optuna.Study, records: Collection[TrialRecord]) -> int:
    """Count the search trials of the budget that are not enqueued yet; `records` are those of all trials."""
    return max(0, search_budget(study) - sum(record.kind is TrialKind.SEARCH for record in records))


def top_up(study: optuna.Study, folder: OutputFolder) -> bool:
    """Enqueue search trials of the budget until `MOST_WAITING` trials are waiting; return whether any was enqueued."""
    if _count_missing(study) <= 0:
        return False
    with lock_of(study, folder):
        missing, count = _count_missing(study), len(search_records(study))
        configurations = study_prior(study).configurations
        for position in range(count, count + missing):
            params = configurations[position] if position < len(configurations) else {}
            study.enqueue_trial(dict(params), user_attrs={KIND: TrialKind.SEARCH.value})
    return missing > 0


def _count_missing(study: optuna.Study) -> int:
    """Count the search trials to enqueue now; 0 or less if there are enough."""
    records = search_records(study)
    waiting = sum(record.phase is TrialPhase.WAITING for record in records)
    return min(search_budget(study) - len(records), MOST_WAITING - waiting)


def _first_settings(study: optuna.Study, request: SearchRequest, parallelism: int) -> dict[str, Any]:
    start = study_space(study).start_config(
        request.base or _preset_configs(study) or [_default_base(study_invariants(study))]
    )
    start = replace(start, **request.fixed)
    return {
        "sampler": request.chosen_sampler.value,
        "pruner": request.chosen_pruner.value,
        "prune_share": Pruning.prune_share if request.prune_share is None else request.prune_share,
        "prune_grace": request.prune_grace,
        "parallelism": parallelism,
        "start": asdict(start),
    }


def _preset_configs(study: optuna.Study) -> list[TrainingConfig]:
    return [preset.training_config for preset in latest_presets(study).values()]


def _default_base(invariants: StudyInvariants) -> TrainingConfig:
    """Return the default settings for a study without presets, with the study's dataset, metric and seed."""
    metric = {"early_stopping_monitor": invariants.monitor, "early_stopping_mode": invariants.mode}
    return config_from_settings({**invariants.dataset, **metric, "seed": invariants.seed})


def search_records(study: optuna.Study) -> list[TrialRecord]:
    """Return the records of a study's search trials in order of trial number, without superseded ones."""
    return [record for record in latest_records(study) if record.kind is TrialKind.SEARCH]
