"""The ONNX graph of a trained network: preprocessing, network, decoding and confidences.

Shapes: N images, one grey channel, height H = 64, width W = 128, K distorted copies, L label positions, T columns,
D features.
"""

from __future__ import annotations

import logging
import warnings
from typing import no_type_check

import numpy as np
import onnx
import onnxscript
import torch
from onnx.inliner import inline_local_functions
from onnxscript import BOOL, DOUBLE, INT32, UINT8
from onnxscript import opset20 as op
from torch import Tensor, nn
from torch.nn import functional as F

from tuner.data.augmentation import TTA_MATRICES
from tuner.data.images import IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX
from tuner.models.decoders import LOG_FLOOR, MonotonicAttention
from tuner.models.network import OCRNetwork

_OPSET = 20
logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that optional packages are missing

_SIZE = (IMAGE_HEIGHT_PX, IMAGE_WIDTH_PX)
_FUNCTIONS = onnxscript.values.Opset("khmer_ocr_tuner", 1)
_BOOL, _DOUBLE, _INT32, _UINT8 = (scalar.dtype for scalar in (BOOL, DOUBLE, INT32, UINT8))


@onnxscript.script(_FUNCTIONS, default_opset=op)
@no_type_check  # the types are those of ONNX
def _resize_weights(length, new_length, pixel_axis, new_axis):
    """Return the weights of the pixels of a row or column in the resized one, as integers of 22 bits, like Pillow."""
    one = op.Cast(1.0, to=_DOUBLE)
    zero = one - one
    support = op.Max(length / new_length, one)
    centre = op.Unsqueeze((op.Range(zero, new_length, one) + 0.5) * (length / new_length), pixel_axis)
    pixel = op.Unsqueeze(op.Range(zero, length, one), new_axis)
    is_inside = op.And(pixel >= op.Floor(centre - support + 0.5), pixel < op.Floor(centre + support + 0.5))
    weight = op.Where(is_inside, op.Max(one - op.Abs(pixel - centre + 0.5) * (one / support), zero), zero)
    return op.Floor(weight / op.ReduceSum(weight, pixel_axis) * 4194304.0 + 0.5)


@onnxscript.script(_FUNCTIONS, default_opset=op)
@no_type_check
def _rounded(sums):
    return op.Min(op.Floor(sums / 4194304.0 + 0.5), op.Cast(255.0, to=_DOUBLE))


@onnxscript.script(default_opset=op)
@no_type_check
def _preprocess(images):
    """Convert RGB images ``(N, height, width, 3)`` to grey pixels ``(N, H, W)``, like Pillow's BILINEAR.

    `Resize` of ONNX differs by up to 22 grey levels. Pillow before version 13 resizes rows before columns as here;
    later versions first resize the columns of some images, so that rounding can differ by one grey level.
    """
    weights = op.Cast(op.Constant(value_ints=[19595, 38470, 7471]), to=_INT32)
    grey = (op.ReduceSum(op.Cast(images, to=_INT32) * weights, [-1], keepdims=0) + 32768) / 65536
    is_same = op.Shape(grey, start=1) == op.Constant(value_ints=_SIZE)
    if op.Cast(op.ReduceMin(op.Cast(is_same, to=_INT32), keepdims=0), to=_BOOL):
        pixels = op.Cast(grey, to=_UINT8)
    else:
        height, width = op.Split(op.Cast(op.Shape(grey, start=1), to=_DOUBLE), num_outputs=2)
        new_height, new_width = op.Split(op.Cast(op.Constant(value_ints=_SIZE), to=_DOUBLE), num_outputs=2)
        across = _resize_weights(op.Squeeze(width), op.Squeeze(new_width), [0], [1])
        # Weights on the left instead of transposed pixels, which some versions of ONNX Runtime cannot multiply.
        down = _resize_weights(op.Squeeze(height), op.Squeeze(new_height), [1], [0])
        narrow = _rounded(op.MatMul(op.Cast(grey, to=_DOUBLE), across))
        pixels = op.Cast(_rounded(op.MatMul(down, narrow)), to=_UINT8)
    return pixels


class _ExportableAttention(MonotonicAttention):
    """The same decoder with plain probabilities.

    Runtimes compute the logarithm of a sigmoid or a sum of exponentials less exactly than PyTorch, and the errors of
    32 columns add up to wrong readings.
    """

    def forward(self, columns: Tensor) -> Tensor:
        """Map ``(N, T, D)`` to log probabilities ``(N, L, C)``."""
        is_read = self.reads(columns).sigmoid()
        count = F.pad(torch.ones_like(is_read[:, 0]), (0, self.positions - 1))
        attention = []
        for probability in is_read.unbind(1):
            attention.append(count * probability)
            count = count - attention[-1] + F.pad(attention[-1][:, :-1], (1, 0))
        characters = torch.stack(attention, 2) @ self.character(columns).softmax(-1)
        floor = torch.full_like(characters[..., :1], LOG_FLOOR).exp()
        ended_before = torch.cat([floor[:, 0], count.cumsum(1)[:, :-1]], 1)
        probabilities = torch.cat([characters, count.unsqueeze(-1), ended_before.unsqueeze(-1), floor], -1)
        return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


class _Graph(nn.Module):
    """Maps pixels ``(N, H, W)`` and affine matrices ``(K, 2, 3)`` to label sequences and two confidences per image."""

    def __init__(self, network: OCRNetwork) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        if isinstance(network.decoder, MonotonicAttention):
            self.decoder = _ExportableAttention(
                network.definition.width, network.decoder.positions, classes=network.decoder.special.blank + 1
            )
            self.decoder.load_state_dict(network.decoder.state_dict())

    def forward(self, pixels: Tensor, distortions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count, copies = pixels.shape[0], distortions.shape[0]
        images = pixels.unsqueeze(1).float() / 255
        repeated = images.expand(copies, -1, -1, -1, -1).flatten(0, 1)
        matrices = distortions.unsqueeze(1).expand(-1, count, -1, -1).flatten(0, 1)
        # Not `distorted_copies`, whose caches would keep the exporter's symbolic tensors.
        down, across = ((torch.arange(size) * 2 + 1) / size - 1 for size in _SIZE)
        matrices = matrices[:, None, None]
        grid = matrices[..., 0] * across[:, None] + matrices[..., 1] * down[:, None, None] + matrices[..., 2]
        distorted = F.grid_sample(repeated, grid, padding_mode="border", align_corners=False)
        # Not `F.group_norm`: runtimes add 8,192 numbers one by one, less exactly than PyTorch; so first add each row.
        images = torch.cat([images, distorted])
        centred = images - images.mean(3, keepdim=True).mean(2, keepdim=True)
        variances = centred.square().mean(3, keepdim=True).mean(2, keepdim=True)
        # Instead of adding a small number to the variances, which the exporter's optimizer would remove.
        images = centred / variances.sqrt().clamp_min(1e-5)
        scores = self.decoder(self.encoder(images))
        rows = self.decoder.read(scores[:count])
        confidence = self.decoder.confidence(scores, rows.repeat(copies + 1, 1)).reshape(copies + 1, count)
        return rows, confidence[0], confidence.mean(0)


def preprocessing_graph(ir_version: int) -> onnx.ModelProto:
    """Return the first part of the graph: RGB images ``(N, height, width, 3)`` to grey pixels ``(N, H, W)``."""
    graph: onnx.ModelProto = _preprocess.to_model_proto(
        input_types=[UINT8["N", "image_height", "image_width", 3]],  # type: ignore[misc]
        output_types=[UINT8["N", *_SIZE]],  # type: ignore[misc]
        ir_version=ir_version,
    )
    return graph


def export_graph(network: OCRNetwork) -> onnx.ModelProto:
    """Return the ONNX graph of a network that is on the CPU and in evaluation mode.

    The input `images` is a batch of RGB images ``(N, image height, image width, 3)`` of any size, 0 to 255. The
    optional input `distortions` has K affine matrices of distorted copies ``(K, 2, 3)``, by default none. The outputs
    are the label sequences `rows` ``(N, L)``, and `confidence` and `tta_confidence` ``(N,)``, which are equal without
    distorted copies.
    """
    pixels = torch.zeros((3, *_SIZE), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        program = torch.onnx.export(
            _Graph(network).eval(),
            (pixels, torch.tensor(TTA_MATRICES)),
            input_names=["pixels", "distortions"],
            output_names=["rows", "confidence", "tta_confidence"],
            dynamic_shapes=({0: torch.export.Dim("N")}, {0: torch.export.Dim("K")}),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    exported: onnx.ModelProto = program.model_proto
    for part in (exported.graph, *exported.graph.node, *exported.graph.input, *exported.graph.output):
        part.ClearField("metadata_props")  # traces of the exporter with this machine's paths
    del exported.graph.value_info[:]
    preprocessing = preprocessing_graph(exported.ir_version)
    pixels_name = preprocessing.graph.output[0].name
    merged = onnx.compose.merge_models(preprocessing, exported, io_map=[(pixels_name, "pixels")])
    model: onnx.ModelProto = inline_local_functions(merged)  # many tools know no local functions
    del model.opset_import[1:]  # the merged lists contain the standard operators twice
    # An input that is also an initializer is optional.
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((0, 2, 3), np.float32), "distortions"))
    onnx.checker.check_model(model, full_check=True)
    return model
