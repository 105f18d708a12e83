"""The open search of a study: its settings, fixed when it begins, and its budget of search trials."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import optuna

from search_spaces.errors import ConfigurationError
from search_spaces.training_config import TrainingConfig
from studies.sampling.pruning import PrunerName, Pruning
from studies.sampling.samplers import SamplerName
from studies.storage.output_folder import OutputFolder
from studies.study.presets import study_space
from studies.trials.leases import lock_of
from studies.trials.record import KIND, TrialKind, TrialPhase, TrialRecord
from studies.trials.records import latest_presets, own_records

# Each trial waits for the disk when it is enqueued, so a large budget is enqueued piece by piece.
MOST_WAITING = 20

_SEARCH = "search"
_BUDGET = "search_trials"


@dataclass(frozen=True)
class SearchRequest:
    """What a command asks of the search; None where it leaves the choice to the study or the default.

    Attributes:
        sampler: Which sampler draws.
        pruner: Which rule ends hopeless trials.
        prune_share: See `Pruning`.
        prune_grace: See `Pruning`.
        at_least: So many search trials in the study, whatever it has already.
        more: So many search trials on top of those that the study has or is to have.
    """

    sampler: SamplerName | None = None
    pruner: PrunerName | None = None
    prune_share: float | None = None
    prune_grace: int | None = None
    at_least: int = 0
    more: int = 0


@dataclass(frozen=True)
class SearchSettings:
    """How a study searches.

    Attributes:
        sampler: Which sampler draws.
        pruning: When a search trial ends because of the others.
        start: What search trials start from: the settings that are not searched.
    """

    sampler: SamplerName = SamplerName.TPE
    pruning: Pruning = field(default_factory=Pruning)
    start: TrainingConfig = field(default_factory=TrainingConfig)


def check_search(request: SearchRequest) -> None:
    """Refuse settings that do not go together.

    Raises:
        ConfigurationError: If a Gaussian process is asked to learn from pruned trials, or a number means nothing to
            the rule it is for.
    """
    problems = []
    if request.sampler is SamplerName.GP and request.pruner not in (None, PrunerName.NONE):
        problems.append(
            f"--pruner: found {request.pruner.value!r} with the sampler gp, which learns nothing from pruned trials; "
            "leave --pruner out, or choose --sampler tpe"
        )
    pruner = request.pruner or (PrunerName.NONE if request.sampler is SamplerName.GP else PrunerName.QUANTILE)
    if request.prune_share is not None and pruner is not PrunerName.QUANTILE:
        problems.append(f"--prune-share: the pruner {pruner.value} compares no shares; leave it out")
    if request.prune_grace is not None and pruner is PrunerName.NONE:
        problems.append("--prune-grace: nothing is pruned, so there is no grace; leave it out")
    if problems:
        raise ConfigurationError(problems)


def add_search_trials(study: optuna.Study, folder: OutputFolder, request: SearchRequest) -> None:
    """Give a study more search trials; the first time this fixes how it searches.

    The budget is written before the trials are enqueued, so a kill in between leaves none out: `top_up` completes it.

    Args:
        study: From `create_or_join_study`, with its presets enqueued.
        folder: The study's folder.
        request: What is asked for.

    Raises:
        ConfigurationError: If the study searches in another way already; every difference is told.
    """
    with lock_of(study, folder):
        refuse_other_search(study, request)
        if _SEARCH not in study.user_attrs:
            study.set_user_attr(_SEARCH, _first_settings(study, request))
        # What the study is to have already counts whole, enqueued or not.
        have = max(search_budget(study), len(search_records(study)))
        budget = max(have + request.more, request.at_least)
        if budget != search_budget(study):
            study.set_user_attr(_BUDGET, budget)
    top_up(study, folder)


def refuse_other_search(study: optuna.Study, request: SearchRequest) -> None:
    """Refuse to search in another way than the study does; nothing is changed.

    Raises:
        ConfigurationError: As `add_search_trials`.
    """
    known = study.user_attrs.get(_SEARCH)
    if known is None:
        return
    asked = {
        "sampler": request.sampler,
        "pruner": request.pruner,
        "prune_share": request.prune_share,
        "prune_grace": request.prune_grace,
    }
    problems = [
        f"study {study.study_name!r}: its search has {name} {known[name]}, not {value}; all search trials are "
        "drawn and judged alike: leave the option out, or begin another study with another --output-dir"
        for name, value in asked.items()
        if value is not None and value != known[name]
    ]
    if problems:
        raise ConfigurationError(problems)


def search_settings(study: optuna.Study) -> SearchSettings | None:
    """Return how a study searches, or None if it does not (yet)."""
    data = study.user_attrs.get(_SEARCH)
    if data is None:
        return None
    known = {item.name for item in fields(TrainingConfig)}
    start = TrainingConfig(**{name: value for name, value in data["start"].items() if name in known})
    pruning = Pruning(PrunerName(data["pruner"]), data["prune_share"], data["prune_grace"])
    return SearchSettings(SamplerName(data["sampler"]), pruning, start)


def search_budget(study: optuna.Study) -> int:
    """Return how many search trials the study is to have."""
    return int(study.user_attrs.get(_BUDGET, 0))


def count_unenqueued(study: optuna.Study, records: Collection[TrialRecord]) -> int:
    """Return how many search trials of the budget are not among the study's trials, `records`, yet."""
    return max(0, search_budget(study) - sum(record.kind is TrialKind.SEARCH for record in records))


def top_up(study: optuna.Study, folder: OutputFolder) -> bool:
    """Enqueue search trials that the budget still has, as long as few are waiting.

    Returns:
        Whether any was enqueued.
    """
    if len(search_records(study)) >= search_budget(study):
        return False
    with lock_of(study, folder):
        records = search_records(study)
        waiting = sum(record.phase is TrialPhase.WAITING for record in records)
        missing = min(search_budget(study) - len(records), MOST_WAITING - waiting)
        for _ in range(missing):
            study.enqueue_trial({}, user_attrs={KIND: TrialKind.SEARCH.value})
    return missing > 0


def _first_settings(study: optuna.Study, request: SearchRequest) -> dict[str, Any]:
    presets = latest_presets(own_records(study))
    sampler = request.sampler or SamplerName.TPE
    default_pruner = PrunerName.NONE if sampler is SamplerName.GP else PrunerName.QUANTILE
    start = study_space(study).start_config([preset.training_config for preset in presets.values()])
    return {
        "sampler": sampler.value,
        "pruner": (request.pruner or default_pruner).value,
        "prune_share": Pruning.share if request.prune_share is None else request.prune_share,
        "prune_grace": request.prune_grace,
        "start": asdict(start),
    }


def search_records(study: optuna.Study) -> list[TrialRecord]:
    """Return the study's search trials by number."""
    return [record for record in own_records(study) if record.kind is TrialKind.SEARCH]
