"""The benchmark measures what it says: `scripts/benchmark.py`, quickly, and the clock and the studies that it uses."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from search_spaces import TrainingConfig, load_experiments, load_model_definitions

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "scripts" / "benchmark.py"
PARTS = ("machine", "epochs", "targets", "bookkeeping", "scale", "images", "workers", "cuda")


def begin(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start the benchmark in a folder; its temporary files go to ``temporary`` there."""
    (folder / "temporary").mkdir()
    return subprocess.Popen(
        [sys.executable, str(BENCHMARK), *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_quick_run_measures_everything(tmp_path: Path) -> None:
    process = begin(tmp_path, "--quick")
    told, errors = process.communicate()
    assert process.returncode == 0, told + errors
    report = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    assert tuple(report["parts"]) == PARTS
    assert report["facts"]["threads"] >= 1
    for name in PARTS:
        assert f"\n{name}, measured in " in told
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
    assert [int(images) for images in report["parts"]["images"]] == [200, 2000]
    assert all(found["trials"] == 2 * int(count) for count, found in report["parts"]["workers"]["workers"].items())
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["epoch"], "there is no part 'epoch'; choose from machine, epochs, "),
        (["machine", "--threads", "0"], "--threads: found 0; expected 1 or more"),
        (["machine", "--threads", "two"], "argument --threads: invalid int value: 'two'"),
        (["machine", "--data", "nowhere.yaml"], "--data: nowhere.yaml is no file"),
        (["machine", "--json", "nowhere/figures.json"], "--json: nowhere/figures.json cannot be written"),
        (["machine", "--json", "temporary"], "--json: temporary cannot be written"),
        (["machine", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["machine", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_bad_input_is_told_in_a_line(words: list[str], problem: str, tmp_path: Path) -> None:
    process = begin(tmp_path, *words)
    told, errors = process.communicate()
    assert process.returncode == 2
    assert problem in errors
    assert "Traceback" not in errors
    assert told == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    process = begin(tmp_path, "machine", "--quick")
    assert process.stderr is not None
    while "matrices" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)  # the process that measures is on its way
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))


@pytest.fixture
def stopwatch(importable: None) -> Any:
    return importlib.import_module("benchmarking.stopwatch")


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now_s = 0

    def __call__(self) -> int:
        return self.now_s

    def work(self, seconds: int) -> None:
        self.now_s += seconds


@pytest.mark.parametrize(
    ("opaque", "parts"), [(False, {"outside": 4, "inside": 6}), (True, {"outside": 10})], ids=["divided", "opaque"]
)
def test_what_a_part_calls_counts_for_the_part_that_is_called(
    opaque: bool, parts: dict[str, int], stopwatch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, program = Clock(), types.SimpleNamespace()
    program.inner = lambda: clock.work(6)
    program.outer = lambda: (program.inner(), clock.work(4))
    monkeypatch.setattr(stopwatch.time, "perf_counter", clock)
    monkeypatch.setitem(sys.modules, "timed_program", program)
    watch = stopwatch.Stopwatch()
    watch.watch(
        [
            stopwatch.Watched("outside", ("timed_program.outer",), opaque=opaque),
            stopwatch.Watched("inside", ("timed_program.inner",)),
        ]
    )
    watch.lap()
    program.outer()
    clock.work(2)
    watch.lap()
    (lap,) = watch.laps
    assert (lap.seconds, lap.parts) == (12, parts)


@pytest.mark.usefixtures("importable")
def test_an_experiment_of_the_working_directory_is_trained_in_others_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("benchmarking.plan")
    shipped = load_model_definitions(TrainingConfig().model_config_path)["small"]
    models = {"models": {"my_model": shipped.model_dump(mode="json")}}
    (tmp_path / "models.yaml").write_text(json.dumps(models), encoding="utf-8")
    experiments = {"experiments": {"mine": {"model": {"name": "my_model", "config_path": "models.yaml"}}}}
    (tmp_path / "mine.yaml").write_text(json.dumps(experiments), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    plan = module.Plan(tmp_path, tmp_path / "metadata.yaml", "mine.yaml", threads=1, quick=False, say=print)
    (tmp_path / "elsewhere").mkdir()
    file = module.write_experiments(tmp_path / "elsewhere" / "experiments.yaml", plan.presets)
    monkeypatch.chdir(file.parent)
    config = load_experiments(file.name).experiments["mine"]
    assert load_model_definitions(config.model_config_path)["my_model"] == shipped


def test_what_is_gone_or_no_longer_called_is_not_timed_in_silence(stopwatch: Any) -> None:
    error = importlib.import_module("benchmarking.processes").BenchmarkError
    with pytest.raises(error, match=r"tuner\.work\.gone is timed, and the program has no such function"):
        stopwatch.Stopwatch().watch([stopwatch.Watched("work", ("tuner.work.gone",))])
    lap = stopwatch.Lap(1.0, {"data": 1.0}, {"data": 3})
    stopwatch.refuse_uncalled([lap], ["data"])
    with pytest.raises(error, match="no longer calls what is timed as forward"):
        stopwatch.refuse_uncalled([lap], ["data", "forward"])
