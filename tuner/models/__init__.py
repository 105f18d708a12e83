"""The networks that read the characters of an image."""

from __future__ import annotations

from tuner.models.build import build_model, create_model_from_config
from tuner.models.network import OCRNetwork

__all__ = ["OCRNetwork", "build_model", "create_model_from_config"]
