"""Measurement of the training throughput on this machine, with real training steps whose results are discarded."""

from __future__ import annotations

import itertools
import time

import torch

from search_spaces import TrainingConfig
from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import open_pixel_cache
from tuner.training.device import setup_training_environment
from tuner.training.epoch import train_step
from tuner.training.out_of_memory import keep_freed_memory
from tuner.training.training_state import TrainingState


class TrainingSteps:
    """An unlimited sequence of training steps with one configuration."""

    def __init__(self, config: TrainingConfig) -> None:
        """Open the dataset, and build the model and the optimizer.

        Raises:
            ConfigurationError, ModelCreationError: See `TrainingState.create`.
            DataLoaderError: The dataset is missing or damaged.
        """
        cache = open_pixel_cache(config.metadata_path, [config.train_split, config.val_split])
        self._device, _ = setup_training_environment(config)
        if self._device.type == "cpu":
            keep_freed_memory()
        data = TrainingData.of(config, cache, self._device)
        self._training = TrainingState.create(config, steps_per_epoch=len(data.train))
        self._training.model.train()
        self._batches = itertools.chain.from_iterable(map(data.train.epoch, itertools.count(1)))

    def run_step(self) -> int:
        """Run one step; return the number of images in its batch."""
        batch = next(self._batches)
        train_step(self._training, batch)
        return len(batch[0])

    def seconds_per_step(self) -> float:
        """Run one step; return its duration in seconds."""
        started = self._time_now()
        self.run_step()
        return self._time_now() - started

    def images_per_s(self, start: float, end: float) -> float:
        """Run steps until `end`; return the throughput since `start` in images per second.

        Both times are values of `time.monotonic`. The measurement covers all steps that start between them, or one step
        if none does.
        """
        while time.monotonic() < start:
            self.run_step()
        images, started = 0, self._time_now()
        while images == 0 or time.monotonic() < end:
            images += self.run_step()
        return images / (self._time_now() - started)

    def device_bytes(self) -> tuple[int, int]:
        """Return the peak GPU memory that this process reserved and the free GPU memory, in bytes; both 0 on a CPU."""
        if self._device.type != "cuda":
            return 0, 0
        return torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[0]

    def _time_now(self) -> float:
        """Wait until all queued steps have finished; return the time."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()
