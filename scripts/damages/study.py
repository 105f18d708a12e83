"""The study to damage: completed, pruned, failed, interrupted and waiting trials, and one added with Optuna alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness.fixture_study import OUTPUT, FixtureStudy, open_study
from harness.forks import in_fork, run_logged
from harness.replacement import watch
from harness.run import HarnessError

STUDY = "study"
DATABASE = f"{STUDY}/{OUTPUT}/study.db"
# Names of the trials in order of trial number: the finished trials, then those that `resume` must train.
FINISHED = ("with_curves", "plain", "search_0002", "search_0003", "search_0004", "diverging")
PENDING = ("interrupted", "waiting")
TRIALS = (*FINISHED, *PENDING, "foreign")
_STATES = ["COMPLETE"] * 3 + ["PRUNED"] * 2 + ["FAIL", "RUNNING", "WAITING", "COMPLETE"]
_MORE_EXPERIMENTS = """\
  diverging:
    <<: *common
    model: {name: tiny_ctc, config_path: ../models.yaml}
    optimizer: {type: adamw}
    training: {<<: *training, batch_size: 2, loss_type: ctc, learning_rate: 10, gradient_clip_norm: 0, weight_decay: 10}
  interrupted: &short
    <<: *common
    model: {name: tiny, config_path: ../models.yaml}
    training: {<<: *training, num_epochs: 2}
  waiting: *short
"""


def make_study(folder: Path) -> None:
    """Generate a dataset and run the study, both in a new folder.

    Raises:
        HarnessError: The trials do not have the expected states.
    """
    small = FixtureStudy(folder, search_trials=3)
    (folder / STUDY).mkdir(parents=True)
    in_fork(small.write_inputs)
    added = ["--config", "../experiments.yaml", "--experiments", *TRIALS[5:8], "--output-dir", OUTPUT]
    seed = small.run[small.run.index("--seed") :][:2]
    run_logged(partial(run_main, small.run), folder / STUDY)
    with (folder / "experiments.yaml").open("a", encoding="utf-8") as file:
        file.write(_MORE_EXPERIMENTS)
    run_logged(partial(run_main, ["enqueue", *added, *seed]), folder / STUDY)
    _, output = run_logged(partial(run_main, small.resume, _kill_in_second_epoch), folder / STUDY)
    for path in folder.glob("*.yaml"):  # the study no longer needs them
        path.unlink()
    if (states := in_fork(_add_foreign_trial, folder / STUDY)) != _STATES:
        raise HarnessError(f"trial states: found {states}; expected {_STATES}; output of `resume`:\n{output}")


def run_main(command: list[str], before: Callable[[], object] = lambda: None) -> int:
    """Call `before`, then run a command of the program in this process; return the command's exit code."""
    from tuner.__main__ import main

    before()
    return main(command)


def _kill_in_second_epoch() -> None:
    def kill(training: Any, *rest: Any) -> None:
        if training.config.experiment_name == PENDING[0] and training.history:
            os.kill(os.getpid(), signal.SIGKILL)

    watch("tuner.training.loop.run_epoch", before=kill)


def _add_foreign_trial(folder: Path) -> list[str]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = open_study(folder).study_name
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder / OUTPUT / 'study.db'}")
    scale = optuna.distributions.FloatDistribution(0, 1)
    study.add_trial(optuna.create_trial(value=0.5, params={"x": 0.5}, distributions={"x": scale}))
    return [trial.state.name for trial in study.get_trials()]
