"""What the trials of a run have in common in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from search_spaces import Targets, TrainingConfig
from search_spaces.training_config import WITHOUT_EFFECT_ON_RESULT
from studies import OutputFolder
from tuner.data.pixel_cache import PixelCache
from tuner.display import Display


class TrialInterrupted(BaseException):
    """The trial was stopped after an epoch and can be resumed; like KeyboardInterrupt, it is no failure."""


@dataclass(frozen=True)
class RunContext:
    """What every trial of a run has in common.

    Attributes:
        folder: The study's output folder.
        cache: The dataset's pixels.
        experiments: The run's own experiments, whose work-related settings (`WITHOUT_EFFECT_ON_RESULT`) replace the study's.
        device: Where all trials train; None for the device of each configuration.
        targets: What experiments should reach.
        display: Receives the events of the run.
        should_stop: Called before each epoch; whether to interrupt the trial.
        after_batch: Called after each batch for other work, which must be short.
        tidied: Numbers of the search trials whose checkpoints this process has removed.
        ended: Numbers of the trials that had ended before this command.
        alike: The latest trials that failed one after another with the same error: names and errors.
    """

    folder: OutputFolder
    cache: PixelCache
    experiments: Mapping[str, TrainingConfig]
    device: str | None
    targets: Targets
    display: Display
    should_stop: Callable[[], bool] = lambda: False
    after_batch: Callable[[], object] = lambda: None
    tidied: set[int] = field(default_factory=set)
    finished_before: set[int] = field(default_factory=set)
    repeated_failures: dict[str, str] = field(default_factory=dict)

    def local_config(self, config: TrainingConfig, name: str) -> TrainingConfig:
        """Return a trial's configuration with the paths, the device and the work-related settings of this run."""
        asked = self.experiments.get(name, config)
        local = {field: getattr(asked, field) for field in WITHOUT_EFFECT_ON_RESULT} | {
            "experiment_name": name,
            "output_dir": str(self.folder.path),
            "model_config_path": str(self.folder.model_definitions_path),
            "device": self.device or asked.device,
        }
        if os.path.realpath(config.metadata_path) != os.path.realpath(self.cache.metadata_path):  # on another machine
            local["metadata_path"] = str(self.cache.metadata_path)
        return replace(config, **local)
