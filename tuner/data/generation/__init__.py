"""Generating datasets of Khmer digits or other characters."""

from tuner.data.generation.dataset import generate_dataset

__all__ = ["generate_dataset"]
