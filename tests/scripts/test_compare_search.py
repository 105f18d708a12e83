"""`scripts/compare_search.py`: all competitors train the same work, and their results are read correctly."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
OPTUNA, SMAC = "TPE, MedianPruner", "SMAC3"
BUDGET = 9


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module(f"search_comparison.{name}")


def compare(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "compare_search.py"), "--work-dir", str(folder), "--tasks", "letters"]
    command += ["--seeds", "3", "--budget", str(BUDGET), "--epochs", "2", *options]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("comparison")
    done = compare(folder, "--competitors", "khmer-tuner", OPTUNA, SMAC, "--variants", "--pruner none")
    assert done.returncode == 0, done.stderr
    return folder / "letters" / "results", done.stdout


@pytest.mark.slow
class TestSmallComparison:
    def test_each_search_spends_exactly_the_budget_and_starts_with_the_same_presets(
        self, finished: tuple[Path, str]
    ) -> None:
        results, _ = finished
        presets = json.loads((results / "presets_seed3.json").read_text())
        assert [len(preset["values"]) for preset in presets] == [2, 2, 2]
        assert all(0 < preset["test_char"] < 1 for preset in presets)
        for name in ("khmer_tuner", "TPE_MedianPruner", "SMAC3", "khmer_tuner_pruner_none"):
            trials = json.loads((results / f"{name}_seed3.json").read_text())
            assert sum(len(trial["values"]) for trial in trials) == BUDGET
            assert trials[:3] == presets, name

    def test_repeated_searches_resume_without_training_again(self, finished: tuple[Path, str]) -> None:
        results, output = finished
        before = {path: path.read_bytes() for path in results.iterdir()}
        files = results.parent.glob("trainings/khmer_tuner*/*/metrics.jsonl")
        metrics = {path: path.stat().st_mtime_ns for path in files}
        for name in ("khmer_tuner", "TPE_MedianPruner", "SMAC3"):
            (results / f"{name}_seed3.json").unlink()
        done = compare(results.parents[1], "--competitors", "khmer-tuner", OPTUNA, SMAC, "--variants", "--pruner none")
        assert done.stdout == output, done.stderr
        assert {path: path.read_bytes() for path in results.iterdir()} == before
        assert metrics
        assert {path: path.stat().st_mtime_ns for path in metrics} == metrics

    def test_table_data_and_plot(self, finished: tuple[Path, str]) -> None:
        results, output = finished
        for name in ("khmer-tuner", OPTUNA, SMAC, "khmer-tuner --pruner none"):
            assert f"\n| {name} | 0." in output
        data = json.loads((results.parents[1] / "comparison.json").read_text())["letters"]
        assert set(data["competitors"]) == {"khmer-tuner", OPTUNA, SMAC, "khmer-tuner --pruner none"}
        assert (results.parents[1] / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_parameters_of_a_preset_are_the_same_in_smac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tasks, smac = module("tasks", monkeypatch), module("smac_search", monkeypatch)
    tasks.prepare(tasks.Task("AB", max_length=2, samples=20, test_samples=5), tmp_path, epochs=2)
    monkeypatch.chdir(tmp_path)
    problem = tasks.Problem.load(seed=1)
    space = smac.configuration_space(problem.space, seed=0)
    assert len(problem.presets) == 3
    for preset in problem.presets.values():
        config = smac.to_training(problem, smac.to_smac(space, problem, preset))
        assert problem.parameters(config) == problem.parameters(preset)
    for config in space.sample_configuration(30):
        parameters = problem.parameters(smac.to_training(problem, config))
        assert {"batch_size", "learning_rate", "scheduler_type"} <= parameters.keys()
        assert {name for name in config if name != "batch_size"} <= parameters.keys()
        for parameter in problem.space:
            assert parameter.name not in parameters or parameter.domain.contains(parameters[parameter.name])


class TestTrainings:
    @pytest.fixture
    def trainings(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
        tasks = module("tasks", monkeypatch)
        tasks.prepare(tasks.Task("AB", max_length=2, samples=20, test_samples=5), tmp_path, epochs=3)
        monkeypatch.chdir(tmp_path)
        return module("trainings", monkeypatch).Trainings(tasks.Problem.load(seed=1), Path("trainings"), budget=4)

    def test_a_promoted_trial_continues_and_its_earlier_epochs_are_not_charged_again(self, trainings: Any) -> None:
        config = next(iter(trainings.problem.presets.values()))
        first = trainings.run(config, lambda epoch, value: epoch < 2)
        second = trainings.run(config)
        assert (first.why_ended, second.why_ended) == ("pruned", "max_epochs")
        assert (len(first.values), len(second.values)) == (2, 1)
        assert second.best == max(first.values + second.values)

    def test_the_budget_ends_the_last_trial(self, trainings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, cut = list(trainings.problem.presets.values())[:2]
        trainings.run(whole)
        with pytest.raises(module("trainings", monkeypatch).BudgetSpentError):
            trainings.run(cut)
        assert [len(result.values) for result in trainings.results] == [3, 1]
        assert [result.why_ended for result in trainings.results] == ["max_epochs", "budget"]

    def test_finished_trainings_are_charged_and_can_be_pruned_but_not_trained_again(
        self, trainings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = next(iter(trainings.problem.presets.values()))
        finished = trainings.run(config)
        again = module("trainings", monkeypatch).Trainings(trainings.problem, Path("other"), 6, [finished])
        assert again.run(config) == finished
        assert not Path("other").exists()
        pruned = module("trainings", monkeypatch).Trainings(trainings.problem, Path("other"), 6, [finished])
        result = pruned.run(config, lambda epoch, value: epoch < 2)
        assert (result.values, result.why_ended) == (finished.values[:2], "pruned")


class TestCurves:
    def curves(self, monkeypatch: pytest.MonkeyPatch, *searches: list[dict[str, Any]], budget: int = 6) -> Any:
        result = module("trainings", monkeypatch).TrialResult
        trials = [[result("", **trial) for trial in search] for search in searches]
        return module("report", monkeypatch).Curves.of(trials, budget)

    def test_chosen_model_is_the_best_ended_trial(self, monkeypatch: pytest.MonkeyPatch) -> None:
        search = [
            {"values": [0.1, 0.5], "best": 0.5, "test_seq": 0.25},
            {"values": [0.4], "best": 0.4, "test_seq": 0.75},  # a better model by chance, but not chosen
            {"values": [0.9], "best": 0.9},  # cut by the budget, so it has no score
        ]
        curves = self.curves(monkeypatch, search)
        assert curves.best.tolist() == [[0.1, 0.5, 0.5, 0.9, 0.9, 0.9]]
        assert curves.test_error.tolist() == [[1, 0.75, 0.75, 0.75, 0.75, 0.75]]
        assert curves.epochs_to(0.5) == [2]
        assert curves.epochs_to(0.95) == [math.inf]

    def test_own_search_is_compared_with_the_best_competitor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def search(*values: float, test_seq: float = 0.5) -> list[dict[str, Any]]:
            return [{"values": list(values), "best": max(values), "test_seq": test_seq}]

        own = self.curves(monkeypatch, search(0.1, 0.9), search(0.1, 0.8, test_seq=0.75))
        best = self.curves(monkeypatch, search(0.1, 0.2, 0.3, 0.8), search(0.1, 0.2, 0.3, 0.8))
        worse = self.curves(monkeypatch, search(0.5), search(0.5))
        presets = self.curves(monkeypatch, search(0.1, test_seq=0.0), search(0.1, test_seq=0.0))
        report = module("report", monkeypatch)
        data = report.summary({"own": own, "best": best, "worse": worse}, presets, "own")
        assert (data["best_competitor"], data["its_final_accuracy"]) == ("best", 0.8)
        assert data["epochs_to_that_accuracy"] == {"own": 2, "best": 4, "worse": None}
        assert data["ratio"] == 0.5
        mean, low, high = data["test_error"]["reduction"]
        assert mean == pytest.approx((0.5 + 0.75) / 2)
        assert (low + high) / 2 == pytest.approx(mean)
        # Student's t distribution with one degree of freedom: 12.706 standard errors of 0.125.
        assert high - mean == pytest.approx(12.706 * 0.125, rel=1e-3)
        assert "| worse | 0.500 (0.500-0.500) |" in report.table("task", data)


@pytest.mark.parametrize(("budget", "kept"), [(5, [2, 3]), (4, [2, 2]), (2, [2, 0]), (9, [2, 3])])
def test_own_search_is_cut_at_the_budget(budget: int, kept: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    result = module("trainings", monkeypatch).TrialResult
    results = [result("", [0.1, 0.2], 0.2, 0.3, 0.4), result("", [0.3, 0.1, 0.5], 0.5, 0.6, 0.7)]
    cut = module("own_search", monkeypatch).cut(results, budget)
    assert [len(trial.values) for trial in cut] == kept
    if budget == 4:
        assert (cut[1].best, cut[1].test_seq) == (0.3, None)


def test_noise_changes_the_images_but_not_the_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tuner.data.pixel_cache import open_pixel_cache

    tasks = module("tasks", monkeypatch)
    splits = {}
    for noise in (0.0, 20.0):
        task = tasks.Task("AB", max_length=2, samples=20, test_samples=5, noise=noise)
        tasks.prepare(task, tmp_path / str(noise), epochs=1)
        cache = open_pixel_cache(tmp_path / str(noise) / "data" / "metadata.yaml", ["train", "val", "unseen"])
        splits[noise] = cache["unseen"]
    assert np.array_equal(splits[0.0].labels, splits[20.0].labels)
    difference = splits[20.0].images[:].astype(float) - splits[0.0].images[:].astype(float)
    assert 5 < difference.std() < 25
