"""``validate``: check a configuration file and the dataset it names, without training."""

from __future__ import annotations

import argparse
from pathlib import Path

from tuner.cli.command import Command, filled
from tuner.cli.errors import DONE


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``validate``."""
    parser.add_argument("config", metavar="CONFIG", type=filled, help="the configuration file")


def run(options: argparse.Namespace) -> int:
    """Print what would run, and read every image if the dataset is there."""
    from search_spaces import load_experiments
    from tuner.cli.plan import dataset_line, print_plan
    from tuner.data.pixel_cache import open_pixel_cache

    file = load_experiments(options.config)
    print_plan(file, file.experiments)
    config = next(iter(file.experiments.values()))
    print(dataset_line(file, config), flush=True)
    if Path(config.metadata_path).exists():
        splits = open_pixel_cache(config.metadata_path, [config.train_split, config.val_split], verify=True).splits
        print(f"every image read: {', '.join(f'{name} {len(split):,}' for name, split in splits.items())}")
    print("the configuration is valid")
    return DONE


COMMAND = Command(
    name="validate",
    summary="check a configuration file and its dataset; print what would run",
    examples="""\
  khmer-tuner validate config/phase3_simple_configs.yaml""",
    add_options=add_options,
    run=run,
)
