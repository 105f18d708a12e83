"""Warm start: finished trials of earlier studies become the prior of a new search.

If an earlier study has the same dataset, splits, metric and models, its values are comparable, so its trials are
observations for the sampler. Otherwise its best configurations become the first search trials.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import optuna
from optuna.trial import TrialState
from pydantic import TypeAdapter

from search_spaces.diagnostics.plural import counted, listed
from search_spaces.errors import ConfigurationError
from search_spaces.space.space import SearchSpace
from search_spaces.training_config import TrainingConfig, config_from_settings
from studies.sampling.prior import OBSERVATION_MARGIN, Observation, Prior, PriorSource, fit_to_space
from studies.storage.optuna_private import DECODING_ERRORS, damage_text, set_study_attribute, study_attribute
from studies.study.invariants import StudyInvariants
from studies.trials.record import TrialKind
from studies.trials.records import trials_and_records

PRIOR = "khmer-tuner:prior"
MOST_CONFIGURATIONS = 10
_NAMES_SHOWN = 6
_STORED = TypeAdapter(Prior)


@dataclass(frozen=True)
class EarlierStudy:
    """The finished trials of an earlier study.

    Attributes:
        name: Name of its output folder or file.
        invariants: Its invariants.
        observations: Its completed, pruned and diverged trials, then those of its own prior, with all settings.
    """

    name: str
    invariants: StudyInvariants
    observations: tuple[Observation, ...]

    @classmethod
    def of(
        cls, name: str, study: optuna.Study, invariants: StudyInvariants, prior: Prior, start: TrainingConfig
    ) -> EarlierStudy:
        """Read the finished trials of a study and its `prior`, whose settings complete those of `start`.

        Raises:
            ConfigurationError: The study has no finished trial.
        """
        own = [
            Observation(
                name=record.experiment_name,
                is_preset=record.kind is TrialKind.PRESET,
                is_pruned=trial.state == TrialState.PRUNED,
                value=trial.value,
                epoch=trial.last_step,
                settings=record.config,
            )
            for trial, record in trials_and_records(study)
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        ]
        inherited = [replace(item, settings=asdict(replace(start, **item.settings))) for item in prior.observations]
        if not own:
            raise ConfigurationError(
                f"{name}: found a study without a finished trial; expected trials to learn from; choose another study"
            )
        return cls(name, invariants, (*own, *inherited))


def digest_of(earlier: Sequence[EarlierStudy]) -> str:
    """Return the SHA-256 of the trials of earlier studies."""
    data = [[study.invariants.dataset.get("fingerprint"), *map(asdict, study.observations)] for study in earlier]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def build_prior(
    earlier: Sequence[EarlierStudy], now: StudyInvariants, space: SearchSpace, start: TrainingConfig
) -> Prior:
    """Build the prior of a new search.

    Args:
        earlier: The earlier studies.
        now: The invariants of the new study.
        space: The search space of the new study.
        start: The base settings of its search trials.
    """
    sources: list[PriorSource] = []
    observations: dict[str, Observation] = {}
    configurations: list[list[dict[str, Any]]] = []
    for study in earlier:
        differences = tuple(study.invariants.differences(now))
        margin = math.inf if differences else OBSERVATION_MARGIN
        configs = [(item, config_from_settings(item.settings)) for item in study.observations]
        fits = [(item, fit_to_space(config, space, start, now.definitions, margin)) for item, config in configs]
        used = contained = [(item, fit) for item, fit in fits if fit is not None]
        completed = [(item, fit) for item, fit in contained if item.value is not None and not item.is_pruned]
        completed.sort(key=lambda pair: pair[0].value or 0.0, reverse=study.invariants.mode == "max")
        if differences:
            used = list({json.dumps(fit.params): (item, fit) for item, fit in completed}.values())[:MOST_CONFIGURATIONS]
            configurations.append([fit.params for _, fit in used])
        else:
            # An earlier study may also be in the prior of another earlier study.
            fitted = [replace(item, settings=fit.params) for item, fit in used]
            observations |= {json.dumps(asdict(item)): item for item in fitted}
        sources.append(
            PriorSource(
                name=study.name,
                trials=len(fits),
                used=len(used),
                clipped=sum(fit.clipped for _, fit in used),
                dropped=len(fits) - len(contained),
                best_value=completed[0][0].value if completed else None,
                differences=differences,
                other_settings=tuple(dict.fromkeys(name for _, fit in used for name in fit.other_settings)),
            )
        )
    # The values of different studies are not comparable with each other, so the studies take turns.
    turns = [params for params in chain(*zip_longest(*configurations)) if params is not None]
    return Prior(digest_of(earlier), tuple(sources), tuple(observations.values()), tuple(turns[:MOST_CONFIGURATIONS]))


def save_prior(study: optuna.Study, prior: Prior) -> None:
    """Store the prior of a study's search; the search settings must contain its digest."""
    set_study_attribute(study, PRIOR, _STORED.dump_python(prior, mode="json"))


def load_prior(study: optuna.Study, digest: str) -> Prior:
    """Read the prior with this digest, which the search settings of a study contain; "" stands for no prior.

    Raises:
        ConfigurationError: The prior is missing or damaged.
    """
    if not digest:
        return Prior()
    try:
        prior = _STORED.validate_python(study_attribute(study, PRIOR))
        if prior.digest != digest:
            raise ValueError(f"its digest is {prior.digest[:12]!r} instead of {digest[:12]!r}")
    except DECODING_ERRORS as error:
        raise ConfigurationError(damage_text(f"study {study.study_name!r}, prior", error)) from error
    return prior


def source_note(source: PriorSource) -> str:
    """Say in one line how a search uses an earlier study, and why."""
    trials, others = counted(source.trials, "finished trial"), listed(source.other_settings, _NAMES_SHOWN)
    if source.differences:
        text = (
            f"the values of its {trials} are not comparable with those of this study, because these differ: "
            f"{listed(source.differences, _NAMES_SHOWN)}; so its {source.used} best configurations become the first "
            "search trials"
        )
    else:
        observed = f"{source.used} of its {trials} are observations for the sampler"
        text = f"same dataset, splits, metric and models, so {observed}"
    more = {
        f"{source.clipped} of them clipped to the search space": source.clipped,
        f"{source.dropped} dropped, because the search space does not contain them": source.dropped,
        f"their values are only roughly comparable, because other fixed settings differ: {others}": (
            others and not source.differences
        ),
    }
    return "; ".join([f"warm start from {source.name}: {text}", *(part for part, applies in more.items() if applies)])
