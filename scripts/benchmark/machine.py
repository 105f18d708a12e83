"""Description of the machine, and how busy its other processes are."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from benchmark.plan import Figures
from tuner.cores import usable_cores


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
