"""The private Optuna names that this package uses: a version of Optuna that changes one of them fails here."""

import json
import logging
import math
import statistics
from datetime import datetime
from typing import ClassVar

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import ThresholdPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from search_spaces import ConfigurationError, TrainingConfig
from studies import load_study
from studies.storage.optuna_private import (
    NarrowTPESampler,
    claim_waiting,
    continue_trial,
    hide_gp_warnings,
    rdb_storage,
    report_again,
    require_methods,
    take_over_running,
)


def test_only_the_first_claim_of_a_waiting_trial_succeeds(start):
    study, folder = start({"one": TrainingConfig()})
    other, _ = load_study(folder.path)
    waiting = study.get_trials()[0]
    started = datetime.now()
    assert claim_waiting(study, waiting, "owner", '"first"')
    assert not claim_waiting(study, waiting, "owner", '"second"')
    for view in (study, other):
        trial = view.get_trials()[0]
        assert (trial.state, trial.user_attrs["owner"]) == (TrialState.RUNNING, "first")
        assert trial.datetime_start is not None
        assert abs((trial.datetime_start - started).total_seconds()) < 60


def test_only_the_first_takeover_of_a_running_trial_succeeds(start):
    study, _ = start({"one": TrainingConfig()})
    claim_waiting(study, study.get_trials()[0], "owner", json.dumps(["ខ្មែរ", {"pid": 1.5}]))
    trial = optuna.trial.Trial(study, study.get_trials()[0]._trial_id)
    running = study.get_trials()[0]
    assert not take_over_running(study, running, "another", '"first"')
    assert take_over_running(study, running, "owner", '"first"')
    assert not take_over_running(study, running, "owner", '"second"')
    assert study.get_trials()[0].user_attrs["owner"] == "first"
    study.tell(trial, 0.5)
    assert not take_over_running(study, study.get_trials()[0], "owner", '"third"')
    assert study.get_trials()[0].user_attrs["owner"] == "first"


def test_reported_value_can_be_replaced(start):
    study, _ = start({"one": TrainingConfig()})
    claim_waiting(study, study.get_trials()[0], "started", "true")
    trial = continue_trial(study, study.get_trials()[0])
    trial.report(0.5, step=1)
    report_again(trial, 0.75, step=1)
    assert study.get_trials()[0].intermediate_values == {1: 0.75}
    study.pruner = ThresholdPruner(upper=0.7)
    assert trial.should_prune()  # pruners use the new value


def test_running_trial_is_resumed_under_its_number(start):
    study, _ = start({"one": TrainingConfig(), "two": TrainingConfig()})
    claim_waiting(study, study.get_trials()[1], "started", "true")
    first = continue_trial(study, study.get_trials()[1])
    assert first.suggest_float("learning_rate", 1e-4, 1.0, log=True) == 0.001
    first.report(0.25, step=1)

    fresh, _ = start()
    second = continue_trial(fresh, fresh.get_trials()[1])
    assert second.number == 1
    assert second.params == {"learning_rate": 0.001}
    second.suggest_int("batch_size", 16, 128, step=16)
    second.report(0.5, step=2)
    fresh.tell(second, 0.5)
    ended = study.get_trials()[1]
    assert (ended.state, ended.value, ended.intermediate_values) == (
        TrialState.COMPLETE,
        0.5,
        {1: 0.25, 2: 0.5},
    )


def test_rdb_storage_requires_a_study_in_a_database(start):
    study, _ = start()
    assert isinstance(rdb_storage(study), RDBStorage)
    with pytest.raises(TypeError, match="found a study in the storage InMemoryStorage; expected a study in a database"):
        rdb_storage(optuna.create_study())


def test_gp_sampler_warnings_are_hidden(start, caplog):
    hide_gp_warnings()
    logger = logging.getLogger("optuna._gp.any")
    logging.getLogger("optuna").addHandler(caplog.handler)
    logger.warning("could be faster")
    logger.error("cannot continue")
    logging.getLogger("optuna").removeHandler(caplog.handler)
    assert caplog.messages == ["cannot continue"]


def test_optuna_version_without_an_overridden_method_is_refused():
    require_methods(RDBStorage, ["_set_trial_param"])
    expected = r"RDBStorage has no _gone and no _missing, .* install a supported version: .*'optuna>=5\.0,<5\.1'"
    with pytest.raises(ConfigurationError, match=expected):
        require_methods(RDBStorage, ["_gone", "_set_trial_param", "_missing"])


class TestNarrowTPESampler:
    distributions: ClassVar[dict[str, BaseDistribution]] = {
        "rate": FloatDistribution(1e-5, 1e-1, log=True),
        "width": IntDistribution(8, 96, step=8),
        "kind": CategoricalDistribution(["a", "b", "c"]),
    }

    def study(self, finished):
        study = optuna.create_study(direction="maximize")
        for number in range(finished):
            rate, width = 10 ** -(1 + number * 0.7 % 4), 8 + number * 40 % 96
            score = -abs(math.log10(rate) + 3) - abs(width - 48) / 40
            params = {"rate": rate, "width": width, "kind": "abc"[number % 3]}
            study.add_trial(create_trial(value=score, params=params, distributions=self.distributions))
        return study

    @pytest.mark.parametrize("is_good", [True, False])
    def test_only_kernels_of_numbers_around_good_trials_are_narrower(self, is_good):
        study = self.study(6)

        def kernels(sampler):
            estimator = sampler(seed=0)._build_parzen_estimator(
                study, self.distributions, study.get_trials()[:2], is_good
            )
            return dict(zip(self.distributions, estimator._mixture_distribution.distributions, strict=True))

        narrow, wide = kernels(NarrowTPESampler), kernels(TPESampler)
        for name in ("rate", "width"):
            *around_trials, prior = wide[name].sigma
            expected = [sigma / 3 if is_good else sigma for sigma in around_trials] + [prior]
            assert narrow[name].sigma.tolist() == pytest.approx(expected)
            assert narrow[name].mu.tolist() == wide[name].mu.tolist()
        assert narrow["kind"].weights.tolist() == wide["kind"].weights.tolist()

    @pytest.mark.parametrize("is_joint", [True, False])
    def test_numbers_are_sampled_closer_to_the_best_trial(self, is_joint):
        study = self.study(6)
        best = study.best_params["rate"]
        study.add_trial(create_trial(state=TrialState.RUNNING))
        running = study.get_trials()[-1]

        def rates(kind):
            samplers = [kind(seed=seed, n_startup_trials=0) for seed in range(100)]
            if is_joint:
                return [sampler.sample_relative(study, running, self.distributions)["rate"] for sampler in samplers]
            rate = self.distributions["rate"]
            return [sampler.sample_independent(study, running, "rate", rate) for sampler in samplers]

        def distance(drawn):
            return statistics.mean(abs(math.log10(rate / best)) for rate in drawn)

        narrow = rates(NarrowTPESampler)
        assert distance(narrow) < 0.8 * distance(rates(TPESampler))
        assert all(1e-5 <= rate <= 1e-1 for rate in narrow)
