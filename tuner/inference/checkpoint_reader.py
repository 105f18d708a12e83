"""Reading images with the model of a checkpoint, in PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from search_spaces import ConfigurationError, ModelDefinition
from search_spaces.training_config import config_from_settings
from tuner.data.batches import VALIDATION_BATCH_SIZE, validation_batches
from tuner.data.pixel_cache import CachedSplit
from tuner.data.vocabulary import Vocabulary
from tuner.inference.out_of_distribution import OODDetector
from tuner.inference.reader import PixelReadings, Reader, Rows
from tuner.models.network import OCRNetwork, build_model
from tuner.training.checkpoints import WRONG_CONTENT, DamagedCheckpointError, load_checkpoint
from tuner.training.device import amp_dtype, keep_freed_memory, setup_training_environment
from tuner.training.losses import create_loss_function
from tuner.training.validation import score_split


class CheckpointReader(Reader):
    """The model of a checkpoint.

    Attributes:
        config: The settings with which the model was trained; only `device` is the device for reading.
        metrics: The metrics of the checkpoint's epoch, keyed by the names of `EpochMetrics`.
        model: The network, in evaluation mode.
        device: The device for reading.
        use_amp: Whether the network computes in mixed precision, as in training.
    """

    batch_size = VALIDATION_BATCH_SIZE

    def __init__(self, state: Mapping[str, Any], device: str) -> None:
        """Build the network of a checkpoint with the content `state`, and load its weights.

        Raises:
            ConfigurationError: The device is not available.
            Exception: One of `WRONG_CONTENT`: the content is not that of a checkpoint.
        """
        self.config = replace(config_from_settings(state["config"]), device=device)
        vocabulary = Vocabulary(tuple(state["characters"]), self.config.max_sequence_length - 1)
        super().__init__(vocabulary, OODDetector.of(state["validation"], vocabulary))
        self.metrics = state["metrics"]
        self.device, self.use_amp = setup_training_environment(self.config)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.model: OCRNetwork = build_model(ModelDefinition.model_validate(state["definition"]), self.config)
        self.model.load_state_dict(state["model"])
        self.model.to(self.device).eval()
        if not all(weights.isfinite().all() for weights in state["model"].values()):
            raise ValueError("its weights are not finite")
        self._loss = create_loss_function(self.config)

    def score(self, split: CachedSplit) -> tuple[Rows, float]:
        """Read a split of a dataset exactly as validation does during training; see `Reader.score`."""
        score = score_split(self.model, self._loss, validation_batches(split, self.device), self._autocast)
        return score.rows.long().numpy(), score.loss

    @torch.inference_mode()
    def read_pixels(self, pixels: npt.NDArray[np.uint8]) -> PixelReadings:
        """Read grey pixels ``(N, H, W)`` with the precision of the training, unless `use_amp` is changed."""
        images = torch.from_numpy(pixels).to(self.device).unsqueeze(1).float() / 255
        with self._autocast():
            scores = self.model(images)
            rows = self.model.read(scores)
            tta_confidence = self.model.tta_confidence(images, scores, rows)
        confidence = self.model.confidence(scores, rows)
        return PixelReadings(*(values.cpu().numpy() for values in (rows, confidence, tta_confidence)))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=amp_dtype(self.device), enabled=self.use_amp)


def reader_of_checkpoint(checkpoint: str | os.PathLike[str], *, device: str = "auto") -> CheckpointReader:
    """Load the model of a checkpoint; the file is verified, and no code in it is executed.

    Args:
        checkpoint: A file that training wrote, for example ``checkpoints/best.pt``.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: The file is missing or damaged, training did not write it, or the device is not available.
    """
    path = Path(checkpoint)
    remedy = "use a checkpoint that training wrote, such as checkpoints/best.pt in an experiment's folder"
    try:
        return CheckpointReader(load_checkpoint(path), device)
    except ConfigurationError:
        raise  # the device is not available
    except (OSError, *WRONG_CONTENT) as error:
        text = " ".join(str(getattr(error, "strerror", None) or error).split()).removeprefix(f"{path}: ")
        reasons = {
            FileNotFoundError: "there is no such file",
            KeyError: f"it has no {text}",
            DamagedCheckpointError: text,
        }
        reason = reasons.get(type(error), f"it cannot be used ({text:.300})")
        raise ConfigurationError(f"checkpoint {path}: {reason}; {remedy}") from error
