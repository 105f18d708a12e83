import copy
from dataclasses import replace

import pytest

import studies
from search_spaces import ConfigurationError, FloatRange, Parameter, SearchSpace, TrainingConfig
from search_spaces.space.file import default_search_space
from studies.study.presets import merged_order, preset_order
from studies.trials.claims import claim_next


def names_by_number(study):
    return [studies.read_record(trial).experiment_name for trial in study.get_trials()]


def test_presets_are_enqueued_in_file_order(start, presets):
    study, _ = start(presets)
    records = [studies.read_record(trial) for trial in study.get_trials()]
    assert [(record.number, record.experiment_name) for record in records] == list(enumerate(presets))
    assert {record.phase for record in records} == {studies.TrialPhase.WAITING}
    assert [record.training_config for record in records] == list(presets.values())


def test_repeated_enqueue_adds_nothing_and_returns_the_records(start, presets, space, outcome):
    study, folder = start(presets)
    done = claim_next(study, folder)
    done.finish(outcome, 0.9)
    broken = claim_next(study, folder)
    broken.finish(replace(outcome, why_ended=studies.WhyEnded.CRASHED, error_message="boom"))
    running = claim_next(study, folder)

    records = studies.enqueue_presets(study, folder, presets | {"late": TrainingConfig()}, space)
    assert [(record.number, record.phase.value) for record in records.values()] == [
        (0, "completed"),
        (1, "failed"),
        (2, "running"),
        (3, "waiting"),
    ]
    assert len(study.get_trials()) == 4
    running.release()


def test_changed_presets_are_refused_with_every_difference(start, presets, space):
    study, folder = start(presets)
    changed = {name: replace(config, batch_size=64) for name, config in presets.items()}
    changed["baseline"] = replace(changed["baseline"], learning_rate=0.5)
    changed["new"] = TrainingConfig()
    with pytest.raises(ConfigurationError) as caught:
        studies.enqueue_presets(study, folder, changed, space)
    assert len(caught.value.problems) == 3
    assert caught.value.problems[1] == (
        "experiment 'baseline': the study contains it with other settings (batch_size was 32 and is 64 now, "
        "learning_rate was 0.002 and is 0.5 now); restore the values (file or --set), rename the experiment, "
        "or start a new study with another --output-dir"
    )
    assert names_by_number(study) == list(presets)
    assert preset_order(study) == list(presets)


def test_settings_without_effect_on_the_result_may_change(start, presets, space):
    study, folder = start(presets)
    moved = {
        name: replace(config, device="cuda", num_workers=0, output_dir="/other", use_tensorboard=False)
        for name, config in presets.items()
    }
    studies.enqueue_presets(study, folder, moved, space)
    assert len(study.get_trials()) == 3


def test_names_that_differ_in_case_only_are_refused(start, space):
    study, folder = start({"Baseline": TrainingConfig()})
    with pytest.raises(ConfigurationError, match="experiment 'baseline': the study already contains 'Baseline'"):
        studies.enqueue_presets(study, folder, {"baseline": TrainingConfig()}, space)


def test_preset_settings_become_trial_parameters(start):
    config = TrainingConfig(learning_rate=0.002, batch_size=48, scheduler_type="cosine", warmup_epochs=3)
    study, folder = start({"one": config})
    claim = claim_next(study, folder)
    assert studies.suggest_all(claim.trial, studies.study_space(study), claim.record.training_config) == config
    assert claim.trial.params == {
        "model_name": "medium",
        "learning_rate": 0.002,
        "batch_size": 48,
        "scheduler_type": "cosine",
        "warmup_epochs": 3,
    }
    claim.release()


@pytest.mark.filterwarnings("error")
def test_values_that_do_not_fit_the_space_are_trained_but_are_no_parameters(start):
    config = TrainingConfig(model_name="mine", batch_size=50, scheduler_type="plateau", learning_rate=0.5)
    study, folder = start({"one": config})
    claim = claim_next(study, folder)
    assert studies.suggest_all(claim.trial, studies.study_space(study), claim.record.training_config) == config
    assert claim.trial.params == {"learning_rate": 0.5}
    claim.release()


def test_space_is_widened_for_new_presets(start, presets, space):
    study, folder = start(presets)
    assert studies.study_space(study) == space
    studies.enqueue_presets(study, folder, {"wide": TrainingConfig(learning_rate=0.3, batch_size=160)})
    widened = studies.study_space(study)
    assert widened.changes(space) == [
        "learning_rate was {low: 0.0001, high: 0.3, log: true} and is {low: 0.0001, high: 0.01, log: true} now",
        "batch_size was {low: 16, high: 160, step: 16} and is {low: 16, high: 128, step: 16} now",
    ]


def test_original_space_is_accepted_after_it_was_widened(start, presets, space):
    study, folder = start(presets)
    wide = {"wide": TrainingConfig(learning_rate=0.3)}
    for given in (space, None, space):
        studies.enqueue_presets(study, folder, presets | wide, given)
    assert len(study.get_trials()) == 4
    studies.refuse_changed_presets(study, folder, presets, space)


def test_another_space_is_refused_with_every_difference(start, presets, space):
    study, folder = start(presets)
    others = space.parameters[1:]
    other = SearchSpace((*others, Parameter("gamma", FloatRange(0.1, 0.9))), base={"num_epochs": 5})
    late = presets | {"late": TrainingConfig()}
    with pytest.raises(ConfigurationError) as caught:
        studies.enqueue_presets(study, folder, late, other)
    remedy = (
        "; leave out --space, or start a new study that learns from this one: add "
        f"`--warm-start {folder.path}` and another --output-dir"
    )
    assert caught.value.problems == tuple(
        f"study 'khmer-ocr': its search space is fixed: {change}{remedy}"
        for change in ("base num_epochs was added", "model_name was removed", "gamma was added")
    )
    with pytest.raises(ConfigurationError):
        studies.refuse_changed_presets(study, folder, {}, SearchSpace(others[:1]))
    assert (names_by_number(study), studies.study_space(study)) == (list(presets), space)


def test_default_space_contains_the_models_of_the_study(tmp_path, invariants):
    folder = studies.OutputFolder(tmp_path)
    study = studies.create_or_join_study(
        studies.open_storage(studies.default_storage_url(tmp_path)), "mine", folder, invariants
    )
    studies.enqueue_presets(study, folder, {"one": TrainingConfig()})
    assert studies.fixed_space(study) is None
    assert studies.study_space(study) == default_search_space(invariants.definitions)
    studies.add_search_trials(study, folder, studies.SearchRequest(more=1))
    assert studies.fixed_space(study) == default_search_space(invariants.definitions)
    assert studies.study_space(study).values_of("model_name") == ("small", "medium")


def test_first_search_trials_fix_the_space_widened_for_earlier_presets(start, presets, space, outcome, tmp_path):
    study, folder = start(presets | {"wide": TrainingConfig(learning_rate=0.3)}, space=None)
    claim = claim_next(study, folder)
    claim.finish(outcome, 0.9)
    assert studies.fixed_space(study) is None
    studies.enqueue_presets(study, folder, {}, space, starts_search=True)
    studies.add_search_trials(study, folder, studies.SearchRequest(more=1))
    assert studies.fixed_space(study) == space.widened([TrainingConfig(learning_rate=0.3)])
    other = SearchSpace(space.parameters[1:])
    with pytest.raises(ConfigurationError, match="is fixed: model_name was removed"):
        studies.enqueue_presets(study, folder, {}, other, starts_search=True)
    # A waiting preset gets the parameters of the space with its own values, which are not sampled.
    late = claim_next(study, folder)
    assert (
        studies.suggest_all(late.trial, studies.study_space(study), late.record.training_config)
        == late.record.training_config
    )
    assert late.trial.params["learning_rate"] == presets["baseline"].learning_rate
    late.release()


def test_notes_name_preset_setting_value_and_widened_range(start, space):
    wide = {"wide": TrainingConfig(learning_rate=0.3, batch_size=50)}
    expected = [
        "preset 'wide': learning_rate 0.3 is outside the search space (0.0001 to 0.01, log scale); "
        "the range is now 0.0001 to 0.3, log scale",
        "preset 'wide': batch_size 50 is outside the search space (16 to 128, step 16); "
        "no search trial gets this value",
    ]
    study, folder = start(wide, space=None)
    notes = []
    studies.enqueue_presets(study, folder, {}, space, starts_search=True, on_note=notes.append)
    assert notes == expected
    study, folder = start({}, path=folder.path.with_name("fixed"))
    for _ in range(2):  # a repeated command adds no notes
        studies.enqueue_presets(study, folder, wide, on_note=notes.append)
    assert notes == 2 * expected


def test_selected_presets_keep_the_file_order(start, presets, space):
    study, folder = start()
    order = list(presets)
    studies.enqueue_presets(study, folder, {"high_rate": presets["high_rate"]}, space, file_order=order)
    assert preset_order(study) == ["high_rate"]
    studies.enqueue_presets(study, folder, presets, space, file_order=order)
    assert preset_order(study) == order
    assert names_by_number(study) == ["high_rate", "conservative_small", "baseline"]


@pytest.mark.parametrize(
    ("known", "latest", "merged"),
    [
        ("", "ABC", "ABC"),
        ("ABC", "ABC", "ABC"),
        ("ABC", "C", "ABC"),
        ("ABC", "AC", "ABC"),
        ("ABC", "CBA", "CBA"),
        ("B", "ABC", "ABC"),
        ("XY", "AB", "XYAB"),
        ("XBY", "ABC", "XABCY"),
        ("AC", "ABC", "ABC"),
    ],
)
def test_merged_order(known, latest, merged):
    assert merged_order(list(known), list(latest)) == list(merged)


def test_enqueueing_does_not_modify_the_given_presets(start, presets):
    before = copy.deepcopy(presets)
    start(presets)
    assert presets == before


class TestRetryingFailed:
    def test_each_failed_trial_is_retried_once(self, start, presets, outcome):
        study, folder = start(presets)
        studies.add_search_trials(study, folder, studies.SearchRequest(at_least=1))
        assert studies.retry_failed_trials(study, folder) == []
        failed = replace(outcome, why_ended=studies.WhyEnded.CRASHED, error_message="boom")
        for ending in (failed, outcome, failed, failed):
            finish_next(study, folder, ending)
        assert studies.retry_failed_trials(study, folder) == ["conservative_small", "high_rate", "search_0003"]
        assert studies.retry_failed_trials(study, folder) == []
        assert [record.number for record in studies.latest_records(study)] == [1, 4, 5, 6]
        # A repeated enqueue adds nothing either, and returns the records of the retries.
        records = studies.enqueue_presets(study, folder, presets)
        assert [(record.number, record.phase.value) for record in records.values()] == [
            (4, "waiting"),
            (1, "completed"),
            (5, "waiting"),
        ]
        # A trial that is running or has succeeded is not retried.
        claim = claim_next(study, folder)
        assert studies.retry_failed_trials(study, folder) == []
        claim.finish(outcome, 0.9)
        finish_next(study, folder, failed)
        assert studies.retry_failed_trials(study, folder) == ["high_rate"]

    def test_retry_of_a_search_trial_has_its_parameters_and_supersedes_it(self, start, outcome, space):
        study, folder = start()
        studies.add_search_trials(study, folder, studies.SearchRequest(at_least=3))
        params = []
        for why in (studies.WhyEnded.FAILED, studies.WhyEnded.NONFINITE_LOSS, studies.WhyEnded.MAX_EPOCHS):
            claim = studies.claim_next_trial(study, folder)
            claim.record_config(studies.suggest_all(claim.trial, space, TrainingConfig()))
            params.append(claim.trial.params)
            with claim:
                claim.finish(replace(outcome, why_ended=why), 0.9)
        # A diverged trial is not retried: it would diverge again, and the sampler reads it as pruned.
        assert studies.retry_failed_trials(study, folder) == ["search_0000"]
        assert studies.retry_failed_trials(study, folder) == []
        status = studies.study_status(study, folder)
        assert (status.total, status.pending, len(status.current), status.search.unenqueued) == (3, 1, 3, 0)
        assert [row.superseded for row in status.rows] == [True, False, False, False]
        studies.add_search_trials(study, folder, studies.SearchRequest(more=1))
        assert len(study.get_trials()) == 5
        claim = studies.claim_next_trial(study, folder)
        studies.suggest_all(claim.trial, space, TrainingConfig())
        assert (claim.record.number, claim.record.experiment_name) == (3, "search_0000")
        assert claim.trial.params == params[0]
        with claim:
            claim.finish(outcome, 0.9)
        assert [record.phase.value for record in studies.latest_records(study) if record.number == 3] == ["completed"]

    def test_retry_is_a_new_trial_with_the_same_settings(self, start, presets, outcome):
        config = replace(presets["baseline"], batch_size=50)
        study, folder = start({"one": config})
        finish_next(study, folder, replace(outcome, why_ended=studies.WhyEnded.FAILED))
        studies.retry_failed_trials(study, folder)
        old, new = (studies.read_record(trial) for trial in study.get_trials())
        assert (new.phase, new.attempts, new.outcome) == (studies.TrialPhase.WAITING, (), None)
        assert (new.training_config, new.config_digest) == (old.training_config, old.config_digest)
        claim = claim_next(study, folder)
        assert studies.suggest_all(claim.trial, studies.study_space(study), claim.record.training_config) == config
        claim.release()

    def test_retry_keeps_the_file_order(self, start, presets, outcome):
        study, folder = start(presets)
        finish_next(study, folder, replace(outcome, why_ended=studies.WhyEnded.FAILED))
        studies.retry_failed_trials(study, folder)
        assert preset_order(study) == list(presets)


def finish_next(study, folder, outcome):
    claim = claim_next(study, folder)
    claim.finish(outcome, 0.9)
