"""Fixtures that train in a folder, and that compare checkpoints bit by bit."""

import hashlib
import itertools
import json

import pytest
import torch

from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import open_pixel_cache
from tuner.training.checkpoints import load_checkpoint
from tuner.training.loop import train

TIMES = ("epoch_seconds", "memory_mb", "cpu_percent", "gpu_memory_mb")


@pytest.fixture(scope="session")
def run():
    """Train a configuration in a folder, without a study."""

    def train_in(config, folder, **callbacks):
        cache = open_pixel_cache(config.metadata_path, [config.train_split, config.val_split])
        return train(config, TrainingData.of(config, cache, torch.device("cpu")), folder, **callbacks)

    return train_in


@pytest.fixture(scope="session")
def interrupt(run):
    """Train like `run`, interrupted after an epoch or in the n-th batch of this process."""

    def train_until(config, folder, *, after_epoch=None, in_batch=None, **callbacks):
        batches = itertools.count(1)

        def on_batch(done, total):
            if next(batches) == in_batch:
                raise KeyboardInterrupt

        def on_epoch_end(metrics, early_stopping):
            if metrics.epoch == after_epoch:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(config, folder, on_batch=on_batch, on_epoch_end=on_epoch_end, **callbacks)

    return train_until


@pytest.fixture(scope="session")
def last_state():
    """Format every bit of a training run's last checkpoint, except measured times, as text."""

    def read(folder):
        state = load_checkpoint(folder / "checkpoints" / "last.pt")
        for epoch in state["history"]:
            for name in TIMES:
                epoch.pop(name)
        return json.dumps(state, default=_tensor_text, indent=1)

    return read


def _tensor_text(tensor):
    content = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(content).hexdigest()}"
