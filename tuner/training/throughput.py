"""How many images a second training takes here and now, in the loop's own steps; nothing is kept of them."""

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
    """Training steps of a configuration for as long as they are asked for."""

    def __init__(self, config: TrainingConfig) -> None:
        """Open the dataset and build what is trained.

        Raises:
            ConfigurationError, ModelCreationError: As `TrainingState.create`.
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
        """Take a step; return how many images were in it."""
        batch = next(self._batches)
        train_step(self._training, batch)
        return len(batch[0])

    def seconds_per_step(self) -> float:
        """Take a step; return how long it takes."""
        begun = self._time_now()
        self.run_step()
        return self._time_now() - begun

    def images_per_s(self, begin: float, end: float) -> float:
        """Take steps until `end`, and return the rate since `begin`, both on `time.monotonic`'s clock.

        It is counted from the first step that begins after `begin` to the last one that begins before `end`, one at
        least.
        """
        while time.monotonic() < begin:
            self.run_step()
        images, begun = 0, self._time_now()
        while images == 0 or time.monotonic() < end:
            images += self.run_step()
        return images / (self._time_now() - begun)

    def device_bytes(self) -> tuple[int, int]:
        """Return the memory of the device that this process has needed so far, and what is free of it; 0, 0 on CPU."""
        if self._device.type != "cuda":
            return 0, 0
        return torch.cuda.max_memory_reserved(), torch.cuda.mem_get_info()[0]

    def _time_now(self) -> float:
        """Return the time at which the steps so far are done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()
