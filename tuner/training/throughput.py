"""Measurements of the throughput of reading, and of training with real steps whose results are discarded."""

from __future__ import annotations

import itertools
import time
from contextlib import suppress

import torch

from search_spaces import TrainingConfig
from tuner.data.batches import SplitBatches, TrainingData
from tuner.data.pixel_cache import open_pixel_cache
from tuner.training.device import setup_training_environment
from tuner.training.epoch import train_step
from tuner.training.out_of_memory import MemoryExhaustedError, keep_freed_memory, out_of_memory_as_exhausted
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


@torch.inference_mode()
def reading_images_per_s(training: TrainingState, val: SplitBatches, batch_size: int, seconds: float) -> float | None:
    """Return how many validation images per second the averaged weights read; None if there is not enough memory.

    A pass reads the label sequences and confidences of a batch, without test-time augmentation, on the device and with
    the threads of the training. Passes are repeated for `seconds`, but at least once after a warm-up pass. The fastest
    pass counts, because other processes can only slow a pass down.
    """
    if batch_size > (training.micro_batch_size or batch_size):
        return None  # memory ran out for larger micro-batches; now the process could be killed
    end, times = time.perf_counter() + seconds, list[float]()
    with suppress(MemoryExhaustedError), out_of_memory_as_exhausted(batch_size):
        model, (images, _) = training.ema.module.eval(), next(val.epoch(0))
        images = images.repeat(-(-batch_size // len(images)), 1, 1, 1)[:batch_size]
        while len(times) < 2 or time.perf_counter() + times[-1] < end:
            start = time.perf_counter()
            with training.autocast():
                scores = model(images)
            rows = model.read(scores)
            _ = rows.cpu(), model.confidence(scores, rows).cpu()  # waits for a GPU
            times.append(time.perf_counter() - start)
    return batch_size / min(times[1:]) if len(times) > 1 else None
