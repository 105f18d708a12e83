"""An interrupted search, gone on with, is the search that was never interrupted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from studies import SearchRequest, load_study, study_status
from tuner import HyperparameterTuner
from tuner.__main__ import main
from tuner.display import Display
from tuner.session.run_options import RunOptions
from tuner.signals import StopRequested, stop_on_signals

WriteConfig = Callable[..., Path]
WriteSpace = Callable[..., Path]
MakeWatcher = Callable[..., Any]

# They are of the process, not of the training.
TIMES = ("training_time", "training_time_s", "epoch_seconds", "epoch_seconds_median", "memory_mb", "cpu_percent")
BY_LOSS = {"early_stopping": {"monitor": "val_loss", "mode": "min", "patience": 2}}


def timeless(data: Any) -> Any:
    """The same without what differs from run to run."""
    if isinstance(data, dict):
        return {name: timeless(value) for name, value in data.items() if name not in (*TIMES, "attempts", "timestamp")}
    return [timeless(item) for item in data] if isinstance(data, list) else data


def story(folder: Path, results: Path) -> list[Any]:
    """All that a study and its results say."""
    trials = load_study(folder)[0].get_trials()
    curves = {
        path.parent.name: [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        for path in folder.glob("*/metrics.jsonl")
    }
    return [
        [(trial.state, trial.params, trial.values, trial.intermediate_values) for trial in trials],
        [timeless(trial.user_attrs) for trial in trials],
        [trial.distributions for trial in trials],
        curves,
        timeless(json.loads(results.read_text())),
    ]


def trained(config: Path, space: Path, folder: str, display: Display | None = None) -> None:
    # Six search trials: the last one is drawn by what was learned, not at random.
    HyperparameterTuner(
        str(config),
        options=RunOptions(
            output_dir=folder,
            space_file=str(space),
            search=SearchRequest(at_least=6, prune_grace=1),
            results_file=f"{folder}.json",
        ),
        display=display,
    ).run_experiments()


def by_signal(train: Callable[[Callable[[], object]], object]) -> None:
    """Interrupt a training with Ctrl-C."""
    with pytest.raises(StopRequested), stop_on_signals():
        train(lambda: os.kill(os.getpid(), signal.SIGINT))


def by_request(train: Callable[[Callable[[], object]], object]) -> None:
    """Interrupt a training with `khmer-tuner stop`."""
    train(lambda: main(["stop", "--output-dir", "broken"]))


@pytest.mark.usefixtures("in_tmp")
def test_resumed_search_gives_the_same_trials_and_results(
    write_config: WriteConfig, write_space: WriteSpace, make_watcher: MakeWatcher
) -> None:
    config = write_config({"one": {"training": {"num_epochs": 3}} | BY_LOSS})
    space = write_space(base={"num_epochs": 3})
    trained(config, space, "straight")
    straight = story(Path("straight"), Path("straight.json"))
    # Guards the comparison: it holds what could go wrong.
    ends = [trial["outcome"]["why_ended"] for trial in straight[1]]
    assert {"pruned", "max_epochs"} <= set(ends)
    longest = sorted(range(1, 7), key=lambda number: len(straight[0][number][3]))[-2:]
    in_preset, early, late = {"in_batch": 8}, *({"of_trial": number, "after_epoch": 1} for number in sorted(longest))

    def train_until(where: dict[str, int], happens: Callable[[], object]) -> None:
        trained(config, space, "broken", make_watcher(action=happens, **where))

    for interrupt, where in ((by_request, in_preset), (by_signal, early), (by_request, late)):
        interrupt(partial(train_until, where))
        assert study_status(*load_study(Path("broken"))).counts["interrupted"] == 1
    assert story(Path("broken"), Path("broken.json"))[:3] != straight[:3]
    assert main(["resume", "--output-dir", "broken", "--results-file", "broken.json"]) == 0
    for broken, whole in zip(story(Path("broken"), Path("broken.json")), straight, strict=True):
        assert broken == whole
