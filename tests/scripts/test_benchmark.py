"""`scripts/benchmark.py --quick`, its bad input, and its stopwatch."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from search_spaces import TrainingConfig, load_experiments, load_model_definitions

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "scripts" / "benchmark.py"
PARTS = ("epochs", "bookkeeping", "scale")


def start(folder, *arguments):
    """Start the benchmark in a folder; the default folder for temporary files is ``temporary`` there."""
    temporary = folder / "temporary"
    temporary.mkdir()
    return subprocess.Popen(
        [sys.executable, str(BENCHMARK), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_quick_run_measures_all_parts(tmp_path):
    # One thread, because other tests run in parallel.
    process = start(tmp_path, "--quick", "--threads", "1")
    output, errors = process.communicate()
    assert process.returncode == 0, output + errors
    report = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    assert tuple(report["parts"]) == PARTS
    assert report["facts"]["threads"] == 1
    for name in PARTS:
        assert f"\n{name}, measured in " in output
    for figures in report["parts"]["epochs"].values():
        assert sum(figures["parts"].values()) == pytest.approx(figures["epoch_seconds"])
        assert min(figures["parts"].values()) >= 0
        assert 0 < figures["beside_arithmetic_and_augmentation"] <= figures["beside_arithmetic"] < 1
    for found in report["parts"]["bookkeeping"]["sizes"].values():
        assert min(found["trial"].values()) >= 0
        assert found["trial"]["claim"] > 0
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["epoch"], "unknown part 'epoch'; choose from epochs, bookkeeping, "),
        (["epochs", "--threads", "0"], "--threads: found 0; expected 1 or more"),
        (["epochs", "--threads", "two"], "argument --threads: invalid int value: 'two'"),
        (["epochs", "--data", "nowhere.yaml"], "--data: nowhere.yaml is not a file"),
        (["epochs", "--json", "nowhere/figures.json"], "--json: nowhere/figures.json cannot be written"),
        (["epochs", "--json", "temporary"], "--json: temporary cannot be written"),
        (["epochs", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["epochs", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_bad_input_is_reported_without_traceback(arguments, problem, tmp_path):
    process = start(tmp_path, *arguments)
    output, errors = process.communicate()
    assert process.returncode == 2
    assert problem in errors
    assert "Traceback" not in errors
    assert output == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_benchmark_removes_its_files(number, tmp_path):
    process = start(tmp_path, "epochs", "--quick")
    assert process.stderr is not None
    while "model" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)  # the measuring process is starting
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))


@pytest.fixture
def stopwatch(importable):
    return importlib.import_module("benchmark.stopwatch")


class Clock:
    """A clock that advances only by `work`."""

    def __init__(self):
        self.now_s = 0

    def __call__(self):
        return self.now_s

    def work(self, seconds):
        self.now_s += seconds


@pytest.mark.parametrize(
    ("opaque", "parts"), [(False, {"outside": 4, "inside": 6}), (True, {"outside": 10})], ids=["divided", "opaque"]
)
def test_time_of_a_called_part_counts_for_the_caller_only_if_it_is_opaque(opaque, parts, stopwatch, monkeypatch):
    clock, program = Clock(), types.SimpleNamespace()
    program.inner = lambda: clock.work(6)
    program.outer = lambda: (program.inner(), clock.work(4))
    monkeypatch.setattr(stopwatch.time, "perf_counter", clock)
    monkeypatch.setitem(sys.modules, "timed_program", program)
    watch = stopwatch.Stopwatch()
    watch.time(
        [
            stopwatch.TimedPart("outside", ("timed_program.outer",), opaque=opaque),
            stopwatch.TimedPart("inside", ("timed_program.inner",)),
        ]
    )
    watch.lap()
    program.outer()
    clock.work(2)
    watch.lap()
    (lap,) = watch.laps
    assert (lap.seconds, lap.parts) == (12, parts)


@pytest.mark.usefixtures("importable")
def test_experiment_with_relative_paths_is_valid_in_other_folders(tmp_path, monkeypatch):
    module = importlib.import_module("benchmark.plan")
    shipped = load_model_definitions(TrainingConfig().model_config_path)["small"]
    models = {"models": {"my_model": shipped.model_dump(mode="json")}}
    (tmp_path / "models.yaml").write_text(json.dumps(models), encoding="utf-8")
    experiments = {"experiments": {"mine": {"model": {"name": "my_model", "config_path": "models.yaml"}}}}
    (tmp_path / "mine.yaml").write_text(json.dumps(experiments), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    plan = module.Plan(tmp_path, tmp_path / "metadata.yaml", "mine.yaml", threads=1, quick=False, log=print)
    (tmp_path / "other").mkdir()
    file = module.write_experiments(tmp_path / "other" / "experiments.yaml", plan.presets)
    monkeypatch.chdir(file.parent)
    config = load_experiments(file.name).experiments["mine"]
    assert load_model_definitions(config.model_config_path)["my_model"] == shipped


def test_missing_or_uncalled_function_is_an_error(stopwatch):
    error = importlib.import_module("harness.run").HarnessError
    with pytest.raises(error, match=r"the program has no function tuner\.workers\.loop\.gone"):
        stopwatch.Stopwatch().time([stopwatch.TimedPart("work", ("tuner.workers.loop.gone",))])
    lap = stopwatch.Lap(1.0, {"data": 1.0}, {"data": 3})
    stopwatch.refuse_uncalled([lap], ["data"])
    with pytest.raises(error, match="no timed function was called for: forward; correct"):
        stopwatch.refuse_uncalled([lap], ["data", "forward"])
