#!/usr/bin/env python3
"""Disturb small studies without end, look at them all the while, and check what must hold of every study.

Each cycle is a small but real study (two presets and an open search on the CPU) that two workers train. Workers and
commands are killed, one by one and all at once, interrupted, paused and asked to stop at random moments, and the study
goes on, by turns with `run` and `resume`, until it is complete. Meanwhile its dashboard is polled, and killed now and
then, and `export` runs in a loop. No look may fail or contradict the one before. In the end every planned trial is
there once, nothing is left over, and every trial, trained again without any disturbance, gives the same bits.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from harness.fixture_study import FixtureStudy
from harness.processes import DIFFERENT, EQUAL, STOPPED, in_fork, prepare, run_harness
from soak.consistency import check_tools
from soak.cycle import Cycle, Story
from soak.summary import story_line, summary

EXAMPLES = """\
examples:
  python scripts/soak.py --minutes 30
  python scripts/soak.py --minutes 0.5 --seed 7   a single study

The seed decides what befalls a study, and after how many seconds; how far it has got by then is the machine's affair.

exit code: 0 all invariants hold, 1 one is broken (the folder of its study is kept), 2 the soak could not do its work,
130 it was stopped
"""
SEARCH_TRIALS = 12
# Long enough for a trial to be hit in the middle.
SAMPLES, EPOCHS = 600, 12


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _options(argv)
    return run_harness(options.folder, "soak_", options.seed, lambda folder: _soak(options, folder), check_tools)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes",
        metavar="M",
        type=float,
        default=30.0,
        help="no further study is begun after so many; one is in any case (default: %(default)s)",
    )
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="of all chance (default: %(default)s)")
    parser.add_argument("--folder", metavar="DIR", help="an empty folder to work in, kept (default: a temporary one)")
    return parser.parse_args(argv)


def _soak(options: argparse.Namespace, folder: Path) -> int:
    begun_s = time.monotonic()
    prepare()
    small = FixtureStudy(folder, SEARCH_TRIALS, samples=SAMPLES, epochs=EPOCHS)
    in_fork(small.write_inputs)
    stories: list[Story] = []
    memory_bytes: list[int] = []
    rng = random.Random(options.seed)
    try:
        while not stories or time.monotonic() - begun_s < options.minutes * 60:
            stories.append(Cycle(small, f"cycle_{len(stories) + 1:03d}", rng).run())
            memory_bytes.append(psutil.Process().memory_info().rss)
            print(story_line(stories[-1]), flush=True)
        done = EQUAL
    except KeyboardInterrupt:
        print("stopped; so far:")
        done = STOPPED
    print("", summary(stories, memory_bytes), f"{time.monotonic() - begun_s:.0f} s in all", sep="\n")
    return DIFFERENT if any(story.problems for story in stories) else done


if __name__ == "__main__":
    sys.exit(main())
