"""Loading a model that reads images, from a study or from a file, with only the libraries that it needs."""

from __future__ import annotations

import os
from pathlib import Path

from search_spaces import TrainingConfig
from tuner.inference.reader import Reader


def load_reader(source: str | os.PathLike[str] = TrainingConfig.output_dir, *, device: str = "auto") -> Reader:
    """Load a trained model that reads images, from the best trial of a study, a checkpoint or an exported model.

    Example::

        from tuner import load_reader

        reader = load_reader("training_output")  # or "training_output/search_0003/checkpoints/best.pt"
        for reading in reader.read(["generated_data/test/test_000000.png", "generated_data/val"]):
            print(reading.text, reading.confidence, reading.path, *reading.flags)

    Args:
        source: The output folder of a study, a checkpoint that training wrote, or an ``.onnx`` file from `khmer-tuner
            export-model`, which is read without PyTorch.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: The study, the file or the device does not exist, the study has no completed trial, or the
            file is damaged.
    """
    path = Path(source)
    if path.suffix not in (".pt", ".onnx") and not path.is_file():
        from studies import load_study
        from tuner.analysis.best_trial import best_checkpoint

        path = best_checkpoint(*load_study(path))
    return open_reader(path, device=device)


def open_reader(path: Path, *, device: str = "auto") -> Reader:
    """Load the model of a checkpoint or, without importing PyTorch, an exported model (``.onnx``).

    Raises:
        ConfigurationError: The file is missing, damaged or of another program, or the device is not available.
    """
    if path.suffix.lower() == ".onnx":
        from tuner.inference.onnx_reader import reader_of_onnx

        return reader_of_onnx(path, device=device)
    from tuner.inference.checkpoint_reader import reader_of_checkpoint

    return reader_of_checkpoint(path, device=device)
