"""The records of a training: TensorBoard events, ``metrics.jsonl``, a log file and its configuration."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import psutil
import yaml

from search_spaces import TrainingConfig
from search_spaces.diagnostics.atomic_files import write_text
from search_spaces.files.regular_files import regular_file
from tuner.training.history import EpochMetrics
from tuner.training.plots import Plots
from tuner.training.tensorboard_run import TensorBoardRun

log = logging.getLogger(__name__)

CONFIG_FILE = "training_config.yaml"


class Recorder:
    """Writes the epochs of one experiment; after an interruption it continues where the history ends."""

    def __init__(
        self, folder: Path, config: TrainingConfig, history: Sequence[EpochMetrics], *, parameters: int
    ) -> None:
        """Open the files of an experiment.

        Args:
            folder: The experiment's folder.
            config: The experiment's configuration.
            history: Finished epochs of an interrupted training; records of later epochs are discarded.
            parameters: Trainable parameters of the model.
        """
        self._metrics_path = folder / "metrics.jsonl"
        write_text(self._metrics_path, "".join(map(_metrics_line, history)))
        self._start_run = partial(TensorBoardRun, folder / "tensorboard", config, parameters=parameters)
        self._run = self._start_run(history=history) if config.use_tensorboard else None
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call starts the measurement

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Record a training step, counted from 1 over all epochs."""
        log.info("step %d: loss %.4f, lr %.2e", step, loss, learning_rate)
        if self._run is not None:
            self._run.add_step(step, loss, learning_rate)

    def discard_unfinished_epoch(self, history: Sequence[EpochMetrics]) -> None:
        """Discard the steps after the finished epochs, because the training repeats them."""
        if self._run is not None:
            self._run.close()
            self._run = self._start_run(history=history)

    def epoch(self, metrics: EpochMetrics) -> None:
        """Record a finished epoch."""
        with open(self._metrics_path, "a", encoding="utf-8", opener=regular_file) as file:
            file.write(_metrics_line(metrics))
        if self._run is not None:
            self._run.add_epoch(metrics)

    def plots(self, plots: Plots, epoch: int) -> None:
        """Record the plots after an epoch, unless plots of recent epochs were recorded."""
        if self._run is not None:
            self._run.add_plots(plots, epoch)

    def ended(self, plots: Plots, epochs: int) -> None:
        """Record the final plots, and that the training ended without an interruption after this number of epochs."""
        if self._run is not None:
            self._run.end(plots, epochs)

    def system_use(self) -> tuple[float, float]:
        """Return resident memory in MiB and CPU use in per cent of a core since the last call."""
        return self._process.memory_info().rss / 2**20, self._process.cpu_percent()

    def close(self) -> None:
        """Close the files."""
        if self._run is not None:
            self._run.close()


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Copy this program's log messages to ``logs/training.log`` of an experiment."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    path = folder / "logs" / "training.log"
    handler = logging.FileHandler(path, delay=True)
    handler.setStream(open(path, "a", encoding="utf-8", errors="backslashreplace", opener=regular_file))
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("tuner")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        try:
            handler.close()
        except OSError as error:  # closing writes the buffered messages
            log.warning("%s is not complete: %s", path, error)


def write_config(folder: Path, config: TrainingConfig) -> Path:
    """Save the effective configuration, with all fields, in the experiment's folder; return the path."""
    path = folder / "configs" / CONFIG_FILE
    for directory in (folder, path.parent):  # without parents, so that a moved output folder is not created again
        directory.mkdir(exist_ok=True)
    write_text(path, config_yaml(config))
    return path


def config_yaml(config: TrainingConfig) -> str:
    """Return the effective configuration as YAML."""
    text: str = yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
    return "# The effective configuration of this training: all fields, including those with default values.\n" + text


def _metrics_line(metrics: EpochMetrics) -> str:
    return json.dumps(asdict(metrics)) + "\n"
