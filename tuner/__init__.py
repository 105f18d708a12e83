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
    from studies import SearchRequest
    from tuner.analysis.study_reader import load_reader
    from tuner.data.batches import create_data_loaders
    from tuner.display.plain import ProgressDisplay
    from tuner.hyperparameter_tuner import HyperparameterTuner, RunOptions
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
    "ProgressDisplay": "tuner.display.plain",
    "RunOptions": "tuner.session.run_options",
    "SearchRequest": "studies",
    "TrainingConfig": "search_spaces",
    "create_data_loaders": "tuner.data.batches",
    "create_loss_function": "tuner.training.losses",
    "create_model_from_config": "tuner.models",
    "create_optimizer": "tuner.training.optimizers",
    "create_scheduler": "tuner.training.optimizers",
    "create_training_config": "search_spaces",
    "load_reader": "tuner.analysis.study_reader",
    "setup_training_environment": "tuner.training.device",
}

__all__ = [
    "ConfigurationError",
    "DataLoaderError",
    "ExperimentFailedError",
    "HyperparameterTuner",
    "ModelCreationError",
    "ProgressDisplay",
    "RunOptions",
    "SearchRequest",
    "TrainingConfig",
    "create_data_loaders",
    "create_loss_function",
    "create_model_from_config",
    "create_optimizer",
    "create_scheduler",
    "create_training_config",
    "load_reader",
    "setup_training_environment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
