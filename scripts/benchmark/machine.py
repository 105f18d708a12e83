"""Description of the machine, and its rates for matrix products, convolutions and memory copies."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from harness.processes import in_subprocess
from rich.table import Table

from benchmark.plan import Figures, Plan
from tuner.cores import usable_cores
from tuner.display.terminal import plain_table

if TYPE_CHECKING:
    import torch

_REPEATS, _QUICK_REPEATS = 6, 2
_MATRIX = 2048
_COPIED_BYTES = 256 * 2**20
# Input channels, output channels, kernel size. Convolutions are measured in addition to matrix products, because on a
# CPU PyTorch computes them with another library: oneDNN instead of MKL or OpenBLAS.
_CONVOLUTIONS = ((128, 128, 3), (256, 256, 3), (512, 512, 1))
_BATCH, _HEIGHT, _WIDTH = 64, 16, 32


@dataclass(frozen=True)
class Rate:
    """Rates of a device in one precision.

    Attributes:
        gflops: Highest measured rate, in billion floating-point operations per second.
        by: Operation with the highest rate.
        matrix_gflops: Rate of ``torch.mm``, in the same unit.
    """

    gflops: float
    by: str
    matrix_gflops: float


def facts(threads: int) -> Figures:
    """Return a description of this machine and its software, without importing PyTorch."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "optuna": importlib.metadata.version("optuna"),
        "threads": threads,
        "commit": _commit(),
    }


def other_processes_seconds() -> float:
    """Return the CPU seconds of this machine since its start, without this process and its exited children."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0) - sum(os.times()[:4]))


def measure(plan: Plan) -> Figures:
    """Measure the rates of the CPU in a new interpreter."""
    plan.log("matrix products, convolutions, memory")
    figures: Figures = in_subprocess(
        device_rates, plan.folder, plan.threads, device_name="cpu", repeats=repeats_in(plan)
    )
    return figures


def repeats_in(plan: Plan) -> int:
    """Return how often each operation is measured, in addition to a warm-up."""
    return _QUICK_REPEATS if plan.quick else _REPEATS


def tables(figures: Figures) -> list[Table]:
    """Return a table of the measured rates per precision."""
    table = plain_table("precision", "best GFLOP/s", "operation", "torch.mm GFLOP/s", right=(1, 3))
    for precision, rate in figures["precisions"].items():
        table.add_row(precision, f"{rate['gflops']:.0f}", rate["by"], f"{rate['matrix_gflops']:.0f}")
    table.add_row("memory", f"{figures['memory_gb_s']:.1f} GB/s", "copying", "")
    return [table]


def device_rates(device_name: str, repeats: int) -> Figures:
    """Measure the rates of a device in each precision that it supports natively."""
    import torch

    from search_spaces import TrainingConfig
    from tuner.training.device import setup_training_environment

    device = torch.device(device_name)
    _, has_half = setup_training_environment(TrainingConfig(device=device_name, mixed_precision=True))
    types = {"float32": torch.float32} | ({"bfloat16": torch.bfloat16} if has_half else {})
    return {
        "device": torch.cuda.get_device_name() if device_name == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "precisions": {name: vars(matrix_rate(device, dtype, repeats)) for name, dtype in types.items()},
        "memory_gb_s": memory_rate(device, repeats),
    }


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int) -> Rate:
    """Measure matrix products and convolutions; return the highest rate."""
    import torch

    rates: dict[str, float] = {}
    left, right = (torch.randn(_MATRIX, _MATRIX, device=device).to(dtype) for _ in range(2))
    rates["torch.mm"] = 2 * _MATRIX**3 / best_seconds(lambda: torch.mm(left, right), device, repeats) / 1e9
    for inputs, outputs, kernel in _CONVOLUTIONS:
        shapes = ((_BATCH, inputs, _HEIGHT, _WIDTH), (outputs, inputs, kernel, kernel))
        images, weights = (
            torch.randn(shape, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
            for shape in shapes
        )
        convolve = functools.partial(torch.nn.functional.conv2d, images, weights, padding=kernel // 2)
        work = 2 * _BATCH * _HEIGHT * _WIDTH * inputs * outputs * kernel**2
        rates[f"convolution {kernel} x {kernel}, {inputs} channels"] = (
            work / best_seconds(convolve, device, repeats) / 1e9
        )
    best = max(rates, key=lambda name: rates[name])
    return Rate(rates[best], best, rates["torch.mm"])


def memory_rate(device: torch.device, repeats: int) -> float:
    """Measure copying an array that fits no cache; return the GB/s, read plus written."""
    import torch

    source = torch.ones(_COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / best_seconds(lambda: target.copy_(source), device, repeats) / 1e9


def synchronizer_of(device: torch.device) -> Callable[[], object]:
    """Return a function that waits until a device has finished its work."""
    import torch

    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def best_seconds(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Call `work` `repeats` times, after a warm-up call; return the minimum seconds per call."""
    wait = synchronizer_of(device)
    work()
    best = float("inf")
    for _ in range(repeats):
        wait()
        started_at = time.perf_counter()
        work()
        wait()
        best = min(best, time.perf_counter() - started_at)
    return best


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _commit() -> str | None:
    """Return the commit of this checkout, with a plus sign if files differ from it; None without Git or its history."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() or None
