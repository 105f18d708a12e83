#!/usr/bin/env python3
"""Measure the speed of this program on this machine, mainly as ratios within one run.

parts:
  epochs       seconds per epoch and images/s of each preset and model, epoch parts
  bookkeeping  time that a study takes in addition to training, in studies of up to 1,000 trials
  scale        seconds of worker start-up, `status` and `export` in studies of up to 10,000 trials
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark import bookkeeping, epochs, machine, scale
from benchmark.plan import Figures, Plan
from harness.fixture_study import STORAGE_VARIABLE
from harness.run import HarnessError

from search_spaces import ConfigurationError, DataLoaderError, load_experiments
from search_spaces.diagnostics.disk import write_json
from tuner.cores import usable_cores
from tuner.data.generation.dataset import generate_dataset
from tuner.data.pixel_cache import open_pixel_cache
from tuner.display.terminal import console_on, is_terminal
from tuner.signals import StopRequested, stop_on_signals

_MODULES = (epochs, bookkeeping, scale)
PARTS: dict[str, Any] = {module.__name__.rpartition(".")[2]: module for module in _MODULES}
SUCCESS, FAILED, INVALID_INPUT = 0, 1, 2
EXAMPLES = """\
examples:
  python scripts/benchmark.py                               measure all parts
  python scripts/benchmark.py --quick                       test all parts; not representative
  python scripts/benchmark.py epochs --threads 1
  python scripts/benchmark.py epochs --config my_config.yaml --json epochs.json

The machine should otherwise be idle.

exit code: 0 all parts were measured, 1 a part failed, 2 invalid input, 130 stopped by SIGINT, 143 by SIGTERM
"""
_SAMPLES, _QUICK_SAMPLES = 5000, 100
_TEST_SAMPLES = 10
_FILE_WIDTH = 150
_QUIET_CORES = 0.1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = _options(argv)
    os.environ.pop(STORAGE_VARIABLE, None)
    try:
        with stop_on_signals(), tempfile.TemporaryDirectory(prefix="khmer_benchmark_") as folder:
            return _measure(options, Path(folder).resolve())
    except StopRequested as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except (ConfigurationError, DataLoaderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return INVALID_INPUT


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("parts", metavar="PART", nargs="*", help="part to measure (default: all parts)")
    parser.add_argument("--quick", action="store_true", help="use few images, trials and repetitions")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, default=Path("benchmark.json"), help="output file (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        metavar="METADATA",
        type=Path,
        help="metadata.yaml of a dataset (default: generate the default dataset)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        default="config/phase3_simple_configs.yaml",
        help="experiments file with the presets to measure (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=int,
        default=usable_cores(),
        help="number of PyTorch threads (default: the cores)",
    )
    options = parser.parse_args(argv)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    if options.threads < 1:
        parser.error(f"--threads: found {options.threads}; expected 1 or more")
    if options.data is not None and not options.data.is_file():
        parser.error(f"--data: {options.data} is not a file; use the path of a dataset's metadata.yaml")
    if options.json.is_dir() or not os.access(options.json.absolute().parent, os.W_OK):
        parser.error(f"--json: {options.json} cannot be written; use a file in a writable folder")
    return options


def _measure(options: argparse.Namespace, folder: Path) -> int:
    load_experiments(options.config)
    plan = Plan(
        folder=folder,
        metadata=_dataset(options, folder),
        config=options.config,
        threads=options.threads,
        quick=options.quick,
        log=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
    )
    console = console_on(sys.stdout)
    if not is_terminal(sys.stdout):
        console.width = _FILE_WIDTH
    facts = machine.facts(options.threads)
    console.print(", ".join(f"{name} {value}" for name, value in facts.items() if value is not None))
    report: Figures = {"facts": facts, "quick": options.quick, "seconds": {}, "busy_elsewhere": {}, "parts": {}}
    for name in options.parts or PARTS:
        print(name, file=sys.stderr, flush=True)
        started_at, before = time.monotonic(), machine.other_processes_seconds()
        try:
            figures: Figures = PARTS[name].measure(plan)
        except (HarnessError, ConfigurationError, DataLoaderError, OSError) as error:
            figures = {"error": str(error)}
        seconds = time.monotonic() - started_at
        busy_cores = max(0.0, machine.other_processes_seconds() - before) / seconds
        report["seconds"][name] = round(seconds, 1)
        report["busy_elsewhere"][name] = round(busy_cores, 2)
        report["parts"][name] = figures
        write_json(options.json, report)  # after each part, so that the figures are kept if a later part fails
        busy = f"; other processes used {busy_cores:.1f} cores on average" if busy_cores > _QUIET_CORES else ""
        console.print(f"\n{name}, measured in {seconds:.0f} s{busy}")
        if text := figures.get("skipped") or figures.get("error"):
            console.print(f"{'error' if 'error' in figures else 'skipped'}: {text}")
            continue
        for table in PARTS[name].tables(figures):
            console.print(table)
            console.print()
    console.print(f"all figures: {options.json}")
    return FAILED if any("error" in figures for figures in report["parts"].values()) else SUCCESS


def _dataset(options: argparse.Namespace, folder: Path) -> Path:
    """Create the pixel cache, and the default dataset if `--data` is not given; return the metadata file."""
    if options.data is None:
        print("generating the dataset", file=sys.stderr, flush=True)
        samples = _QUICK_SAMPLES if options.quick else _SAMPLES
        metadata = generate_dataset(folder / "generated_data", samples=samples, test_samples=_TEST_SAMPLES)
    else:
        metadata = options.data.absolute()
    config = next(iter(load_experiments(options.config).experiments.values()))
    open_pixel_cache(metadata, [config.train_split, config.val_split])
    return metadata


if __name__ == "__main__":
    sys.exit(main())
