"""`scripts/compare_search.py`: all competitors train the same work, and their results are read correctly."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from search_spaces import config_digest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
OPTUNA, SMAC = "TPE, MedianPruner", "SMAC3"
BUDGET, EPOCHS = 45, 9
SMAC_METRICS = "digits/trainings/SMAC3_seed3/*/metrics.jsonl"
NAMES = ("khmer_tuner", "TPE_MedianPruner", "SMAC3")


def module(name, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module(f"search_comparison.{name}")


def command(folder, *options):
    return [sys.executable, str(SCRIPTS / "compare_search.py"), "--work-dir", str(folder), *options]


def compare(folder, *options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command(folder, *options), env=environment, capture_output=True, text=True)


SMALL = ("--tasks", "digits", "--seeds", "3", "--budget", str(BUDGET), "--epochs", str(EPOCHS), "--samples", "100")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("smac")
    folder = tmp_path_factory.mktemp("comparison")
    done = compare(folder, *SMALL, "--competitors", OPTUNA, SMAC, "--variants", "--pruner none")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def started(folder):
    """Start the comparison, and wait until SMAC is in its first Hyperband round."""
    process = subprocess.Popen(
        command(folder, *SMALL, "--competitors", OPTUNA, SMAC, "--jobs", "3"),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list(folder.glob(SMAC_METRICS))) < 4:
        assert process.poll() is None
        time.sleep(0.1)
    return process


@pytest.mark.slow
class TestSmallComparison:
    def test_each_search_spends_exactly_the_budget_and_starts_with_the_same_presets(self, finished):
        results = finished[0] / "digits" / "results"
        presets = json.loads((results / "presets_seed3.json").read_text())
        assert [len(preset["values"]) for preset in presets] == [EPOCHS] * 3
        assert all(0 < preset["test_char"] < 1 for preset in presets)
        for name in (*NAMES, "khmer_tuner_pruner_none"):
            trials = json.loads((results / f"{name}_seed3.json").read_text())
            assert sum(len(trial["values"]) for trial in trials) == BUDGET
            assert trials[:3] == presets, name
        promoted = [trial["digest"] for trial in json.loads((results / "SMAC3_seed3.json").read_text())]
        assert len(set(promoted)) < len(promoted)

    def test_table_data_and_plot(self, finished):
        folder, output = finished
        names = {"khmer-tuner", OPTUNA, SMAC, "khmer-tuner --pruner none"}
        for name in names:
            assert f"\n| {name} | 0." in output
        data = json.loads((folder / "comparison.json").read_text())
        assert (data["seeds"], data["budget"], data["epochs"]) == ([3], BUDGET, EPOCHS)
        assert set(data["digits"]["competitors"]) == names
        assert data["digits"]["best_competitor"] in (OPTUNA, SMAC)
        assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")

    def test_comparison_killed_in_the_middle_continues_and_has_the_same_results(self, finished, tmp_path):
        results = finished[0] / "digits" / "results"
        process = started(tmp_path)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        before = {path: path.read_text() for path in tmp_path.glob(SMAC_METRICS)}
        done = compare(tmp_path, *SMALL, "--competitors", OPTUNA, SMAC)
        assert done.returncode == 0, done.stderr
        for name in NAMES:
            file = f"{name}_seed3.json"
            assert (tmp_path / "digits" / "results" / file).read_text() == (results / file).read_text()
        for path, text in before.items():  # times are part of the metrics: the epochs were not trained again
            assert path.read_text().startswith(text)

    def test_ctrl_c_ends_all_searches(self, tmp_path):
        pytest.importorskip("smac")
        process = started(tmp_path)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert process.returncode == 130
        assert errors.endswith("stopped; repeat the command to continue\n")
        assert not psutil.wait_procs(children, timeout=10)[1]


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--budget", "72"], "--budget: found 24, 2, 72; expected at least 1, 1, and more than the 72 epochs"),
            (["--jobs", "0"], "found 24, 0, 360; expected at least 1, 1,"),
            (["--competitors", "khmer-tuner"], "invalid choice: 'khmer-tuner'"),
        ],
    )
    def test_invalid_options_are_refused_before_any_training(self, options, expected, tmp_path):
        done = compare(tmp_path / "new", *options)
        assert done.returncode == 2
        assert expected in done.stderr
        assert not (tmp_path / "new").exists()

    def test_work_folder_of_a_comparison_with_another_budget_is_refused(self, monkeypatch, tmp_path):
        tasks = module("tasks", monkeypatch)
        small = tasks.Task("AB", max_length=2, samples=20, test_samples=5)
        tasks.prepare(small, tmp_path, epochs=2, budget=10)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        tasks.prepare(small, tmp_path, epochs=2, budget=10)
        for changed in (
            lambda: tasks.prepare(small, tmp_path, epochs=2, budget=11),
            lambda: tasks.prepare(small, tmp_path, epochs=3, budget=10),
            lambda: tasks.prepare(replace(small, noise=1.0), tmp_path, epochs=2, budget=10),
        ):
            with pytest.raises(importlib.import_module("harness.run").HarnessError, match="choose another --work-dir"):
                changed()
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_parameters_of_a_preset_are_the_same_in_smac(monkeypatch, tmp_path):
    pytest.importorskip("smac")
    tasks, smac = module("tasks", monkeypatch), module("smac_search", monkeypatch)
    tasks.prepare(tasks.Task("AB", max_length=2, samples=20, test_samples=5), tmp_path, epochs=2, budget=10)
    monkeypatch.chdir(tmp_path)
    problem = tasks.Problem.load(seed=1)
    space = smac.configuration_space(problem.space, seed=0)
    assert len(problem.presets) == 3
    for preset in problem.presets.values():
        config = smac.to_training(problem, smac.to_smac(space, problem, preset))
        assert problem.parameters(config) == problem.parameters(preset)
        assert config_digest(config) == config_digest(preset)
    for config in space.sample_configuration(30):
        parameters = problem.parameters(smac.to_training(problem, config))
        assert {"batch_size", "learning_rate", "scheduler_type"} <= parameters.keys()
        assert {name for name in config if name != "batch_size"} <= parameters.keys()
        for parameter in problem.space:
            assert parameter.name not in parameters or parameter.domain.contains(parameters[parameter.name])


class TestTrainings:
    @pytest.fixture
    def trainings(self, monkeypatch, tmp_path):
        tasks = module("tasks", monkeypatch)
        tasks.prepare(tasks.Task("AB", max_length=2, samples=20, test_samples=5), tmp_path, epochs=3, budget=10)
        monkeypatch.chdir(tmp_path)
        return module("trainings", monkeypatch).Trainings(tasks.Problem.load(seed=1), Path("trainings"), budget=4)

    def test_a_promoted_trial_continues_and_its_earlier_epochs_are_not_charged_again(self, trainings):
        config = next(iter(trainings.problem.presets.values()))
        first = trainings.run(config, lambda epoch, value: epoch < 2)
        second = trainings.run(config)
        assert (first.why_ended, second.why_ended) == ("pruned", "max_epochs")
        assert (len(first.values), len(second.values)) == (2, 1)
        assert second.best == max(first.values + second.values)

    def test_the_budget_ends_the_last_trial(self, trainings, monkeypatch):
        whole, cut = list(trainings.problem.presets.values())[:2]
        trainings.run(whole)
        with pytest.raises(module("trainings", monkeypatch).BudgetSpentError):
            trainings.run(cut)
        assert [len(result.values) for result in trainings.results] == [3, 1]
        assert [result.why_ended for result in trainings.results] == ["max_epochs", "budget"]

    def test_finished_trainings_are_charged_and_can_be_pruned_but_not_trained_again(self, trainings, monkeypatch):
        config = next(iter(trainings.problem.presets.values()))
        finished = trainings.run(config)
        again = module("trainings", monkeypatch).Trainings(trainings.problem, Path("other"), 6, [finished])
        assert again.run(config) == finished
        assert not Path("other").exists()
        pruned = module("trainings", monkeypatch).Trainings(trainings.problem, Path("other"), 6, [finished])
        result = pruned.run(config, lambda epoch, value: epoch < 2)
        assert (result.values, result.why_ended) == (finished.values[:2], "pruned")


class TestCurves:
    def curves(self, monkeypatch, *searches, budget=6):
        result = module("trainings", monkeypatch).TrialResult
        trials = [[result("", **trial) for trial in search] for search in searches]
        return module("report", monkeypatch).Curves.of(trials, budget)

    def test_chosen_model_is_the_best_ended_trial(self, monkeypatch):
        search = [
            {"values": [0.1, 0.5], "best": 0.5, "test_seq": 0.25},
            {"values": [0.4], "best": 0.4, "test_seq": 0.75},  # a better model by chance, but not chosen
            {"values": [0.9], "best": 0.9},  # cut by the budget, so it has no score
        ]
        curves = self.curves(monkeypatch, search)
        assert curves.best.tolist() == [[0.1, 0.5, 0.5, 0.9, 0.9, 0.9]]
        assert curves.test_error.tolist() == [[1, 0.75, 0.75, 0.75, 0.75, 0.75]]
        assert curves.median_epochs_to(0.5) == 2
        assert curves.median_epochs_to(0.95) is None

    def test_median_of_an_even_number_of_seeds_ignores_seeds_that_never_reach_the_quality(self, monkeypatch):
        searches = [
            [{"values": values, "best": max(values)}] for values in ([0.1, 0.9], [0.9, 0.9], [0.1, 0.1], [0.1, 0.1])
        ]
        assert self.curves(monkeypatch, *searches).median_epochs_to(0.9) == 2
        assert self.curves(monkeypatch, *searches[1:]).median_epochs_to(0.9) is None

    def test_seed_without_any_epoch_has_no_accuracy(self, monkeypatch):
        curves = self.curves(monkeypatch, [], [{"values": []}])
        assert curves.best.tolist() == [[0.0] * 6] * 2
        assert curves.test_error.tolist() == [[1.0] * 6] * 2

    def test_own_search_is_compared_with_the_best_competitor(self, monkeypatch):
        def search(*values, test_seq=0.5):
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
        mean, low, high = data["reduction"]
        assert mean == pytest.approx((0.5 + 0.75) / 2)
        assert (low + high) / 2 == pytest.approx(mean)
        # Student's t distribution with one degree of freedom: 12.706 standard errors of 0.125.
        assert high - mean == pytest.approx(12.706 * 0.125, rel=1e-3)
        assert "| worse | 0.500 (0.500-0.500) |" in report.table("task", data)
        single = report.summary({"own": own, "own --pruner none": best, "worse": worse}, presets, "own")
        assert single["best_competitor"] == "worse"

    def test_one_seed_has_no_confidence_interval(self, monkeypatch):
        own = self.curves(monkeypatch, [{"values": [0.9], "best": 0.9, "test_seq": 0.5}])
        presets = self.curves(monkeypatch, [{"values": [0.1], "best": 0.1, "test_seq": 0.0}])
        report = module("report", monkeypatch)
        data = report.summary({"own": own, "other": presets}, presets, "own")
        assert data["reduction"] == [0.5, None, None]
        assert data["ratio"] == 1
        assert "best preset: 50%." in report.table("task", data)


@pytest.mark.parametrize(("budget", "kept"), [(5, [2, 3]), (4, [2, 2]), (2, [2, 0]), (9, [2, 3])])
def test_own_search_is_cut_at_the_budget(budget, kept, monkeypatch):
    result = module("trainings", monkeypatch).TrialResult
    results = [result("", [0.1, 0.2], 0.2, 0.3, 0.4), result("", [0.3, 0.1, 0.5], 0.5, 0.6, 0.7)]
    cut = module("own_search", monkeypatch).cut(results, budget)
    assert [len(trial.values) for trial in cut] == kept
    if budget == 4:
        assert (cut[1].best, cut[1].test_seq) == (0.3, None)


def test_noise_changes_the_images_but_not_the_labels(monkeypatch, tmp_path):
    from tuner.data.pixel_cache import open_pixel_cache

    tasks = module("tasks", monkeypatch)
    splits = {}
    for noise in (0.0, 20.0):
        task = tasks.Task("AB", max_length=2, samples=20, test_samples=5, noise=noise)
        tasks.prepare(task, tmp_path / str(noise), epochs=1, budget=10)
        cache = open_pixel_cache(tmp_path / str(noise) / "data" / "metadata.yaml", ["train", "val", "unseen"])
        splits[noise] = cache["unseen"]
    assert np.array_equal(splits[0.0].labels, splits[20.0].labels)
    difference = splits[20.0].images[:].astype(float) - splits[0.0].images[:].astype(float)
    assert 5 < difference.std() < 25
