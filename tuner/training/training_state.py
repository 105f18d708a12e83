"""The state of a training run: everything that an epoch changes and a checkpoint stores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from search_spaces import TrainingConfig, config_digest
from tuner.data.batches import SplitBatches
from tuner.models.network import OCRNetwork, create_model_from_config
from tuner.seeds import derived_seed
from tuner.training.device import (
    MemoryExhaustedError,
    amp_dtype,
    out_of_memory_as_exhausted,
    setup_training_environment,
)
from tuner.training.history import STORED_METRICS, EarlyStopping, EpochMetrics
from tuner.training.losses import LabelLoss, create_loss_function
from tuner.training.optimizers import create_scheduler, optimizer_for
from tuner.training.validation import SplitScore, score_split
from tuner.training.weights import FlatParameters, WeightEMA


@dataclass
class TrainingState:
    """The state of a training run.

    Attributes:
        use_amp: Whether forward passes use half precision.
        weights: The model's weights as flat tensors, which the optimizer updates.
        ema: The moving average of the weights, which is validated and saved.
        scaler: Prevents the underflow of float16 gradients; disabled in other precisions.
        history: The finished epochs.
        micro_batch_size: Maximum number of images per pass after memory ran out; None for whole batches.
        threads: The thread counts with which epochs were trained on the CPU; 0 stands for an unknown count.
    """

    config: TrainingConfig
    device: torch.device
    use_amp: bool
    model: OCRNetwork
    weights: FlatParameters
    ema: WeightEMA
    loss: LabelLoss
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    early_stopping: EarlyStopping
    history: list[EpochMetrics] = field(default_factory=list)
    micro_batch_size: int | None = None
    threads: set[int] = field(default_factory=set)

    @classmethod
    def create(cls, config: TrainingConfig, *, steps_per_epoch: int) -> TrainingState:
        """Create the initial state for a configuration and the number of optimizer steps per epoch.

        Raises:
            ConfigurationError: The device is not available, or the model definitions are invalid.
            ModelCreationError: The model is not defined.
        """
        device, use_amp = setup_training_environment(config)
        model = create_model_from_config(config).to(device)
        # No layer uses the global random state yet; the seed makes future layers that do (dropout) reproducible.
        torch.manual_seed(derived_seed(config.seed, "training"))
        weights = FlatParameters(model)
        optimizer = optimizer_for(weights.values, config)
        return cls(
            config=config,
            device=device,
            use_amp=use_amp,
            model=model,
            weights=weights,
            ema=WeightEMA(model, weights, steps_per_epoch),
            loss=create_loss_function(config),
            optimizer=optimizer,
            scheduler=create_scheduler(optimizer, config),
            scaler=torch.amp.GradScaler(device.type, enabled=use_amp and amp_dtype(device) == torch.float16),
            early_stopping=EarlyStopping.of(config),
        )

    @property
    def learning_rate(self) -> float:
        """The current learning rate of the optimizer."""
        return float(self.optimizer.param_groups[0]["lr"])

    def micro_batch_size_for(self, batches: SplitBatches) -> int:
        """Return the maximum number of images per pass over these batches."""
        return min(self.micro_batch_size or batches.batch_size, batches.batch_size)

    def autocast(self) -> torch.autocast:
        """Return the precision context for forward passes."""
        return torch.autocast(self.device.type, dtype=amp_dtype(self.device), enabled=self.use_amp)

    def score(self, batches: SplitBatches, *, distorted: bool = False) -> SplitScore:
        """Score the averaged weights on a split; see `score_split`.

        Raises:
            MemoryExhaustedError: There is not enough memory for a micro-batch.
        """
        model, size = self.ema.module, self.micro_batch_size
        with out_of_memory_as_exhausted(self.micro_batch_size_for(batches)):
            return score_split(model, self.loss, batches, self.autocast, micro_batch_size=size, distorted=distorted)

    @torch.inference_mode()
    def reading_images_per_s(self, val: SplitBatches, batch_size: int, seconds: float) -> float | None:
        """Return how many validation images per second the averaged weights read; None if there is not enough memory.

        A pass reads the label sequences and confidences of a batch, without test-time augmentation, on the device and
        with the threads of the training. Passes are repeated for `seconds`, but at least once after a warm-up pass. The
        fastest pass counts, because other processes can only slow a pass down.
        """
        if batch_size > (self.micro_batch_size or batch_size):
            return None  # memory ran out for larger micro-batches; now the process could be killed
        end, times = time.perf_counter() + seconds, list[float]()
        with suppress(MemoryExhaustedError), out_of_memory_as_exhausted(batch_size):
            model, (images, _) = self.ema.module.eval(), next(val.epoch(0))
            images = images.repeat(-(-batch_size // len(images)), 1, 1, 1)[:batch_size]
            while len(times) < 2 or time.perf_counter() + times[-1] < end:
                start = time.perf_counter()
                with self.autocast():
                    scores = model(images)
                rows = model.read(scores)
                _ = rows.cpu(), model.confidence(scores, rows).cpu()  # waits for a GPU
                times.append(time.perf_counter() - start)
        return batch_size / min(times[1:]) if len(times) > 1 else None

    def state_dict(self) -> dict[str, Any]:
        """Return the content of a checkpoint: everything needed to resume with bit-identical results."""
        return {
            "config": asdict(self.config),
            "history": [asdict(epoch) for epoch in self.history],
            "model": self.model.state_dict(),
            "averaged": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "early_stopping": asdict(self.early_stopping),
            "micro_batch_size": self.micro_batch_size,
            "threads": sorted(self.threads),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def matches(self, state: Mapping[str, Any]) -> bool:
        """Return whether a checkpoint's state is complete and has the settings and the network of this training run."""
        own = self.state_dict()
        return (
            {"threads", *state} == own.keys()  # older checkpoints have no `threads`
            and state["config"].keys() <= own["config"].keys()
            and config_digest(TrainingConfig(**state["config"])) == config_digest(self.config)
            and _shapes(state["model"]) == _shapes(own["model"])
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.history = [STORED_METRICS.validate_python(epoch) for epoch in state["history"]]
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.early_stopping = EarlyStopping(**state["early_stopping"])
        self.micro_batch_size = state["micro_batch_size"]
        self.threads = set(state.get("threads", (0,)))  # 0: unknown
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all([rng.cpu() for rng in state["cuda_rng"][: torch.cuda.device_count()]])


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}
