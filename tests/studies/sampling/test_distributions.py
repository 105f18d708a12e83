from dataclasses import replace

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces import (
    Choices,
    FloatRange,
    IntRange,
    TrainingConfig,
    load_search_space,
)
from studies import TrialKind, suggest_all
from studies.sampling.distributions import to_distribution
from studies.trials.claims import claim_next


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("domain", "distribution"),
    [
        (FloatRange(1e-4, 1e-2, log=True), FloatDistribution(1e-4, 1e-2, log=True)),
        (FloatRange(0.1, 0.5, step=0.1), FloatDistribution(0.1, 0.5, step=0.1)),
        (FloatRange(0.1, 0.35, step=0.1), FloatDistribution(0.1, 0.3, step=0.1)),
        (IntRange(16, 128, step=16), IntDistribution(16, 128, step=16)),
        (IntRange(16, 100, step=16), IntDistribution(16, 96, step=16)),
        (IntRange(1, 64, log=True), IntDistribution(1, 64, log=True)),
        (Choices(("adam", "adamw")), CategoricalDistribution(("adam", "adamw"))),
        (Choices((True, False)), CategoricalDistribution((True, False))),
    ],
)
def test_domain_is_converted_to_its_distribution(domain, distribution):
    assert to_distribution(domain) == distribution


@pytest.mark.parametrize("scheduler", ["cosine", "steplr"])
def test_search_trial_samples_active_parameters_and_keeps_them_when_resumed(scheduler, start, space):
    study, folder = start()
    study.enqueue_trial({"scheduler_type": scheduler}, user_attrs={"kind": TrialKind.SEARCH.value})
    claim = claim_next(study, folder)
    assert claim is not None
    base = TrainingConfig(num_epochs=7)
    config = suggest_all(claim.trial, space, base)
    assert set(claim.trial.params) == set(space.names) - ({"warmup_epochs"} if scheduler == "steplr" else set())
    assert config.num_epochs == 7
    assert all(getattr(config, name) == value for name, value in claim.trial.params.items())
    claim.release()

    resumed = claim_next(study, folder)
    assert resumed is not None
    assert suggest_all(resumed.trial, space, base) == config
    resumed.release()


def test_parameters_of_the_default_space_are_suggested_without_warnings(start):
    study, folder = start()
    space = load_search_space("config/search_space.yaml")
    for _ in range(5):
        study.enqueue_trial({}, user_attrs={"kind": TrialKind.SEARCH.value})
    # A warning is an error, as in all tests (see pyproject.toml).
    while (claim := claim_next(study, folder)) is not None:
        config = suggest_all(claim.trial, space, TrainingConfig())
        assert {parameter.name for parameter in space.active(config)} == set(claim.trial.params)


def test_adjusted_settings_affect_conditions_and_result_but_not_suggested_values(start, space):
    study, folder = start()
    study.enqueue_trial({"scheduler_type": "steplr"}, user_attrs={"kind": TrialKind.SEARCH.value})
    claim = claim_next(study, folder)
    assert claim is not None
    seen = []

    def adjust(config):
        seen.append(config.scheduler_type)
        return replace(config, scheduler_type="cosine", min_lr=config.learning_rate / 10)

    config = suggest_all(claim.trial, space, TrainingConfig(scheduler_type="plateau"), adjust=adjust)
    # The condition is met by the adjusted scheduler, and the suggested scheduler remains the parameter.
    assert "warmup_epochs" in claim.trial.params
    assert claim.trial.params["scheduler_type"] == "steplr"
    assert set(seen) == {"plateau", "steplr"}
    assert (config.scheduler_type, config.min_lr) == ("cosine", config.learning_rate / 10)
    claim.release()
