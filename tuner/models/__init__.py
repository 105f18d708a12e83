"""The networks that read the digits of an image."""

from __future__ import annotations

from tuner.models.build import build_model, create_model_from_config
from tuner.models.reader import DigitReader

__all__ = ["DigitReader", "build_model", "create_model_from_config"]
