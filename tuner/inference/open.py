"""Loading a model from a file; a checkpoint needs PyTorch, an exported model does not."""

from __future__ import annotations

from pathlib import Path

from tuner.inference.reader import Reader


def open_reader(path: Path, *, device: str = "auto") -> Reader:
    """Load the model of a checkpoint or, if the file's name ends in ``.onnx``, an exported model.

    Raises:
        ConfigurationError: The file is missing, damaged or of another program, or the device is not available.
    """
    if path.suffix.lower() == ".onnx":
        from tuner.inference.onnx_reader import reader_of_onnx

        return reader_of_onnx(path, device=device)
    from tuner.inference.checkpoint_reader import reader_of_checkpoint

    return reader_of_checkpoint(path, device=device)
