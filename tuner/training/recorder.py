"""The files that record a training run: TensorBoard events, ``metrics.jsonl``, log file and configuration."""

from __future__ import annotations

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
from tuner.training.history import EpochMetrics, metrics_line
from tuner.training.plots import Plots
from tuner.training.tensorboard_run import TensorBoardRun

log = logging.getLogger(__name__)

CONFIG_FILE = "training_config.yaml"


class Recorder:
    """Records the steps, epochs and plots of one experiment in its files."""

    def __init__(
        self, folder: Path, config: TrainingConfig, history: Sequence[EpochMetrics], *, parameters: int
    ) -> None:
        """Open the files of an experiment.

        Args:
            folder: The experiment's folder.
            config: The experiment's configuration.
            history: Finished epochs of an interrupted training; records of later epochs are discarded.
            parameters: Number of trainable parameters of the model.
        """
        self._metrics_path = folder / "metrics.jsonl"
        write_text(self._metrics_path, "".join(map(metrics_line, history)))
        self._start_run = partial(TensorBoardRun, folder / "tensorboard", config, parameters=parameters)
        self._run = self._start_run(history=history) if config.use_tensorboard else None
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call starts the measurement

    def step(self, step: int, loss: float, learning_rate: float) -> None:
        """Log a training step and write it to TensorBoard; steps are counted from 1 over all epochs."""
        log.info("step %d: loss %.4f, lr %.2e", step, loss, learning_rate)
        if self._run is not None:
            self._run.add_step(step, loss, learning_rate)

    def discard_unfinished_epoch(self, history: Sequence[EpochMetrics]) -> None:
        """Discard the TensorBoard steps after the finished epochs, because training repeats these steps."""
        if self._run is not None:
            self._run.close()
            self._run = self._start_run(history=history)

    def epoch(self, metrics: EpochMetrics) -> None:
        """Append a finished epoch to ``metrics.jsonl`` and write it to TensorBoard."""
        with open(self._metrics_path, "a", encoding="utf-8", opener=regular_file) as file:
            file.write(metrics_line(metrics))
        if self._run is not None:
            self._run.add_epoch(metrics)

    def plots(self, plots: Plots, epoch: int) -> None:
        """Write the plots after an epoch to TensorBoard, unless TensorBoard has plots of a recent epoch."""
        if self._run is not None:
            self._run.add_plots(plots, epoch)

    def ended(self, plots: Plots, epochs: int) -> None:
        """Write the final plots to TensorBoard, and mark the run as finished after this number of epochs."""
        if self._run is not None:
            self._run.end(plots, epochs)

    def system_use(self) -> tuple[float, float]:
        """Return the resident memory in MiB, and the CPU use since the last call in per cent of a core."""
        return self._process.memory_info().rss / 2**20, self._process.cpu_percent()

    def close(self) -> None:
        """Close the files."""
        if self._run is not None:
            self._run.close()


@contextmanager
def log_file(folder: Path) -> Iterator[None]:
    """Write log messages in a ``with`` block also to an experiment's ``logs/training.log``."""
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
            log.warning("%s: the last log messages cannot be written (%s); the training is not affected", path, error)


def write_config(folder: Path, config: TrainingConfig) -> Path:
    """Save the effective configuration, with all fields, in the experiment's folder; return the path."""
    path = folder / "configs" / CONFIG_FILE
    for directory in (folder, path.parent):  # without parents, so that a moved output folder is not created again
        directory.mkdir(exist_ok=True)
    write_text(path, config_yaml(config))
    return path


def config_yaml(config: TrainingConfig) -> str:
    """Format a configuration as YAML, including fields with default values."""
    text: str = yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
    return "# The effective configuration of this training: all fields, including those with default values.\n" + text
