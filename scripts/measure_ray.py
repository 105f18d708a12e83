#!/usr/bin/env python3
"""Compare the training throughput of workers in a Ray cluster with that of the same number of plain workers.

Both train the same presets of a new study in PostgreSQL, one after the other, in pairs. The throughput is that between
the start of the first and the end of the last trial. The duration of the commands, which includes the start, is shown,
too.

Example: python scripts/measure_ray.py --pairs 3 --workers 2
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import optuna
import yaml
from harness.postgresql import PostgresServer
from harness.processes import LOG_NAME, command, failure, start_logged
from harness.ray_nodes import RayNodes

from search_spaces import load_experiments
from studies import DEFAULT_STUDY_NAME, open_storage
from tuner.data.generation import generate_dataset
from tuner.display.base import Display
from tuner.session.run_options import RunOptions
from tuner.session.run_request import RunRequest
from tuner.session.session import Session

PLAIN, RAY = "plain workers", "Ray's workers"
SECONDS_TO_SETTLE = 20.0  # a new cluster starts processes for some seconds


def main() -> None:
    """Run the pairs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="number of comparisons (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="number of workers (default: %(default)s)")
    parser.add_argument("--presets", type=int, default=4, help="number of trials (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each trial (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=2000, help="images of the dataset (default: %(default)s)")
    options = parser.parse_args()
    ratios = []
    with PostgresServer() as server, tempfile.TemporaryDirectory(dir="/tmp") as temporary:
        work = Path(temporary)
        config = _write_inputs(work, options.presets, options.epochs, options.samples)
        print(f"{'':14}  {'images/s':>8}  {'command':>8}")
        for pair in range(options.pairs):
            rates = {}
            for kind in (PLAIN, RAY) if pair % 2 == 0 else (RAY, PLAIN):
                url = server.create_database(f"{kind[0]}_{pair}")
                folder = work / f"{kind[0]}_{pair}"
                request = RunRequest.from_file(
                    load_experiments(config), options=RunOptions(output_dir=folder, storage=url)
                )
                Session.open(request, Display())
                seconds = _run(kind, folder, url, options.workers)
                rates[kind] = options.presets * options.epochs * options.samples * 0.8 / _training_seconds(url)
                print(f"{kind:14}  {rates[kind]:8.0f}  {seconds:6.1f} s", flush=True)
            ratios.append(rates[RAY] / rates[PLAIN])
            print(f"{'ratio':14}  {ratios[-1]:8.3f}", flush=True)
    print(f"{'median ratio':14}  {statistics.median(ratios):8.3f}")


def _write_inputs(work: Path, presets: int, epochs: int, samples: int) -> Path:
    metadata = generate_dataset(work / "generated_data", samples=samples, test_samples=10)
    experiment = {
        "model": {"name": "small"},
        "data": {"metadata_path": str(metadata)},
        "training": {"device": "cpu", "num_epochs": epochs, "use_tensorboard": False},
    }
    config = work / "experiments.yaml"
    config.write_text(yaml.safe_dump({"experiments": {f"preset_{number}": experiment for number in range(presets)}}))
    return config


def _run(kind: str, folder: Path, url: str, workers: int) -> float:
    """Train all presets of a study; return the duration of the slowest command in seconds."""
    worker = ["worker", "--output-dir", str(folder), "--threads", "1"]
    if kind == PLAIN:
        return _seconds([worker] * workers, folder, url)
    with RayNodes(1, cpus=workers) as nodes:
        time.sleep(SECONDS_TO_SETTLE)
        return _seconds([[*worker, "--ray", nodes.address, "--workers", str(workers)]], folder, url)


def _seconds(commands: Sequence[Sequence[str]], folder: Path, url: str) -> float:
    begin = time.monotonic()
    processes = {}
    for number, words in enumerate(commands):
        place = folder.with_name(f"{folder.name}_{number}")
        place.mkdir()
        variables = {"KHMER_TUNER_STORAGE": url, "OMP_NUM_THREADS": "1"}
        processes[place] = start_logged(command(*words), place / LOG_NAME, **variables)
    for place, process in processes.items():
        if code := process.wait():
            raise failure(command(*commands[0]), place, code)
    return time.monotonic() - begin


def _training_seconds(url: str) -> float:
    storage = open_storage(url)
    trials = optuna.load_study(study_name=DEFAULT_STUDY_NAME, storage=storage).get_trials()
    storage.engine.dispose()
    start = min(trial.datetime_start for trial in trials if trial.datetime_start)
    end = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
    return (end - start).total_seconds()


if __name__ == "__main__":
    main()
