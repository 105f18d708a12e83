"""Warm start: finished trials of earlier studies become the prior of a new search.

If an earlier study has the same dataset, splits, metric and models, its values are comparable, so its trials are
observations for the sampler. Otherwise its best configurations become the first search trials.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, zip_longest
from typing import NamedTuple

import optuna
from optuna.trial import TrialState
from pydantic import TypeAdapter

from search_spaces.diagnostics.wording import counted, listed
from search_spaces.errors import ConfigurationError
from search_spaces.space.space import SearchSpace
from search_spaces.training_config import TrainingConfig, config_from_settings, settings_with_effect
from studies.sampling.prior import OBSERVATION_MARGIN, Fit, Observation, Prior, PriorSource, fit_to_space
from studies.storage.optuna_private import DECODING_ERRORS, damage_text, set_study_attribute, study_attribute
from studies.study.invariants import StudyInvariants
from studies.study.lifecycle import study_invariants
from studies.trials.record import trials_and_records

SEARCH = "search"  # the attribute with the settings of a study's search
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
        observations: Its completed, pruned and diverged trials, then those of its own prior.
    """

    name: str
    invariants: StudyInvariants
    observations: tuple[Observation, ...]

    @classmethod
    def of(cls, name: str, study: optuna.Study, start: TrainingConfig) -> EarlierStudy:
        """Read a study, whose search has the base settings `start`.

        Raises:
            ConfigurationError: The study is damaged, or has no finished trial.
        """
        own = [
            Observation(
                name=record.experiment_name,
                is_pruned=trial.state == TrialState.PRUNED,
                value=trial.value,
                epoch=trial.last_step,
                settings=settings_with_effect(record.training_config),
                params=trial.params,
            )
            for trial, record in trials_and_records(study)
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and record.config
        ]
        inherited = study_prior(study).observations
        if not own:
            raise ConfigurationError(
                f"{name}: found a study without a finished trial; expected trials to learn from; choose another study"
            )
        base = settings_with_effect(start)
        complete = [replace(item, settings=base | dict(item.settings)) for item in inherited]
        return cls(name, study_invariants(study), (*own, *complete))


def digest_of(earlier: Sequence[EarlierStudy]) -> str:
    """Return the SHA-256 of the trials of earlier studies; "" without earlier studies."""
    if not earlier:
        return ""
    data = [[study.invariants.dataset.get("fingerprint"), *map(asdict, study.observations)] for study in earlier]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def build_prior(
    earlier: Sequence[EarlierStudy],
    now: StudyInvariants,
    space: SearchSpace,
    start: TrainingConfig,
    presets: Iterable[TrainingConfig],
) -> Prior:
    """Build the prior of a new search.

    Args:
        earlier: The earlier studies.
        now: The invariants of the new study.
        space: The search space of the new study.
        start: The base settings of its search trials.
        presets: Its presets, whose configurations are not tried again.
    """
    fitted = [_FittedStudy.of(study, now, space, start) for study in earlier]
    fits = (fit_to_space(preset, (), space, start, now.definitions) for preset in presets)
    tried = {json.dumps(fit.params) for fit in fits if fit is not None}
    # The values of different studies are not comparable with each other, so the studies take turns.
    turns = chain(*zip_longest(*(one.best_first(one.contained) for one in fitted if one.differences)))
    ranked = _distinct(turns, lambda one: json.dumps(one.fit.params), tried)[:MOST_CONFIGURATIONS]
    comparable = chain(*(one.contained for one in fitted if not one.differences))
    observed = _distinct(comparable, lambda one: json.dumps([one.item.settings, one.item.value, one.item.epoch]))
    return Prior(
        digest=digest_of(earlier),
        sources=tuple(one.source([*ranked, *observed]) for one in fitted),
        observations=tuple(one.stored(start) for one in observed),
        configurations=tuple(one.fit.params for one in ranked),
    )


def save_prior(study: optuna.Study, prior: Prior) -> None:
    """Store the prior of a study's search, or replace that of a killed command, before the search settings."""
    if prior.sources or study_attribute(study, PRIOR) is not None:
        set_study_attribute(study, PRIOR, _STORED.dump_python(prior, mode="json"))


def study_prior(study: optuna.Study) -> Prior:
    """Return the prior of a study's search; an empty one without a warm start.

    Raises:
        ConfigurationError: The prior is damaged.
    """
    if SEARCH not in study.user_attrs:  # a killed command may have stored a prior
        return Prior()
    try:
        return _STORED.validate_python(study_attribute(study, PRIOR) or Prior())
    except DECODING_ERRORS as error:
        raise ConfigurationError(damage_text(f"study {study.study_name!r}, prior", error)) from error


def source_note(source: PriorSource) -> str:
    """Say in one line how a search uses an earlier study, and why."""
    trials, settings = counted(source.trials, "finished trial"), listed(source.differing_settings, _NAMES_SHOWN)
    if source.differences:
        text = (
            f"the values of its {trials} are not comparable with those of this study, because these differ: "
            f"{listed(source.differences, _NAMES_SHOWN)}; so its {source.used} best configurations become the first "
            "search trials"
        )
        repeated = 0
    else:
        observed = f"{source.used} of its {trials} are observations for the sampler"
        text = f"same dataset, splits, metric and models, so {observed}"
        repeated = source.trials - source.used - source.dropped
    more = {
        f"{source.clipped} of them clipped to the search space": source.clipped,
        f"{source.dropped} dropped, because the search space does not contain them": source.dropped,
        f"{repeated} left out, because they repeat other trials": repeated,
        f"the values are only roughly comparable, because fixed settings differ: {settings}": (
            settings and not source.differences
        ),
    }
    return "; ".join([f"warm start from {source.name}: {text}", *(part for part, applies in more.items() if applies)])


class _Candidate(NamedTuple):
    """A trial of an earlier study that the new search space contains."""

    study: EarlierStudy
    item: Observation
    fit: Fit

    def stored(self, start: TrainingConfig) -> Observation:
        """Return the observation as stored in a prior."""
        base = settings_with_effect(start)
        settings = {name: value for name, value in self.item.settings.items() if value != base.get(name)}
        return replace(self.item, settings=settings, params=self.fit.params)


@dataclass(frozen=True)
class _FittedStudy:
    """An earlier study, why its values are not comparable, and its trials that the new search space contains."""

    study: EarlierStudy
    differences: tuple[str, ...]
    contained: list[_Candidate]

    @classmethod
    def of(cls, study: EarlierStudy, now: StudyInvariants, space: SearchSpace, start: TrainingConfig) -> _FittedStudy:
        differences = tuple(study.invariants.differences(now))
        margin = math.inf if differences else OBSERVATION_MARGIN
        configs = [(item, config_from_settings(item.settings)) for item in study.observations]
        fits = [
            (item, fit_to_space(config, item.params, space, start, now.definitions, margin)) for item, config in configs
        ]
        return cls(study, differences, [_Candidate(study, item, fit) for item, fit in fits if fit is not None])

    def best_first(self, candidates: Iterable[_Candidate]) -> list[_Candidate]:
        """Return the completed trials, best first; of equal values, the earlier trial comes first."""
        completed = [one for one in candidates if one.item.value is not None and not one.item.is_pruned]
        return sorted(completed, key=lambda one: one.item.value or 0.0, reverse=self.study.invariants.mode == "max")

    def source(self, used: Iterable[_Candidate]) -> PriorSource:
        """Summarise the study, given the used trials of all studies."""
        used = [one for one in used if one.study is self.study]
        best = self.best_first(used)
        return PriorSource(
            name=self.study.name,
            trials=len(self.study.observations),
            used=len(used),
            clipped=sum(one.fit.clipped for one in used),
            dropped=len(self.study.observations) - len(self.contained),
            best_value=best[0].item.value if best else None,
            differences=self.differences,
            differing_settings=tuple(dict.fromkeys(name for one in used for name in one.fit.differing_settings)),
        )


def _distinct(
    candidates: Iterable[_Candidate | None], key: Callable[[_Candidate], str], known: Collection[str] = ()
) -> list[_Candidate]:
    """Return the first candidate with each key that is not known."""
    found: dict[str, _Candidate] = {}
    for one in candidates:
        if one is not None and key(one) not in known:
            found.setdefault(key(one), one)
    return list(found.values())
