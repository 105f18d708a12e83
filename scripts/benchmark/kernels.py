"""Arithmetic and memory rates of the kernels in a training step, compared with the machine's rates."""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from typing import Any

import torch
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmark.machine import best_seconds, matrix_rate, memory_rate, synchronizer_of
from benchmark.plan import Figures
from search_spaces import TrainingConfig
from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import open_pixel_cache
from tuner.training.device import amp_dtype
from tuner.training.epoch import train_step
from tuner.training.out_of_memory import keep_freed_memory
from tuner.training.training_state import TrainingState

# The first pattern that matches an operation's name determines its kind; without a match, the kind is elementwise.
_KINDS = {
    "convolution": re.compile(r"conv"),
    "matrix": re.compile(r"mm\b|_mm_|linear|matmul|einsum"),
    "normalisation": re.compile(r"(batch|layer)_norm"),
    "optimizer": re.compile(r"adam|foreach|lerp|_amp_|vector_norm"),
}
_ELEMENTWISE = "elementwise"
OUTSIDE = "outside kernels"


def profile_steps(config: TrainingConfig, steps: int, repeats: int) -> Figures:
    """Measure the kernel rates of a configuration's first training steps in this process.

    Each measurement is repeated `repeats` times. The machine's matrix rate is measured before and after the steps, and
    the higher one counts. Memory traffic is the number of bytes that operations read and write if nothing stays in a
    cache, so it can exceed the memory rate.
    """
    cache = open_pixel_cache(config.metadata_path, [config.train_split, config.val_split])
    device = torch.device(config.device)
    data = TrainingData.of(config, cache, device)
    training = TrainingState.create(config, steps_per_epoch=len(data.train))
    if device.type == "cpu":
        keep_freed_memory()
    training.model.train()
    batches = list(itertools.islice(data.train.epoch(1), steps))
    dtype = amp_dtype(device) if training.use_amp else torch.float32
    before = matrix_rate(device, dtype, repeats)
    seconds = best_seconds(lambda: [train_step(training, batch) for batch in batches], device, repeats) / len(batches)
    times, wall = _kernel_seconds(training, batches)
    flops, traffic = _operations(training, batches[0])
    rate = max(before, matrix_rate(device, dtype, repeats), key=lambda rate: rate.gflops)
    bandwidth = memory_rate(device, repeats)
    kinds = {
        kind: _kind(seconds * share / wall, flops[kind], traffic[kind], rate.gflops, bandwidth)
        for kind, share in times.items()
    }
    return {
        "precision": str(dtype).removeprefix("torch."),
        "step_seconds": seconds,
        "gflop_per_image": flops.total() / len(batches[0][0]) / 1e9,
        "rate": vars(rate),
        "memory_gb_s": bandwidth,
        "share": flops.total() / seconds / 1e9 / rate.gflops,
        "bound_share": sum(kind["bound_seconds"] for kind in kinds.values()) / seconds,
        "kinds": kinds,
    }


def _kind(seconds: float, flops: float, traffic: float, gflops: float, bandwidth: float) -> Figures:
    """Return the rates of a kind of kernel, and its minimum seconds at the machine's rates.

    `traffic` is in bytes; `gflops` (GFLOP/s) and `bandwidth` (GB/s) are the machine's rates.
    """
    arithmetic, memory = flops / gflops / 1e9, traffic / bandwidth / 1e9
    bound = max(arithmetic, memory)
    return {
        "seconds": seconds,
        "gflops": flops / seconds / 1e9 if seconds else 0.0,
        "gb_s": traffic / seconds / 1e9 if seconds else 0.0,
        "bound_seconds": bound,
        "bound_by": "-" if not bound else "arithmetic" if arithmetic > memory else "memory",
    }


def _kernel_seconds(training: TrainingState, batches: list[Any]) -> tuple[dict[str, float], float]:
    """Profile training steps; return the seconds per kind of kernel and outside kernels, and the total seconds."""
    on_device = training.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    wait = synchronizer_of(training.device)
    wait()
    with profile(activities=activities) as profiled:
        started_at = time.perf_counter()  # after the slow start of the profiler
        for batch in batches:
            train_step(training, batch)
        wait()
        wall = time.perf_counter() - started_at
    seconds: Counter[str] = Counter()
    events: EventList = profiled.key_averages()
    for event in events:
        if event.key.startswith("aten::"):
            microseconds = event.self_device_time_total if on_device else event.self_cpu_time_total
            seconds[_kind_of(event.key)] += microseconds / 1e6
    wall = max(wall, sum(seconds.values()))
    return {**seconds, OUTSIDE: wall - sum(seconds.values())}, wall


def _operations(training: TrainingState, batch: Any) -> tuple[Counter[str], Counter[str]]:
    """Count the floating-point operations, and the bytes read and written, per kind of kernel in one training step."""
    with FlopCounterMode(display=False) as counted, _Traffic() as traffic:
        train_step(training, batch)
    flops: Counter[str] = Counter()
    for operation, count in counted.get_flop_counts().get("Global", {}).items():
        flops[_kind_of(str(operation))] += count
    return flops, traffic.bytes


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of the bytes that operations read and write, per kind of kernel."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if not func.is_view:
            self.bytes[_kind_of(str(func))] += sum(tensor.nbytes for tensor in (*inputs, *outputs))
        return result


def _kind_of(operation: str) -> str:
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(operation)), _ELEMENTWISE)
