"""``data``: draw a dataset."""

from __future__ import annotations

import argparse

from tuner.cli.errors import SUCCESS, tell
from tuner.cli.options import LARGEST_SEED, Command, filled, one_of, whole_number

_MOST_SAMPLES = 10_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``data``."""
    parser.add_argument(
        "--samples",
        metavar="N",
        type=whole_number(10, _MOST_SAMPLES),
        default=5000,
        help="images for training and, one in five, for validation (default: %(default)s)",
    )
    parser.add_argument(
        "--test-samples",
        metavar="N",
        type=whole_number(1, _MOST_SAMPLES),
        default=1000,
        help="images of the split that no training looks at (default: %(default)s)",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=filled, default="generated_data", help="folder to make (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        metavar="S",
        type=whole_number(0, LARGEST_SEED),
        default=0,
        help="the same seed draws the same images (default: %(default)s)",
    )
    parser.add_argument(
        "--fonts",
        metavar="F",
        type=one_of("pinned", "system"),
        default="pinned",
        help="pinned: the font of this package; system: also all installed Khmer fonts (default: %(default)s)",
    )
    parser.add_argument("--fonts-dir", metavar="DIR", type=filled, help="a folder whose fonts are added")


def run(options: argparse.Namespace, prepared: None) -> int:
    """Generate the dataset; the path of its metadata file goes to standard output."""
    from tuner.cli.display_factory import display_of_run
    from tuner.data.generation import generate_dataset

    drawn = False

    with display_of_run(with_summary=False, debug=options.debug) as display:

        def on_progress(done: int, total: int) -> None:
            nonlocal drawn
            drawn = True
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
    tell("dataset drawn:" if drawn else "this dataset is there already:")
    print(path)
    return SUCCESS


COMMAND = Command(
    name="data",
    summary="draw a dataset of Khmer digits",
    examples="""\
  khmer-tuner data
  khmer-tuner data --samples 500 --test-samples 100 --out small_data --seed 7

`--fonts system` draws with the Khmer fonts that are installed on this machine, if there are any.""",
    add_options=add_options,
    prepare=lambda options: None,  # the generator checks its own input before it creates anything
    run=run,
)
