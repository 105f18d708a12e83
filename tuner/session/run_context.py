"""The context that all trials of a run share in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from search_spaces import Targets, TrainingConfig
from search_spaces.training_config import WITHOUT_EFFECT
from studies import OutputFolder
from tuner.data.pixel_cache import PixelCache
from tuner.display.events import Display


class TrialInterrupted(BaseException):
    """The trial was stopped after an epoch and can be resumed; like KeyboardInterrupt, this is not a failure."""


@dataclass(frozen=True)
class RunContext:
    """The context that all trials of a run share.

    Attributes:
        folder: The study's output folder.
        cache: The pixel cache of the dataset.
        experiments: The experiments of this run, keyed by name. Their settings without effect on the result
            (`WITHOUT_EFFECT`) replace those stored in the study.
        device: The device of all trials; None for the device in each configuration.
        targets: The targets that trials should meet.
        display: Receives the events of the run.
        should_stop: Called before each epoch; returns whether to interrupt the trial.
        after_batch: Called after each batch; must return quickly.
        checkpoints_deleted: Numbers of the search trials whose checkpoints this process has deleted.
        finished_before: Numbers of the trials that finished before this command.
        repeated_failures: Errors of the latest consecutive trials that failed alike, keyed by trial name.
    """

    folder: OutputFolder
    cache: PixelCache
    experiments: Mapping[str, TrainingConfig]
    device: str | None
    targets: Targets
    display: Display
    should_stop: Callable[[], bool] = lambda: False
    after_batch: Callable[[], object] = lambda: None
    checkpoints_deleted: set[int] = field(default_factory=set)
    finished_before: set[int] = field(default_factory=set)
    repeated_failures: dict[str, str] = field(default_factory=dict)

    def local_config(self, config: TrainingConfig, name: str) -> TrainingConfig:
        """Replace a trial's paths, device and settings without effect on the result by those of this run."""
        source = self.experiments.get(name, config)
        local = {field: getattr(source, field) for field in WITHOUT_EFFECT} | {
            "experiment_name": name,
            "output_dir": str(self.folder.path),
            "model_config_path": str(self.folder.model_definitions_path),
            "device": self.device or source.device,
            **self.cache.vocabulary.sizes,
        }
        if os.path.realpath(config.metadata_path) != os.path.realpath(self.cache.metadata_path):  # another machine
            local["metadata_path"] = str(self.cache.metadata_path)
        return replace(config, **local)
