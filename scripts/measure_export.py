#!/usr/bin/env python3
"""Compare exported models with their checkpoints: readings, size, images per second, start of `predict`, and int8.

Example: python scripts/measure_export.py --metadata generated_data/metadata.yaml \
    --checkpoint training_output/conservative_small/checkpoints/best.pt
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from tuner.analysis.model_export import export_model
from tuner.data.pixel_cache import CachedSplit, open_pixel_cache
from tuner.inference.checkpoint_reader import CheckpointReader, reader_of_checkpoint
from tuner.inference.onnx_reader import OnnxReader, with_digest
from tuner.inference.reader import Reader

BATCHES = (1, 64)
PASSES, STARTS, CALIBRATION_IMAGES = 40, 7, 200


def main() -> None:
    """Print a table for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata", required=True, help="metadata file of the dataset of the training")
    parser.add_argument("--checkpoint", required=True, nargs="+", type=Path, help="checkpoints to export")
    options = parser.parse_args()
    splits = open_pixel_cache(options.metadata, ["val", "test"])
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in options.checkpoint:
            measure(checkpoint, options.metadata, {name: splits[name] for name in ("val", "test")}, Path(folder))


def measure(checkpoint: Path, metadata: str, splits: dict[str, CachedSplit], folder: Path) -> None:
    """Export a checkpoint, quantize the exported model to int8, and print the figures of all three."""
    torch_reader = reader_of_checkpoint(checkpoint, device="cpu")
    content, comparison = export_model(torch_reader, metadata, {})
    (folder / "reader.onnx").write_bytes(content)
    (folder / "int8.onnx").write_bytes(quantized(content, splits["val"], folder))
    readers: dict[str, tuple[Reader, Path]] = {
        "torch": (torch_reader, checkpoint),
        "onnx": (OnnxReader(content), folder / "reader.onnx"),
        "onnx int8": (OnnxReader((folder / "int8.onnx").read_bytes()), folder / "int8.onnx"),
    }
    expected = {name: torch_reader.score(split)[0] for name, split in splits.items()}
    print(f"\n{checkpoint}\n{comparison['text']}")
    print("                MB  equal val  equal test  test seq   images/s 1 / 64   predict s")
    for name, (reader, path) in readers.items():
        rows = {split_name: reader.score(split)[0] for split_name, split in splits.items()}
        equal = [f"{(rows[split_name] == expected[split_name]).all(1).mean():10.4f}" for split_name in splits]
        accuracy = (rows["test"] == splits["test"].labels).all(1).mean()
        speeds = [images_per_s(reader, splits["test"].images[:batch]) for batch in BATCHES]
        start = start_seconds(path, splits["test"].image_paths[0])
        print(
            f"{name:10}{path.stat().st_size / 1e6:8.2f} {' '.join(equal)}  {accuracy:9.4f} "
            f"{speeds[0]:8.0f} / {speeds[1]:5.0f}  {start:10.2f}"
        )


def quantized(content: bytes, val: CachedSplit, folder: Path) -> bytes:
    """Quantize the convolutions of a model to int8, calibrated on validation images."""

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            pixels = val.images[:CALIBRATION_IMAGES]
            self.batches: Iterator[dict[str, np.ndarray]] = iter(
                [{"images": np.repeat(batch[..., None], 3, 3)} for batch in np.array_split(pixels, 10)]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    (folder / "float.onnx").write_bytes(content)
    quantize_static(
        folder / "float.onnx",
        folder / "quantized.onnx",
        Images(),
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    model, original = onnx.load(folder / "quantized.onnx"), onnx.load_model_from_string(content)
    model.model_version = original.model_version
    onnx.helper.set_model_props(model, {item.key: item.value for item in original.metadata_props[:-1]})
    return with_digest(model.SerializeToString())


def images_per_s(reader: Reader, pixels: np.ndarray) -> float:
    """Return the images per second of the fastest of several passes, without distorted copies."""
    one_pass: Callable[[], object]
    if isinstance(reader, CheckpointReader):
        one_pass = partial(torch_pass, reader, pixels)
    else:
        assert isinstance(reader, OnnxReader)
        feeds = {"images": np.repeat(pixels[..., None], 3, 3)}
        one_pass = partial(reader.session.run, ["rows", "confidence"], feeds)
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        one_pass()
        seconds.append(time.perf_counter() - started)
    return len(pixels) / min(seconds)


@torch.inference_mode()
def torch_pass(reader: CheckpointReader, pixels: np.ndarray) -> torch.Tensor:
    """Read a batch, without distorted copies."""
    scores = reader.model(torch.from_numpy(pixels).unsqueeze(1).float() / 255)
    return reader.model.confidence(scores, reader.model.read(scores))


def start_seconds(path: Path, image: str) -> float:
    """Return the median seconds of a new process that reads one image."""
    command = [sys.executable, "-m", "tuner", "predict", "--checkpoint", str(path), image]
    seconds = []
    for _ in range(STARTS):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
