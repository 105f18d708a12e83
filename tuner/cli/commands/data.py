"""Generate a dataset of Khmer digits.

Examples:
  khmer-tuner data
  khmer-tuner data --samples 500 --test-samples 100 --out small_data --seed 7

`--fonts system` uses the Khmer fonts that are installed on this machine, if there are any.
"""

from __future__ import annotations

import argparse

from tuner.cli.errors import SUCCESS, tell
from tuner.cli.options import LARGEST_SEED, Command, add_option, filled, one_of, whole_number
from tuner.cli.output import print_lines

_MOST_SAMPLES = 10_000_000


def _add_options(parser: argparse.ArgumentParser) -> None:
    samples = "images for training and, one in five, for validation"
    add_option(parser, "--samples", "N", whole_number(10, _MOST_SAMPLES), samples, default=5000)
    test_samples = "images of the split that no training uses"
    add_option(parser, "--test-samples", "N", whole_number(1, _MOST_SAMPLES), test_samples, default=1000)
    add_option(parser, "--out", "DIR", filled, "folder to create", default="generated_data")
    add_option(
        parser, "--seed", "S", whole_number(0, LARGEST_SEED), "the same seed generates the same images", default=0
    )
    fonts = "pinned: the font of this package; system: also all installed Khmer fonts"
    add_option(parser, "--fonts", "F", one_of("pinned", "system"), fonts, default="pinned")
    add_option(parser, "--fonts-dir", "DIR", filled, "a folder whose fonts are added")


def prepare(options: argparse.Namespace) -> None:
    """Prepare nothing: the generator checks its own input before it creates anything."""


def run(options: argparse.Namespace, prepared: None) -> int:
    """Generate the dataset; the path of its metadata file goes to standard output."""
    from tuner.cli.display_factory import display_of_run
    from tuner.data.generation import generate_dataset

    generated = False
    with display_of_run(with_summary=False, debug=options.debug) as display:

        def on_progress(done: int, total: int) -> None:
            nonlocal generated
            generated = True
            display.dataset_progress(done, total)

        path = generate_dataset(
            options.out,
            samples=options.samples,
            test_samples=options.test_samples,
            seed=options.seed,
            fonts=options.fonts,
            fonts_dir=options.fonts_dir,
            on_progress=on_progress,
        )
    tell("dataset generated:" if generated else "this dataset is there already:")
    print_lines([str(path)])
    return SUCCESS


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
