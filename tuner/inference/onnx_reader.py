"""Reading images with an exported model in ONNX Runtime, without PyTorch.

The file ends with the SHA-256 of everything before it, so that damage is found, because ONNX Runtime would read with
damaged weights. The digest is an entry of the model's metadata, so other programs can read the file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces import ConfigurationError
from search_spaces.files.regular_files import read_bytes
from tuner.data.image_statistics import image_statistics
from tuner.data.images import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.data.pixel_cache import CachedSplit
from tuner.data.vocabulary import Vocabulary
from tuner.inference.out_of_distribution import OODDetector
from tuner.inference.reader import Floats, PixelReadings, Reader, Rows

MAX_MODEL_BYTES = 10**9
PRODUCER = "khmer-ocr-tuner"
FORMAT_VERSION = 1  # of inputs, outputs and metadata

# An entry of `ModelProto.metadata_props` (field 14): protocol buffers may be extended by appending to them.
_DIGEST_ENTRY = b"\x72\x4a\x0a\x06sha256\x12\x40"
_REQUIRED = ("characters", "max_length", "special_classes", "out_of_distribution", "distortions")


class OnnxReader(Reader):
    """A model that `khmer-tuner export-model` wrote; it reads on the CPU."""

    batch_size = 16

    def __init__(self, content: bytes) -> None:
        """Load a model from the content of its file.

        Raises:
            ValueError: The content is damaged or not that of an exported model.
        """
        import onnxruntime

        if with_digest(content[: -len(_DIGEST_ENTRY) - 64]) != content:
            raise ValueError("its SHA-256 is missing or wrong, so it is damaged or was not written by export-model")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised as well
        # So that weights in other files are refused.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            meta = self.session.get_modelmeta()
            if meta.version != FORMAT_VERSION:
                raise ValueError(f"its format is not version {FORMAT_VERSION}, which this program reads")
            metadata = {name: json.loads(meta.custom_metadata_map[name]) for name in _REQUIRED}
            vocabulary = Vocabulary(tuple(metadata["characters"]), metadata["max_length"])
            super().__init__(vocabulary, OODDetector.of_dict(metadata["out_of_distribution"], vocabulary))
            self._distortions: Floats = np.array(metadata["distortions"], np.float32)
            self._check(metadata["special_classes"])
        except Exception as error:  # ONNX Runtime's errors have no common class
            raise ValueError(f"it cannot be used ({' '.join(str(error).split()):.300})") from error

    def _check(self, special_classes: Mapping[str, int]) -> None:
        """Raise an error unless graph and metadata fit together, by reading a blank image."""
        blank = np.zeros((1, IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX), np.uint8)
        [row], _, [tta_confidence] = self.read_pixels(blank)
        self.ood_detector.flags(row, tta_confidence, 2.0, image_statistics(blank)[0])
        if special_classes != self.vocabulary.special._asdict() or len(row) != self.vocabulary.max_length + 1:
            raise ValueError("its metadata describe another vocabulary than its graph has")

    def read_pixels(self, pixels: npt.NDArray[np.uint8]) -> PixelReadings:
        """Read grey pixels ``(N, H, W)``."""
        return PixelReadings(*self._run(pixels, self._distortions, list(PixelReadings._fields)))

    def score(self, split: CachedSplit) -> tuple[Rows, None]:
        """Read the images of a split; an exported model has no loss."""
        starts = range(0, len(split), self.batch_size)
        batches = (split.images[start : start + self.batch_size] for start in starts)
        return np.concatenate([self._run(pixels, self._distortions[:0], ["rows"])[0] for pixels in batches]), None

    def _run(self, pixels: npt.NDArray[np.uint8], distortions: Floats, names: list[str]) -> list[npt.NDArray[Any]]:
        rgb = np.repeat(pixels[..., None], 3, axis=3)
        outputs: list[npt.NDArray[Any]] = self.session.run(names, {"images": rgb, "distortions": distortions})
        return outputs


def reader_of_onnx(path: Path, *, device: str = "auto") -> OnnxReader:
    """Load an exported model.

    Args:
        path: A file that `khmer-tuner export-model` wrote.
        device: ``auto`` or ``cpu``.

    Raises:
        ConfigurationError: The file is missing, damaged, too large or of another program, the device is not the CPU,
            or ONNX Runtime is not installed.
    """
    if device == "cuda":
        raise ConfigurationError(
            "device: found 'cuda'; exported models are read on the CPU; choose 'auto' or 'cpu', or use the checkpoint"
        )
    try:
        return OnnxReader(read_bytes(path, MAX_MODEL_BYTES))
    except ImportError as error:
        raise ConfigurationError(
            f"model {path}: the Python package 'onnxruntime' is missing; install it: pip install onnxruntime"
        ) from error
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", error)
        remedy = "use a file that `khmer-tuner export-model` wrote"
        raise ConfigurationError(f"model {path}: {reason}; {remedy}") from error


def with_digest(content: bytes) -> bytes:
    """Append the SHA-256 of a serialized model to it, as an entry of its metadata."""
    return content + _DIGEST_ENTRY + hashlib.sha256(content).hexdigest().encode()
