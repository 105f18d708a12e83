"""Generate a dataset of Khmer digits or other characters.

Examples:
  khmer-tuner data
  khmer-tuner data --samples 500 --test-samples 100 --out small_data --seed 7
  khmer-tuner data --characters ABCDEFGHIJKLMNOPQRSTUVWXYZ --max-length 12 --out latin_data
"""

from __future__ import annotations

import argparse

from tuner.cli.errors import SUCCESS, print_message
from tuner.cli.options import LARGEST_SEED, Command, add_option, non_empty, one_of, whole_number
from tuner.cli.output import print_lines

_MOST_SAMPLES = 10_000_000


def _add_options(parser: argparse.ArgumentParser) -> None:
    samples = "number of training and validation images; one in five is for validation"
    add_option(parser, "--samples", "N", whole_number(10, _MOST_SAMPLES), samples, default=5000)
    test_samples = "number of images in the test split"
    add_option(parser, "--test-samples", "N", whole_number(1, _MOST_SAMPLES), test_samples, default=1000)
    add_option(parser, "--out", "DIR", non_empty, "dataset folder to create", default="generated_data")
    seed = "random seed; the same seed generates the same images"
    add_option(parser, "--seed", "SEED", whole_number(0, LARGEST_SEED), seed, default=0)
    characters = "characters of the labels, or a UTF-8 text file with them; spaces are ignored"
    add_option(parser, "--characters", "TEXT_OR_FILE", non_empty, characters, default="០១២៣៤៥៦៧៨៩")
    add_option(parser, "--max-length", "N", whole_number(1, 24), "maximum number of characters in a label", default=8)
    fonts = "pinned: the built-in font; system: also all fonts installed on this machine that have all characters"
    add_option(parser, "--fonts", "SET", one_of("pinned", "system"), fonts, default="pinned")
    add_option(parser, "--fonts-dir", "DIR", non_empty, "folder with additional fonts")
    held_out = "number of font designs for an additional split, unseen, that are in no other split"
    add_option(parser, "--hold-out-fonts", "N", whole_number(0, 1000), held_out, default=0)


def prepare(options: argparse.Namespace) -> None:
    """Do nothing: the generator itself checks its input before it creates anything."""


def run(options: argparse.Namespace, prepared: None) -> int:
    """Generate the dataset, and print the path of its metadata file."""
    from tuner.cli.display_factory import open_display
    from tuner.data.generation.dataset import generate_dataset
    from tuner.data.generation.recipe import Recipe

    generated = False
    with open_display(with_summary=False, debug=options.debug) as display:

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
            characters=options.characters,
            max_length=options.max_length,
            hold_out_fonts=options.hold_out_fonts,
            on_progress=on_progress,
        )
    if options.hold_out_fonts and (recipe := Recipe.read(path.parent)):
        print_message(f"font designs only in the split unseen: {', '.join(recipe.held_out_designs)}")
    print_message("dataset generated:" if generated else "the dataset already exists:")
    print_lines([str(path)])
    return SUCCESS


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
