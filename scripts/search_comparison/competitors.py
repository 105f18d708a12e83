"""The searches that are compared, each with the defaults of its library."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from search_comparison.own_search import search_with_khmer_tuner
from search_comparison.smac_search import search_with_smac
from search_comparison.tasks import Problem
from search_comparison.trainings import BudgetSpentError, Trainings, TrialResult, load_results, save_results
from search_spaces.files.file_locks import wait_for_lock
from studies import suggest_all

PRESETS = "presets"
OWN = "khmer-tuner"
SMAC = "SMAC3"
Search = Callable[[Problem, Trainings, int], None]


def search_with_optuna(
    sampler: Callable[[int], BaseSampler],
    pruner: Callable[[int], BasePruner],
    problem: Problem,
    trainings: Trainings,
    seed: int,
) -> None:
    """Search with Optuna as its documentation shows, with the presets enqueued, until the budget is used up.

    Args:
        sampler: Function that creates the sampler from the seed.
        pruner: Function that creates the pruner from the maximum number of epochs.
        problem: The problem.
        trainings: The trainings.
        seed: Seed of the sampler.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Hyperband chooses a trial's bracket by the study's name.
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler(seed),
        pruner=pruner(problem.start.num_epochs),
        study_name=f"seed{seed}",
    )
    for preset in problem.presets.values():
        study.enqueue_trial(problem.parameters(preset))

    def objective(trial: optuna.Trial) -> float:
        def should_continue(epoch: int, value: float) -> bool:
            trial.report(value, epoch)
            return not trial.should_prune()

        config = suggest_all(trial, problem.space, problem.start, adjust=problem.adjusted)
        result = trainings.run(config, should_continue)
        if result.why_ended == "pruned":
            raise optuna.TrialPruned
        return result.best

    study.optimize(objective)


def train_presets(problem: Problem, trainings: Trainings, seed: int) -> None:
    """Train the presets only."""
    for preset in problem.presets.values():
        trainings.run(preset)


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


def _hyperband(num_epochs: int) -> BasePruner:
    return HyperbandPruner(max_resource=num_epochs)


def _median(num_epochs: int) -> BasePruner:
    return MedianPruner()


def _none(num_epochs: int) -> BasePruner:
    return NopPruner()


COMPETITORS: dict[str, Search] = {
    PRESETS: train_presets,
    "TPE, MedianPruner": partial(search_with_optuna, _tpe, _median),
    "TPE, Hyperband": partial(search_with_optuna, _tpe, _hyperband),
    "TPE": partial(search_with_optuna, _tpe, _none),
    "random": partial(search_with_optuna, lambda seed: RandomSampler(seed=seed), _none),
    SMAC: search_with_smac,
}


def run_search(task_folder: str, name: str, seed: int, budget: int) -> None:
    """Run or resume a search until its budget is used up, and save its results.

    Args:
        task_folder: Folder of the task, filled by `prepare`; becomes the working directory.
        name: A key of `COMPETITORS`, or `OWN`, which options of ``khmer-tuner run`` may follow.
        seed: Seed of the search and of all trainings.
        budget: Number of epochs.
    """
    os.chdir(task_folder)
    trainings = Path("trainings") / results_path(name, seed).stem
    trainings.parent.mkdir(exist_ok=True)
    with wait_for_lock(trainings.with_suffix(".lock")):  # another command may run the same search
        if results_path(name, seed).exists():
            return
        if name.startswith(OWN):
            results = search_with_khmer_tuner(trainings, seed, budget, shlex.split(name)[1:])
        else:
            results = _search(name, trainings, seed, budget)
        save_results(results, results_path(name, seed))


def _search(name: str, folder: Path, seed: int, budget: int) -> list[TrialResult]:
    problem = Problem.load(seed)
    trainings = Trainings(problem, folder, budget, [] if name == PRESETS else load_results(results_path(PRESETS, seed)))
    with contextlib.suppress(BudgetSpentError):
        COMPETITORS[name](problem, trainings, seed)
    return trainings.results


def results_path(name: str, seed: int) -> Path:
    """Return the path of a search's results, relative to the task's folder."""
    return Path("results") / f"{re.sub('[^A-Za-z0-9.]+', '_', name)}_seed{seed}.json"
