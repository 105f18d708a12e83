"""Hyperparameter search for a Khmer-digit OCR network.

Names are resolved when they are first used, so that commands which need no PyTorch do not wait for it.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Before PyTorch loads GNU's OpenMP library. By default an idle thread spins for milliseconds, which starves the other
# threads as soon as another program uses the cores. Results are the same bit for bit.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from search_spaces import (
        ConfigurationError,
        DataLoaderError,
        ExperimentFailedError,
        ModelCreationError,
        TrainingConfig,
        create_training_config,
    )
    from tuner.data.batches import create_data_loaders
    from tuner.hyperparameter_tuner import HyperparameterTuner
    from tuner.models import create_model_from_config
    from tuner.training.device import setup_training_environment
    from tuner.training.losses import create_loss_function
    from tuner.training.optimizers import create_optimizer, create_scheduler

_HOMES = {
    "ConfigurationError": "search_spaces",
    "DataLoaderError": "search_spaces",
    "ExperimentFailedError": "search_spaces",
    "HyperparameterTuner": "tuner.hyperparameter_tuner",
    "ModelCreationError": "search_spaces",
    "TrainingConfig": "search_spaces",
    "create_data_loaders": "tuner.data.batches",
    "create_loss_function": "tuner.training.losses",
    "create_model_from_config": "tuner.models",
    "create_optimizer": "tuner.training.optimizers",
    "create_scheduler": "tuner.training.optimizers",
    "create_training_config": "search_spaces",
    "setup_training_environment": "tuner.training.device",
}

__all__ = [
    "ConfigurationError",
    "DataLoaderError",
    "ExperimentFailedError",
    "HyperparameterTuner",
    "ModelCreationError",
    "TrainingConfig",
    "create_data_loaders",
    "create_loss_function",
    "create_model_from_config",
    "create_optimizer",
    "create_scheduler",
    "create_training_config",
    "setup_training_environment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
