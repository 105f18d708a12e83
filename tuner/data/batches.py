"""Batches of images and labels from the pixel cache, on the training device.

Shapes: N images in a batch, one grey channel, height H = 64, width W = 128, L label positions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from search_spaces import ConfigurationError, DataLoaderError, TrainingConfig
from tuner.data.augmentation import Distortions, augment
from tuner.data.pixel_cache import CachedSplit, PixelCache, open_pixel_cache
from tuner.data.vocabulary import Vocabulary
from tuner.seeds import derived_seed

log = logging.getLogger(__name__)

VALIDATION_BATCH_SIZE = 250

# The minimum number of images that are gathered and distorted together, then split into batches. With 32 images, each
# takes 1.5 times as long, because short kernels start with cold caches; with 1,000, memory bandwidth is the bottleneck.
_MIN_GATHERED = 128

Batch = tuple[Tensor, Tensor]


class SplitBatches:
    """The batches of one split, for any epoch.

    The pixels of a batch are only copied: there are no worker processes, no decoding and no Python code per image. On
    CUDA, the whole split (8 KiB per image) stays in GPU memory.
    """

    def __init__(
        self, split: CachedSplit, *, batch_size: int, device: torch.device, shuffle_seed: int | None, augmented: bool
    ) -> None:
        """Prepare the batches of a split; on CUDA, copy its images to the device.

        Args:
            split: Images and labels.
            batch_size: Number of images per batch; the last batch of an epoch may be smaller.
            device: The device of the batches.
            shuffle_seed: Seed of order and distortions. None keeps the order and uses seed 0 for distortions.
            augmented: Whether images are distorted at random.
        """
        self.split = split
        self.batch_size = batch_size
        self.device = device
        self._shuffle_seed = shuffle_seed
        self._augmented = augmented
        self._images = split.images if device.type == "cpu" else torch.from_numpy(split.images[:]).to(device)
        self._labels = torch.from_numpy(split.labels.astype(np.int64)).to(device)

    def __len__(self) -> int:
        return -(-len(self._labels) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch: grey images ``(N, 1, H, W)``, 0 to 1, and labels ``(N, L)``.

        Order and distortions only depend on the seed and the epoch, so an epoch can be repeated exactly.
        """
        order = torch.arange(len(self._labels))
        if self._shuffle_seed is not None:
            order = torch.randperm(len(order), generator=_generator(self._shuffle_seed, "order", epoch))
        order = order.to(self.device)  # one transfer per epoch, since each transfer waits for the GPU
        distortions = self._distortions(epoch)
        gathered = self.batch_size * -(-_MIN_GATHERED // self.batch_size)
        for start in range(0, len(order), gathered):
            chunk = slice(start, start + gathered)
            images = self._gather(order[chunk])
            if distortions:
                images = augment(images, distortions[chunk])
            yield from split_batch((images, self._labels[order[chunk]]), self.batch_size)

    def _distortions(self, epoch: int) -> Distortions | None:
        if not self._augmented:
            return None
        generator = _generator(self._shuffle_seed or 0, "distortions", epoch)
        return Distortions.random(len(self._labels), self.split.images[:0].shape[1:], generator, self.device)

    def _gather(self, indices: Tensor) -> Tensor:
        if isinstance(self._images, Tensor):
            return _to_float(self._images[indices])
        return _to_float(torch.from_numpy(self._images[indices.numpy()]))


def split_batch(batch: Batch, size: int | None) -> Iterator[Batch]:
    """Split a batch into batches or micro-batches of at most `size` images; None keeps the batch whole."""
    images, labels = batch
    size = size or len(images)
    return zip(torch.split(images, size), torch.split(labels, size), strict=True)


@dataclass(frozen=True)
class TrainingData:
    """The batches of a training run.

    Attributes:
        train: The training batches, shuffled.
        val: The validation batches, in the order of the split.
        unseen: Batches of designs that are in neither of the two, to score the best epoch; None without such a split.
    """

    train: SplitBatches
    val: SplitBatches
    unseen: SplitBatches | None = None

    @classmethod
    def of(cls, config: TrainingConfig, cache: PixelCache, device: torch.device) -> TrainingData:
        """Prepare the batches of the two splits of `cache` that `config` selects, and of the split `unseen`, if any.

        Raises:
            ConfigurationError: `vocab_size` or `max_sequence_length` differs from the dataset.
        """
        check_sizes(config, cache.vocabulary)
        train = SplitBatches(
            cache[config.train_split],
            batch_size=config.batch_size,
            device=device,
            shuffle_seed=config.seed,
            augmented=config.augmentation,
        )
        val = validation_batches(cache[config.val_split], device)
        return cls(train, val, None if cache.unseen is None else validation_batches(cache.unseen, device))


def validation_batches(split: CachedSplit, device: torch.device) -> SplitBatches:
    """Return the batches of a split for scoring: undistorted, in the order of the split."""
    return SplitBatches(split, batch_size=VALIDATION_BATCH_SIZE, device=device, shuffle_seed=None, augmented=False)


def check_sizes(config: TrainingConfig, vocabulary: Vocabulary) -> None:
    """Raise ConfigurationError if `vocab_size` or `max_sequence_length` differs from the dataset's vocabulary."""
    problems = [
        f"{field}: found {found!r}; expected {size}, because the dataset has {len(vocabulary.characters)} characters "
        f"and labels of at most {vocabulary.max_length}; use {field}={size}"
        for field, size in vocabulary.sizes.items()
        if type(found := getattr(config, field)) is not int or found != size
    ]
    if problems:
        raise ConfigurationError(problems)


class SplitDataset(Dataset[Batch]):
    """A cached split as a dataset for PyTorch's `DataLoader`; one call fetches and distorts a whole batch."""

    def __init__(self, split: CachedSplit, *, augmented: bool, seed: int) -> None:
        self._split = split
        self._augmented = augmented
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Batch:
        """Return one image ``(1, H, W)`` and its label ``(L,)``."""
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return images ``(N, 1, H, W)``, 0 to 1, and labels ``(N, L)``; `DataLoader` calls this for each batch."""
        selected = np.asarray(indices)
        images = _to_float(torch.from_numpy(self._split.images[selected]))
        if self._augmented:
            # Workers have copies of the same `_generator`; only their default generators have different seeds.
            generator = torch.default_generator if get_worker_info() else self._generator
            images = augment(images, Distortions.random(len(images), images.shape[2:], generator, images.device))
        return images, torch.from_numpy(self._split.labels[selected].astype(np.int64))


def create_data_loaders(config: TrainingConfig) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Create PyTorch data loaders for the training and the validation split.

    Batches are grey images ``(N, 1, H, W)``, 0 to 1, and labels ``(N, L)``. The training loader shuffles the images
    and, with `augmentation`, distorts them; noise can then move values slightly outside of 0 to 1. The same seed gives
    the same order and distortions. If a worker process hangs, an error is raised after two minutes.

    Raises:
        ConfigurationError: `vocab_size` or `max_sequence_length` differs from the dataset.
        DataLoaderError: The dataset is missing or damaged or lacks a split, or both splits are the same.

    Example::

        from tuner import TrainingConfig, create_data_loaders

        train_loader, val_loader = create_data_loaders(TrainingConfig(batch_size=8, num_workers=0))
        images, labels = next(iter(train_loader))
        print(len(train_loader), tuple(images.shape), tuple(labels.shape))
    """
    if config.train_split == config.val_split:
        raise DataLoaderError(
            f"val_split: found {config.val_split!r}, which is also train_split; use two different splits"
        )
    cache = open_pixel_cache(config.metadata_path, [config.train_split, config.val_split])
    check_sizes(config, cache.vocabulary)
    workers = min(config.num_workers, os.cpu_count() or 1)
    if workers < config.num_workers:
        log.warning("num_workers: found %d; the data loaders use %d, one per CPU core", config.num_workers, workers)
    return (
        _loader(cache[config.train_split], config, workers, training=True),
        _loader(cache[config.val_split], config, workers, training=False),
    )


def _loader(split: CachedSplit, config: TrainingConfig, workers: int, *, training: bool) -> DataLoader[Batch]:
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "loader", "train" if training else "val"))
    return DataLoader(
        SplitDataset(
            split, augmented=training and config.augmentation, seed=derived_seed(config.seed, "loader", "distortions")
        ),
        batch_size=config.batch_size,
        shuffle=training,
        num_workers=workers,
        pin_memory=config.pin_memory,
        collate_fn=_already_collated,
        generator=generator,
        timeout=120 if workers else 0,
        persistent_workers=workers > 0,
    )


def _generator(*seeds: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(*seeds))


def _to_float(pixels: Tensor) -> Tensor:
    """Convert grey bytes ``(N, H, W)`` to float images ``(N, 1, H, W)``, 0 to 1."""
    return pixels.unsqueeze(1).float().div_(255)


def _already_collated(batch: Any) -> Any:
    return batch
