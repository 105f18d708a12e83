"""Measurement of the throughput of reading."""

from __future__ import annotations

import time
from contextlib import suppress

import torch

from tuner.data.batches import SplitBatches
from tuner.training.out_of_memory import MemoryExhaustedError, out_of_memory_as_exhausted
from tuner.training.training_state import TrainingState


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
