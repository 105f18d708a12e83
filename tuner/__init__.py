"""Hyperparameter search for an OCR network that reads Khmer digits or other characters.

Each public name is imported on first use, so that commands that do not need PyTorch start quickly.
"""

from __future__ import annotations

import importlib
import os

TYPE_CHECKING = False  # not from `typing`, whose import takes longer than the rest of this module

# Set before PyTorch loads GNU OpenMP. By default, an idle OpenMP thread spins for milliseconds, which slows the other
# threads down if other programs use the cores, too. The setting does not change the results.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from search_spaces import ConfigurationError as ConfigurationError
    from search_spaces import DataLoaderError as DataLoaderError
    from search_spaces import ExperimentFailedError as ExperimentFailedError
    from search_spaces import ModelCreationError as ModelCreationError
    from search_spaces import TrainingConfig as TrainingConfig
    from search_spaces import create_training_config as create_training_config
    from studies import SearchRequest as SearchRequest
    from tuner.analysis.study_reader import load_reader as load_reader
    from tuner.data.batches import create_data_loaders as create_data_loaders
    from tuner.display.displays import ProgressDisplay as ProgressDisplay
    from tuner.hyperparameter_tuner import HyperparameterTuner as HyperparameterTuner
    from tuner.hyperparameter_tuner import RunOptions as RunOptions
    from tuner.models.network import create_model_from_config as create_model_from_config
    from tuner.training.device import setup_training_environment as setup_training_environment
    from tuner.training.losses import create_loss_function as create_loss_function
    from tuner.training.optimizers import create_optimizer as create_optimizer
    from tuner.training.optimizers import create_scheduler as create_scheduler

_MODULES = {
    **dict.fromkeys(("ConfigurationError", "DataLoaderError", "ExperimentFailedError"), "search_spaces"),
    **dict.fromkeys(("ModelCreationError", "TrainingConfig", "create_training_config"), "search_spaces"),
    **dict.fromkeys(("create_optimizer", "create_scheduler"), "tuner.training.optimizers"),
    "HyperparameterTuner": "tuner.hyperparameter_tuner",
    "ProgressDisplay": "tuner.display.displays",
    "RunOptions": "tuner.session.run_options",
    "SearchRequest": "studies",
    "create_data_loaders": "tuner.data.batches",
    "create_loss_function": "tuner.training.losses",
    "create_model_from_config": "tuner.models.network",
    "load_reader": "tuner.analysis.study_reader",
    "setup_training_environment": "tuner.training.device",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
