"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from search_spaces import ConfigurationError, TrainingConfig
from tuner.training.weights import weight_decay_groups

_WRAPPED_METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def create_optimizer(model: torch.nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Build the optimizer that a configuration selects.

    ``adam`` adds `weight_decay` to the gradient (L2 penalty, Kingma and Ba 2015), ``adamw`` decays the weights
    themselves (Loshchilov and Hutter 2019). Scale-invariant weights are not decayed, see `weight_decay_groups`.

    Raises:
        ConfigurationError: `optimizer_type` is neither ``adam`` nor ``adamw``.

    Example::

        from tuner import TrainingConfig, create_model_from_config, create_optimizer

        config = TrainingConfig(optimizer_type="adamw", learning_rate=2e-3)
        optimizer = create_optimizer(create_model_from_config(config), config)
        print(type(optimizer).__name__, optimizer.param_groups[0]["lr"])
    """
    return optimizer_for(weight_decay_groups(model), config)


def optimizer_for(parameters: Sequence[Tensor | list[nn.Parameter]], config: TrainingConfig) -> torch.optim.Optimizer:
    """Build the optimizer for two parameter groups: with weight decay, and without weight decay."""
    if config.optimizer_type not in _OPTIMIZERS:
        raise ConfigurationError(
            f"optimizer_type: found {config.optimizer_type!r}; use one of {', '.join(_OPTIMIZERS)}"
        )
    decayed, undecayed = parameters
    beta1, beta2 = config.optimizer_betas
    optimizer: torch.optim.Optimizer = _OPTIMIZERS[config.optimizer_type](
        [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(beta1, beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    return optimizer


def uncompiled(kind: type[torch.optim.Optimizer]) -> type[Any]:
    """Create a subclass of an optimizer class without the wrappers that exclude it from `torch.compile`.

    These wrappers import the compiler, which costs each training process 0.8 s and 60 MB although it is not used.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED_METHODS}
    # The wrapper of `step` also disables gradients, so its replacement must, too.
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)


# Module-level names, so that pickle finds the classes.
Adam = uncompiled(torch.optim.Adam)
AdamW = uncompiled(torch.optim.AdamW)
_OPTIMIZERS = {"adam": Adam, "adamw": AdamW}


def create_scheduler(optimizer: torch.optim.Optimizer, config: TrainingConfig) -> LRScheduler:
    """Build the learning-rate schedule that a configuration selects; step it once at the end of every epoch.

    ``cosine`` rises over `warmup_epochs`, then falls to `min_lr` (Loshchilov and Hutter 2017); ``steplr`` multiplies by
    `gamma` every `step_size` epochs; ``plateau`` multiplies by `factor` after `patience` epochs without an improvement
    of `early_stopping_monitor` (pass that metric to `step`). `min_lr` is the lower bound of all three. In a warm-up
    epoch, and in the first epoch of a schedule without a warm-up, the training loop raises the rate per step, and the
    schedule defines the rate of the last step.

    Raises:
        ConfigurationError: `scheduler_type` is none of these three.

    Example::

        from tuner import TrainingConfig, create_model_from_config, create_optimizer, create_scheduler

        config = TrainingConfig(scheduler_type="steplr", step_size=10, gamma=0.5)
        optimizer = create_optimizer(create_model_from_config(config), config)
        scheduler = create_scheduler(optimizer, config)
        for _ in range(20):  # epochs
            optimizer.step()
            scheduler.step()
        print(scheduler.get_last_lr()[0])
    """
    floor = config.min_lr / config.learning_rate
    if config.scheduler_type == "cosine":
        return LambdaLR(optimizer, lambda epoch: max(floor, _cosine_factor(epoch, config)))
    if config.scheduler_type == "steplr":
        return LambdaLR(optimizer, lambda epoch: max(floor, config.gamma ** (epoch // config.step_size)))
    if config.scheduler_type == "plateau":
        return ReduceLROnPlateau(
            optimizer,
            mode="max" if config.early_stopping_mode == "max" else "min",
            factor=config.factor,
            patience=config.patience,
            threshold=config.early_stopping_min_delta,
            threshold_mode="abs",
            min_lr=config.min_lr,
        )
    raise ConfigurationError(f"scheduler_type: found {config.scheduler_type!r}; use one of cosine, plateau, steplr")


def step_scheduler(scheduler: LRScheduler, monitored: float) -> None:
    """Step the schedule at the end of an epoch; only ``plateau`` uses the monitored metric."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(monitored)
    else:
        scheduler.step()


def _cosine_factor(epoch: int, config: TrainingConfig) -> float:
    """Return the factor for the initial rate in an epoch (0-based): linear in the warm-up, then half a cosine."""
    warmup = config.warmup_epochs
    if epoch < warmup:
        return (epoch + 1) / warmup
    floor = config.min_lr / config.learning_rate
    progress = (epoch - warmup) / max(1, config.num_epochs - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
