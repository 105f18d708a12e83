"""Suggestions are those of the uninterrupted study, wherever it is interrupted."""

from __future__ import annotations

import json
import logging
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial

from search_spaces import FloatRange, Parameter, SearchSpace, TrainingConfig
from studies import (
    Claim,
    OutputFolder,
    SamplerName,
    SearchRequest,
    TrialKind,
    TrialOutcome,
    WhyEnded,
    add_search_trials,
    enqueue_presets,
    fixed_space,
    search_settings,
    study_space,
    suggest_all,
)
from studies.sampling.samplers import StatelessSampler
from studies.study.claiming import prepare_sampling
from studies.trials.claims import claim_next

Start = Callable[..., tuple[optuna.Study, OutputFolder]]
Child = Callable[..., "subprocess.Popen[str]"]
Presets = dict[str, TrainingConfig]
Die = Callable[[str], None]
JointDraws = dict[int, set[str]]

EPOCHS = 3
SEARCHES = 11
# Five random ones come first, and as many more as there are presets.
FIRST_MODELLED = 8
# Trial and point, of every kind and mostly where suggestions come from a model; the long test has them all.
SOME_POINTS = ((8, 2), (10, 1), (11, -1), (12, 6), (13, 0))
JOINT = {"model_name", "learning_rate", "batch_size", "scheduler_type"}


@pytest.fixture(autouse=True)
def notes() -> Iterator[list[str]]:
    """What Optuna says at the level that users see; it must be nothing."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logging.getLogger("optuna").addHandler(listener)
    yield said
    logging.getLogger("optuna").removeHandler(listener)
    assert said == []


@pytest.fixture
def joint_draws(monkeypatch: pytest.MonkeyPatch) -> JointDraws:
    """The parameters that were drawn jointly, by number of the trial; none where a draw is random."""
    drawn: JointDraws = {}
    sample = StatelessSampler.sample_relative

    def noted(sampler: StatelessSampler, study: optuna.Study, trial: FrozenTrial, space: Any) -> dict[str, Any]:
        values = sample(sampler, study, trial, space)
        drawn[trial.number] = set(values)
        return values

    monkeypatch.setattr(StatelessSampler, "sample_relative", noted)
    return drawn


@pytest.fixture
def presets(presets: Presets) -> Presets:
    warm = {"scheduler_type": "cosine", "warmup_epochs": 2}
    return presets | {"baseline": replace(presets["baseline"], **warm)}


def ask(study: optuna.Study, folder: OutputFolder, sampler: SamplerName, trials: int = SEARCHES) -> None:
    add_search_trials(study, folder, SearchRequest(sampler=sampler, prune_grace=prune_grace(sampler), at_least=trials))


def prune_grace(sampler: SamplerName) -> int | None:
    return None if sampler is SamplerName.GP else 2


def work_off(study: optuna.Study, folder: OutputFolder, *, most: int = 99, may_die: Die = lambda place: None) -> None:
    """Work as the program does; `may_die` is called wherever something was just written."""
    prepare_sampling(study)
    for _ in range(most):
        may_die("between trials")
        claim = claim_next(study, folder)
        if claim is None:
            return
        with claim:
            train(claim, may_die)


def train(claim: Claim, may_die: Die = lambda place: None) -> None:
    study = claim.trial.study
    config = suggest(claim, may_die)
    known = study.get_trials(deepcopy=False)[claim.record.number].intermediate_values
    for epoch in range(1, EPOCHS + 1):
        value = quality(config) * (1 - 0.5**epoch)
        if epoch not in known:
            claim.trial.report(value, epoch)
            may_die("reported")
        if claim.record.kind is TrialKind.SEARCH and claim.trial.should_prune():
            claim.finish(outcome(WhyEnded.PRUNED, value, epoch))
            return
    claim.finish(outcome(WhyEnded.MAX_EPOCHS, value, EPOCHS), value)


def suggest(claim: Claim, may_die: Die = lambda place: None) -> TrainingConfig:
    study = claim.trial.study
    search = search_settings(study)
    may_die("claimed")
    start = claim.record.training_config
    if fixed_space(study) is None:
        return start
    if claim.record.kind is TrialKind.SEARCH:
        assert search is not None
        start = search.start
        assert claim.trial.relative_params is not None
        may_die("drawn jointly")

    def settle(config: TrainingConfig) -> TrainingConfig:
        may_die("suggested")
        return config

    config = suggest_all(claim.trial, study_space(study), start, settle=settle)
    claim.record_config(config)
    return config


def quality(config: TrainingConfig) -> float:
    warm = 0.02 * (config.warmup_epochs - 2) if config.scheduler_type == "cosine" else 0.0
    small = 0.03 if config.model_name == "small" else 0.0
    return 0.8 - abs(math.log10(config.learning_rate) + 2.5) / 5 - abs(config.batch_size - 64) / 500 + warm + small


def outcome(why: WhyEnded, value: float, epochs: int) -> TrialOutcome:
    return TrialOutcome(
        why_ended=why,
        training_time_s=1.0,
        best_val_char_accuracy=value,
        best_val_seq_accuracy=value,
        final_train_loss=1.0,
        total_epochs=epochs,
        best_epoch=epochs,
    )


def picture(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [
        (trial.number, trial.state.name, trial.params, trial.value, trial.intermediate_values)
        for trial in study.get_trials(deepcopy=False)
    ]


def copied(folder: OutputFolder, path: Path) -> Path:
    """Copy what a killed process leaves behind, at a moment when nothing is being written."""
    for file in ("study.db", ".study/owner.json"):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder.path / file, path / file)
    return path


def undisturbed(
    start: Start, presets: Presets, sampler: SamplerName, tmp_path: Path, joint_draws: JointDraws
) -> tuple[list[tuple[Any, ...]], list[list[tuple[str, Path]]]]:
    """Run a study in one go; return its picture, and a copy for every point of every trial, each with its name."""
    study, folder = start(presets)
    ask(study, folder, sampler)
    points: list[list[tuple[str, Path]]] = []

    def keep_copy(place: str) -> None:
        if place == "between trials":
            points.append([])
        path = tmp_path / f"trial {len(points) - 1} point {len(points[-1])}"
        points[-1].append((place, copied(folder, path)))

    work_off(study, folder, may_die=keep_copy)
    trials = study.get_trials(deepcopy=False)
    assert len(trials) == len(presets) + SEARCHES
    # The study must have in it what an interruption could change.
    modelled = [number for number, names in joint_draws.items() if names]
    assert modelled == ([] if sampler is SamplerName.RANDOM else list(range(FIRST_MODELLED, len(trials))))
    assert ("PRUNED" in {trial.state.name for trial in trials}) == (sampler is not SamplerName.GP)
    assert any("warmup_epochs" in trial.params for trial in trials[FIRST_MODELLED:])
    return picture(study), points[:-1]


def continued(path: Path, start: Start) -> list[tuple[Any, ...]]:
    study, folder = start(path=path)
    work_off(study, folder)
    return picture(study)


@pytest.mark.parametrize("sampler", SamplerName)
def test_presets_that_were_trained_before_the_space_was_fixed_teach_the_sampler_as_much(
    sampler: SamplerName, start: Start, presets: Presets, space: SearchSpace, tmp_path: Path
) -> None:
    pictures = []
    for name, first_space in (("at once", space), ("later", None)):
        study, folder = start(presets, path=tmp_path / name, space=first_space)
        work_off(study, folder)
        assert (fixed_space(study) is None) == (first_space is None)
        enqueue_presets(study, folder, {}, space, starts_search=True)
        ask(study, folder, sampler, 8)
        work_off(study, folder)
        pictures.append(picture(study)[len(presets) :])
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 8


@pytest.mark.parametrize("sampler", [SamplerName.TPE, SamplerName.RANDOM])
def test_an_interruption_changes_nothing_that_comes_after_it(
    sampler: SamplerName, start: Start, presets: Presets, tmp_path: Path, joint_draws: JointDraws
) -> None:
    whole, points = undisturbed(start, presets, sampler, tmp_path, joint_draws)
    chosen = [points[trial][point] for trial, point in SOME_POINTS]
    assert {place for place, _ in chosen} == {place for place, _ in chain(*points)}
    for place, path in chosen:
        assert continued(path, start) == whole, f"{path.name}: {place}"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", list(SamplerName))
def test_no_interruption_anywhere_changes_anything(
    sampler: SamplerName, start: Start, presets: Presets, tmp_path: Path, joint_draws: JointDraws
) -> None:
    whole, points = undisturbed(start, presets, sampler, tmp_path, joint_draws)
    every = list(chain(*points))
    assert len(every) > 100
    # The Gaussian process takes seconds for each.
    for place, path in every[:: 3 if sampler is SamplerName.GP else 1]:
        assert continued(path, start) == whole, f"{path.name}: {place}"


def test_killed_processes_and_other_hash_seeds_change_nothing(tmp_path: Path, child: Child) -> None:
    whole = last_words(child("search", tmp_path / "whole", SEARCHES, PYTHONHASHSEED="1"))
    point = round(0.85 * whole["commits"])
    killed = child("search", tmp_path / "killed", SEARCHES, point, PYTHONHASHSEED="2")
    assert killed.communicate(timeout=120) == ("", "")
    assert killed.returncode == -9
    rest = last_words(child("search", tmp_path / "killed", SEARCHES, PYTHONHASHSEED="3"))
    assert 0 < rest["commits"] < whole["commits"] / 2
    assert rest["trials"] == whole["trials"]
    assert len(whole["trials"]) == 3 + SEARCHES


def last_words(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    words: dict[str, Any] = json.loads(output)
    return words


def test_a_worker_that_lives_on_learns_from_what_others_did_meanwhile(
    start: Start, tmp_path: Path, joint_draws: JointDraws
) -> None:
    study, folder = start()
    ask(study, folder, SamplerName.TPE, 9)
    prepare_sampling(study)
    paused = claim_next(study, folder)
    assert paused is not None
    suggest(paused)  # looks at the history, of which there is none
    paused.release()
    others, _ = start()
    work_off(others, folder, most=8)
    newcomer, its_folder = start(path=copied(folder, tmp_path / "copy"))

    for one, place in ((study, folder), (newcomer, its_folder)):
        prepare_sampling(one)
        claim = claim_next(one, place)
        assert claim is not None
        assert claim.record.number == 8
        suggest(claim)
        claim.release()
    assert joint_draws[8]
    assert study.get_trials()[8].params == newcomer.get_trials()[8].params


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"model_name": "mine"}, "model_name"),
        ({"batch_size": 50}, "batch_size"),
        ({"scheduler_type": "plateau"}, "scheduler_type"),
    ],
)
def test_a_preset_that_the_space_cannot_hold_whole_takes_nothing_out_of_the_joint_draw(
    settings: dict[str, Any], missing: str, start: Start, presets: Presets, joint_draws: JointDraws
) -> None:
    odd = replace(TrainingConfig(), **settings)
    study, folder = start(presets | {"odd": odd})
    ask(study, folder, SamplerName.TPE, 7)
    work_off(study, folder)
    *_, before, last = study.get_trials()
    assert joint_draws[before.number] == joint_draws[last.number] == JOINT
    # By itself, Optuna would have given that parameter up.
    assert set(TPESampler(seed=0).infer_relative_search_space(study, last)) == JOINT - {missing}


def test_a_range_that_grew_stays_in_the_joint_draw(
    start: Start, presets: Presets, space: SearchSpace, joint_draws: JointDraws
) -> None:
    study, folder = start(presets)
    ask(study, folder, SamplerName.TPE, 8)
    work_off(study, folder, most=9)
    enqueue_presets(study, folder, {"fast": TrainingConfig(learning_rate=0.5)}, space)
    again, _ = start()
    work_off(again, folder)
    last = max(study.get_trials(), key=lambda trial: (trial.user_attrs["kind"] == TrialKind.SEARCH, trial.number))
    assert joint_draws[last.number] == JOINT
    assert "learning_rate" not in TPESampler(seed=0).infer_relative_search_space(study, last)
    assert last.distributions["learning_rate"].to_external_repr(0.5) == 0.5


@pytest.mark.parametrize("sampler", [SamplerName.TPE, SamplerName.GP])
@pytest.mark.parametrize("count", [0, 2])
def test_presets_are_no_random_sample(
    sampler: SamplerName, count: int, start: Start, presets: Presets, joint_draws: JointDraws
) -> None:
    study, folder = start(dict(list(presets.items())[:count]))
    ask(study, folder, sampler, 6)
    work_off(study, folder)
    assert [bool(joint_draws[number]) for number in range(count, count + 6)] == [False] * 5 + [True]


def test_presets_that_are_still_waiting_are_no_random_sample_either(
    start: Start, presets: Presets, joint_draws: JointDraws
) -> None:
    study, folder = start(presets)
    ask(study, folder, SamplerName.TPE, 9)
    prepare_sampling(study)
    while (claim := claim_next(study, folder, lambda record: record.kind is TrialKind.SEARCH)) is not None:
        with claim:
            train(claim)
    count = len(presets)
    assert [bool(joint_draws[number]) for number in range(count, count + 9)] == [False] * (5 + count) + [True]


def test_a_trial_that_optuna_refuses_is_left_out_of_the_history(start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    ask(study, folder, SamplerName.TPE, 7)
    work_off(study, folder, most=len(presets) + 6)
    study.enqueue_trial({"learning_rate": 5.0}, user_attrs={"kind": TrialKind.SEARCH.value})
    odd = claim_next(study, folder, lambda record: record.number == len(presets) + 7)
    assert odd is not None
    with pytest.warns(UserWarning, match="out of range"):
        odd.trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    odd.finish(outcome(WhyEnded.MAX_EPOCHS, 0.5, 1), 0.5)
    with pytest.raises(ValueError, match="isn't contained"):
        optuna.create_study().add_trial(study.get_trials()[-1])
    work_off(study, folder)
    assert study.get_trials()[len(presets) + 6].state.is_finished()


@pytest.mark.parametrize("sampler", list(SamplerName))
def test_every_trial_every_parameter_and_every_seed_has_draws_of_its_own(
    sampler: SamplerName, start: Start, tmp_path: Path
) -> None:
    rate = FloatRange(1e-4, 1e-2, log=True)
    space = SearchSpace((Parameter("learning_rate", rate), Parameter("weight_decay", rate)))
    drawn: list[float] = []
    for seed in (0, 1):
        study, folder = start(name=f"seed {seed}", path=tmp_path / str(seed), space=space, seed=seed)
        ask(study, folder, sampler, 4)
        work_off(study, folder)
        drawn += [value for trial in study.get_trials() for value in trial.params.values()]
    assert len(set(drawn)) == len(drawn) == 16


def test_a_draw_sees_other_running_trials_and_neither_writes_into_the_study(start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    ask(study, folder, SamplerName.TPE, 8)
    work_off(study, folder, most=len(presets) + 6)
    other, _ = start()
    prepare_sampling(other)
    running = claim_next(other, folder)
    assert running is not None
    suggest(running)
    assert prepare_sampling(study)
    claim = claim_next(study, folder)
    assert claim is not None
    before = study.get_trials()
    drawn = study.sampler.sample_relative(study, before[claim.record.number], joint_space(study))
    assert set(drawn) == JOINT
    assert study.get_trials() == before
    running.finish(outcome(WhyEnded.FAILED, 0.0, 0))
    assert prepare_sampling(study)
    again = study.sampler.sample_relative(study, before[claim.record.number], joint_space(study))
    assert again != drawn  # the running trial was part of the history
    claim.release()


def joint_space(study: optuna.Study) -> dict[str, Any]:
    return study.sampler.infer_relative_search_space(study, study.get_trials()[0])
