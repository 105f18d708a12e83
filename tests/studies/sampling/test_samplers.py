"""An interrupted or parallel study samples the same parameters as an uninterrupted study with one worker."""

import json
import logging
import math
import shutil
from dataclasses import replace
from itertools import chain

import optuna
import pytest
from optuna.samplers import TPESampler

import studies
from search_spaces import FloatRange, Parameter, SearchSpace, TrainingConfig
from studies.sampling.samplers import StatelessSampler
from studies.study.claiming import prepare_sampling
from studies.trials.claims import claim_next

EPOCHS = 3
SEARCHES = 11
# Three presets and two random search trials come first.
FIRST_MODELLED = 5
# Trial and interruption point: each kind of point, mostly in trials sampled from a model. The slow test has all points.
SOME_POINTS = ((8, 2), (10, 1), (11, -1), (12, 6), (13, 0))
JOINT = {"model_name", "learning_rate", "batch_size", "scheduler_type"}


@pytest.fixture(autouse=True)
def notes():
    """Collect Optuna's warnings, and assert at the end that there are none."""
    messages = []

    class Listener(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logging.getLogger("optuna").addHandler(listener)
    yield messages
    logging.getLogger("optuna").removeHandler(listener)
    assert messages == []


@pytest.fixture
def joint_parameters(monkeypatch):
    """Return the jointly sampled parameters, keyed by trial number; empty for a trial that is sampled at random."""
    names = {}
    sample = StatelessSampler.sample_relative

    def recorded(sampler, study, trial, space):
        values = sample(sampler, study, trial, space)
        names[trial.number] = set(values)
        return values

    monkeypatch.setattr(StatelessSampler, "sample_relative", recorded)
    return names


@pytest.fixture
def presets(presets):
    warm = {"scheduler_type": "cosine", "warmup_epochs": 2}
    return presets | {"baseline": replace(presets["baseline"], **warm)}


def ask(study, folder, sampler, trials=SEARCHES):
    studies.add_search_trials(
        study, folder, studies.SearchRequest(sampler=sampler, prune_grace=prune_grace(sampler), at_least=trials)
    )


def prune_grace(sampler):
    return None if sampler is studies.SamplerName.GP else 2


def run_trials(study, folder, *, limit=99, interrupt=lambda point: None):
    """Run pending trials like a worker; `interrupt` is called after each write."""
    prepare_sampling(study)
    for _ in range(limit):
        interrupt("between trials")
        claim = claim_next(study, folder)
        if claim is None:
            return
        with claim:
            train(claim, interrupt)


def train(claim, interrupt=lambda point: None):
    study = claim.trial.study
    config = suggest(claim, interrupt)
    known = study.get_trials(deepcopy=False)[claim.record.number].intermediate_values
    for epoch in range(1, EPOCHS + 1):
        value = quality(config) * (1 - 0.5**epoch)
        if epoch not in known:
            claim.trial.report(value, epoch)
            interrupt("reported")
        if claim.record.kind is studies.TrialKind.SEARCH and claim.trial.should_prune():
            claim.finish(outcome(studies.WhyEnded.PRUNED, value, epoch))
            return
    claim.finish(outcome(studies.WhyEnded.MAX_EPOCHS, value, EPOCHS), value)


def suggest(claim, interrupt=lambda point: None):
    study = claim.trial.study
    search = studies.search_settings(study)
    interrupt("claimed")
    start = claim.record.training_config
    if studies.fixed_space(study) is None:
        return start
    if claim.record.kind is studies.TrialKind.SEARCH:
        start = search.start
        assert claim.trial.relative_params is not None
        interrupt("sampled jointly")

    def adjust(config):
        interrupt("suggested")
        return config

    config = studies.suggest_all(claim.trial, studies.study_space(study), start, adjust=adjust)
    claim.record_config(config)
    return config


def quality(config):
    warm = 0.02 * (config.warmup_epochs - 2) if config.scheduler_type == "cosine" else 0.0
    small = 0.03 if config.model_name == "small" else 0.0
    return 0.8 - abs(math.log10(config.learning_rate) + 2.5) / 5 - abs(config.batch_size - 64) / 500 + warm + small


def outcome(why, value, epochs):
    return studies.TrialOutcome(
        why_ended=why,
        training_time_s=1.0,
        best_val_char_accuracy=value,
        best_val_seq_accuracy=value,
        final_train_loss=1.0,
        total_epochs=epochs,
        best_epoch=epochs,
    )


def trial_contents(study):
    return [
        (trial.number, trial.state.name, trial.params, trial.value, trial.intermediate_values)
        for trial in study.get_trials(deepcopy=False)
    ]


def copied(folder, path):
    """Copy the files that a process would leave if it were killed now."""
    for file in ("study.db", ".study/owner.json"):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder.path / file, path / file)
    return path


def uninterrupted(start, presets, sampler, tmp_path, joint_parameters):
    """Run a study without interruption; return its trials, and the names and copies of its interruption points."""
    study, folder = start(presets)
    ask(study, folder, sampler)
    points = []

    def keep_copy(point):
        if point == "between trials":
            points.append([])
        path = tmp_path / f"trial {len(points) - 1} point {len(points[-1])}"
        points[-1].append((point, copied(folder, path)))

    run_trials(study, folder, interrupt=keep_copy)
    trials = study.get_trials(deepcopy=False)
    assert len(trials) == len(presets) + SEARCHES
    # The study must contain everything that an interruption could change.
    modelled = [number for number, names in joint_parameters.items() if names]
    assert modelled == ([] if sampler is studies.SamplerName.RANDOM else list(range(FIRST_MODELLED, len(trials))))
    assert ("PRUNED" in {trial.state.name for trial in trials}) == (sampler is not studies.SamplerName.GP)
    assert any("warmup_epochs" in trial.params for trial in trials[FIRST_MODELLED:])
    return trial_contents(study), points[:-1]


def continued(path, start):
    study, folder = start(path=path)
    run_trials(study, folder)
    return trial_contents(study)


@pytest.mark.parametrize("sampler", studies.SamplerName)
def test_sampler_also_learns_from_presets_trained_before_the_space_was_fixed(sampler, start, presets, space, tmp_path):
    contents = []
    for name, first_space in (("at once", space), ("later", None)):
        study, folder = start(presets, path=tmp_path / name, space=first_space)
        run_trials(study, folder)
        assert (studies.fixed_space(study) is None) == (first_space is None)
        studies.enqueue_presets(study, folder, {}, space, starts_search=True)
        ask(study, folder, sampler, 8)
        run_trials(study, folder)
        contents.append(trial_contents(study)[len(presets) :])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 8


@pytest.mark.parametrize("sampler", [studies.SamplerName.TPE, studies.SamplerName.RANDOM])
def test_interruption_does_not_change_later_trials(sampler, start, presets, tmp_path, joint_parameters):
    expected, points = uninterrupted(start, presets, sampler, tmp_path, joint_parameters)
    chosen = [points[trial][point] for trial, point in SOME_POINTS]
    assert {name for name, _ in chosen} == {name for name, _ in chain(*points)}
    for name, path in chosen:
        assert continued(path, start) == expected, f"{path.name}: {name}"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", list(studies.SamplerName))
def test_no_interruption_at_many_points_changes_later_trials(sampler, start, presets, tmp_path, joint_parameters):
    expected, points = uninterrupted(start, presets, sampler, tmp_path, joint_parameters)
    all_points = list(chain(*points))
    assert len(all_points) > 100
    # Every third point suffices, since each kind of point occurs in each trial; the GP sampler takes seconds per point.
    for name, path in all_points[:: 6 if sampler is studies.SamplerName.GP else 3]:
        assert continued(path, start) == expected, f"{path.name}: {name}"


def test_killed_process_and_other_hash_seed_do_not_change_the_trials(tmp_path, child):
    complete = printed_result(child("search", tmp_path / "complete", SEARCHES, PYTHONHASHSEED="1"))
    commit = round(0.85 * complete["commits"])
    killed = child("search", tmp_path / "killed", SEARCHES, commit, PYTHONHASHSEED="2")
    assert killed.communicate(timeout=120) == ("", "")
    assert killed.returncode == -9
    resumed = printed_result(child("search", tmp_path / "killed", SEARCHES, PYTHONHASHSEED="3"))
    assert 0 < resumed["commits"] < complete["commits"] / 2
    assert resumed["trials"] == complete["trials"]
    assert len(complete["trials"]) == 3 + SEARCHES


def printed_result(process):
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    result = json.loads(output)
    return result


def test_worker_also_learns_from_trials_that_other_workers_finished_since_its_last_sampling(
    start, tmp_path, joint_parameters
):
    study, folder = start()
    ask(study, folder, studies.SamplerName.TPE, 9)
    prepare_sampling(study)
    paused = claim_next(study, folder)
    suggest(paused)  # samples from an empty history
    paused.release()
    others, _ = start()
    run_trials(others, folder, limit=8)
    new_study, new_folder = start(path=copied(folder, tmp_path / "copy"))

    for one, its_folder in ((study, folder), (new_study, new_folder)):
        prepare_sampling(one)
        claim = claim_next(one, its_folder)
        assert claim.record.number == 8
        suggest(claim)
        claim.release()
    assert joint_parameters[8]
    assert study.get_trials()[8].params == new_study.get_trials()[8].params


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"model_name": "mine"}, "model_name"),
        ({"batch_size": 50}, "batch_size"),
        ({"scheduler_type": "plateau"}, "scheduler_type"),
    ],
)
def test_preset_with_a_value_outside_the_space_does_not_exclude_a_parameter_from_joint_sampling(
    settings, missing, start, presets, joint_parameters
):
    outside = replace(TrainingConfig(), **settings)
    study, folder = start(presets | {"outside": outside})
    ask(study, folder, studies.SamplerName.TPE, 7)
    run_trials(study, folder)
    *_, before, last = study.get_trials()
    assert joint_parameters[before.number] == joint_parameters[last.number] == JOINT
    # Optuna's own sampler would exclude the parameter.
    assert set(TPESampler(seed=0).infer_relative_search_space(study, last)) == JOINT - {missing}


def test_widened_range_is_still_sampled_jointly(start, presets, space, joint_parameters):
    study, folder = start(presets)
    ask(study, folder, studies.SamplerName.TPE, 8)
    run_trials(study, folder, limit=9)
    studies.enqueue_presets(study, folder, {"fast": TrainingConfig(learning_rate=0.5)}, space)
    again, _ = start()
    run_trials(again, folder)
    last = max(
        study.get_trials(), key=lambda trial: (trial.user_attrs["kind"] == studies.TrialKind.SEARCH, trial.number)
    )
    assert joint_parameters[last.number] == JOINT
    assert "learning_rate" not in TPESampler(seed=0).infer_relative_search_space(study, last)
    assert last.distributions["learning_rate"].to_external_repr(0.5) == 0.5


@pytest.mark.parametrize("sampler", [studies.SamplerName.TPE, studies.SamplerName.GP])
@pytest.mark.parametrize(("count", "searches"), [(0, 5), (2, 3), (3, 2), (6, 2)])
def test_finished_presets_count_as_startup_trials_beside_two_random_search_trials(
    sampler, count, searches, start, presets, joint_parameters
):
    names = ("fourth", "fifth", "sixth")
    more = {
        name: replace(presets["baseline"], experiment_name=name, batch_size=16 * number)
        for number, name in enumerate(names, start=3)
    }
    study, folder = start(dict(list((presets | more).items())[:count]))
    ask(study, folder, sampler, searches + 1)
    run_trials(study, folder)
    modelled = [bool(joint_parameters[number]) for number in range(count, count + searches + 1)]
    assert modelled == [False] * searches + [True]


def test_trial_that_optuna_rejects_is_omitted_from_the_history(start, presets):
    study, folder = start(presets)
    ask(study, folder, studies.SamplerName.TPE, 7)
    run_trials(study, folder, limit=len(presets) + 6)
    study.enqueue_trial({"learning_rate": 5.0}, user_attrs={"kind": studies.TrialKind.SEARCH.value})
    invalid = claim_next(study, folder, lambda record: record.number == len(presets) + 7)
    with pytest.warns(UserWarning, match="out of range"):
        invalid.trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    invalid.finish(outcome(studies.WhyEnded.MAX_EPOCHS, 0.5, 1), 0.5)
    with pytest.raises(ValueError, match="isn't contained"):
        optuna.create_study().add_trial(study.get_trials()[-1])
    run_trials(study, folder)
    assert study.get_trials()[len(presets) + 6].state.is_finished()


@pytest.mark.parametrize("sampler", list(studies.SamplerName))
def test_samples_differ_between_trials_parameters_and_seeds(sampler, start, tmp_path):
    rate = FloatRange(1e-4, 1e-2, log=True)
    space = SearchSpace((Parameter("learning_rate", rate), Parameter("weight_decay", rate)))
    samples = []
    for seed in (0, 1):
        study, folder = start(name=f"seed {seed}", path=tmp_path / str(seed), space=space, seed=seed)
        ask(study, folder, sampler, 4)
        run_trials(study, folder)
        samples += [value for trial in study.get_trials() for value in trial.params.values()]
    assert len(set(samples)) == len(samples) == 16


@pytest.mark.parametrize("sampler", [studies.SamplerName.TPE, studies.SamplerName.GP])
def test_only_the_visible_history_influences_sampling_and_nothing_is_written(sampler, start, presets, tmp_path):
    study, folder = start(presets)
    request = studies.SearchRequest(sampler=sampler, prune_grace=prune_grace(sampler), parallelism=3, at_least=12)
    studies.add_search_trials(study, folder, request)
    run_trials(study, folder, limit=len(presets) + 9)
    number = len(presets) + 9

    def sampled(path, finish):
        other, its_folder = start(path=copied(folder, path))
        finish(other, its_folder)
        prepare_sampling(other)
        before = other.get_trials()
        relative = other.sampler.sample_relative(other, before[number], joint_space(other, number))
        assert other.get_trials() == before
        return relative

    def train_another(other, its_folder):
        prepare_sampling(other)
        claim = claim_next(other, its_folder, lambda record: record.number == number + 1)
        assert claim is not None
        suggest(claim)  # running

    expected = sampled(tmp_path / "alone", lambda *study_and_folder: None)
    assert set(expected) == JOINT
    assert sampled(tmp_path / "running", train_another) == expected
    assert sampled(tmp_path / "finished", lambda *study_and_folder: run_trials(*study_and_folder)) == expected


def joint_space(study, number):
    return study.sampler.infer_relative_search_space(study, study.get_trials()[number])
