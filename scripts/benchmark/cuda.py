"""Measurements on a GPU: rates, epochs, and trials per hour with several workers."""

from __future__ import annotations

from harness.processes import in_subprocess
from rich.table import Table

from benchmark import epochs, machine, workers
from benchmark.plan import Figures, Plan

_WORKERS = (1, 2, 4, 8)


def measure(plan: Plan) -> Figures:
    """Measure rates, epochs and workers on the GPU; skip the part if PyTorch finds no GPU."""
    if not in_subprocess(has_cuda, plan.folder, plan.threads):
        return {"skipped": "PyTorch finds no CUDA device"}
    plan.log("matrix products, convolutions, memory")
    return {
        "machine": in_subprocess(
            machine.device_rates, plan.folder, plan.threads, device_name="cuda", repeats=machine.repeats_in(plan)
        ),
        "epochs": epochs.measure_on(plan, "cuda", epochs=1 if plan.quick else 4),
        "workers": workers.measure_on(
            plan, "cuda", _WORKERS[:2] if plan.quick else _WORKERS, epochs=2 if plan.quick else 10
        ),
    }


def tables(figures: Figures) -> list[Table]:
    """Return the tables of the three parts."""
    parts = {"machine": machine, "epochs": epochs, "workers": workers}
    return [table for name, part in parts.items() for table in part.tables(figures[name])]


def has_cuda() -> bool:
    """Return whether PyTorch finds a GPU."""
    import torch

    return torch.cuda.is_available()
