"""Exporting a trained model as an ONNX file that is known to read like the checkpoint."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx

from search_spaces import ConfigurationError, config_digest
from search_spaces.training_config import settings_with_effect
from tuner.data.augmentation import TTA_MATRICES
from tuner.data.images import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.data.pixel_cache import CachedSplit, open_pixel_cache
from tuner.inference.checkpoint_reader import CheckpointReader
from tuner.inference.onnx_graph import export_graph
from tuner.inference.onnx_reader import FORMAT_VERSION, PRODUCER, OnnxReader, with_digest

_LIBRARIES = (PRODUCER, "torch", "onnx", "onnxscript", "onnxruntime", "pillow")
_PREPROCESSING = (
    "transparency on white, grey (ITU-R 601-2 luma), bilinear resize with antialiasing, mean 0 and standard deviation "
    "1 for each image; all of it is in the graph, except transparency and more than 8 bits per channel"
)
_USE = """Reads the characters in an image, from left to right.

Input `images`: RGB images of equal size, uint8 (N, height, width, 3), 0 to 255. They are converted to grey
and resized in the graph, like Pillow to one grey level, and normalised.
Outputs: `rows`, int64 (N, L): character k of `characters` (JSON, in the metadata), or special_classes.
`confidence`, float (N,): probability of the reading. `tta_confidence`: its mean over the image and K slightly
distorted copies, if the optional input `distortions` (K, 2, 3) is that of the metadata.

  import json, numpy, onnxruntime, PIL.Image
  session = onnxruntime.InferenceSession("reader.onnx")
  characters = json.loads(session.get_modelmeta().custom_metadata_map["characters"])
  image = numpy.asarray(PIL.Image.open("image.png").convert("RGB"))
  rows, confidence = session.run(["rows", "confidence"], {"images": image[None]})
  print("".join(characters[k] for k in rows[0] if k < len(characters)), confidence[0])
"""


def export_model(reader: CheckpointReader, metadata_path: str, origin: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Export a checkpoint, and compare the exported model with it on all validation images.

    Args:
        reader: The model of the checkpoint, on the CPU; it is changed to single precision, as in the exported graph.
        metadata_path: The dataset of the training.
        origin: Further entries of the metadata: plain data, keyed by name.

    Returns:
        The content of the ONNX file, and the result of the comparison: number of ``images``,
        ``largest_confidence_difference`` of confidences and TTA confidences, and both as ``text``.

    Raises:
        ConfigurationError: The dataset is not that of the training, or a validation image is read differently.
        DataLoaderError: The dataset is missing or damaged.
    """
    split = _validation_split(reader, metadata_path)
    reader.use_amp = False
    model = export_graph(reader.model)
    model.producer_name, model.model_version, model.doc_string = PRODUCER, FORMAT_VERSION, _USE
    entries = _metadata(reader) | origin
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in entries.items()}
    onnx.helper.set_model_props(model, texts)
    comparison = _compare(reader, OnnxReader(with_digest(model.SerializeToString())), split)
    model.metadata_props.add(key="comparison", value=json.dumps(comparison))
    return with_digest(model.SerializeToString(deterministic=True)), comparison


def _metadata(reader: CheckpointReader) -> dict[str, Any]:
    vocabulary, metrics = reader.vocabulary, reader.metrics
    return {
        "characters": list(vocabulary.characters),
        "max_length": vocabulary.max_length,
        "special_classes": vocabulary.special._asdict(),
        "image_size": {"height": IMAGE_HEIGHT_PX, "width": IMAGE_WIDTH_PX},
        "preprocessing": _PREPROCESSING,
        "distortions": TTA_MATRICES,
        "out_of_distribution": reader.ood_detector.as_dict(),
        "settings": settings_with_effect(reader.config),
        "settings_digest": config_digest(reader.config),
        "network": reader.model.definition.model_dump(mode="json"),
        "seed": reader.config.seed,
        "metrics": {name: metrics[name] for name in ("epoch", "val_char_accuracy", "val_seq_accuracy", "val_loss")},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
    }


def _validation_split(reader: CheckpointReader, metadata_path: str) -> CachedSplit:
    name = reader.config.val_split
    split = open_pixel_cache(metadata_path, [name])[name]
    if not np.allclose(split.image_statistics.mean(0), reader.ood_detector.mean, rtol=1e-4):
        raise ConfigurationError(
            f"{metadata_path}: split {name!r} has other images than the validation split with which the model was "
            "trained; the exported model is compared with the checkpoint on those; use --metadata with that dataset"
        )
    return split


def _compare(reader: CheckpointReader, exported: OnnxReader, split: CachedSplit) -> dict[str, Any]:
    largest, different = 0.0, []
    for start in range(0, len(split), reader.batch_size):
        pixels = split.images[start : start + reader.batch_size]
        original, other = reader.read_pixels(pixels), exported.read_pixels(pixels)
        different += [start + int(image) for image in np.flatnonzero((original.rows != other.rows).any(1))]
        for before, after in zip(original[1:], other[1:], strict=True):
            largest = max(largest, float(np.abs(before - after).max()))
    if different:
        raise ConfigurationError(
            f"ONNX Runtime reads {len(different):,} of {len(split):,} validation images differently than PyTorch, the "
            f"first one is {split.image_paths[different[0]]}; nothing was written; report this as a bug, with the "
            "versions " + ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
        )
    text = (
        f"PyTorch and ONNX Runtime read all {len(split):,} validation images identically (single precision, CPU); "
        f"largest difference of a confidence: {largest:.1e}"
    )
    return {"images": len(split), "largest_confidence_difference": largest, "text": text}
