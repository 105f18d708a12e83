#!/usr/bin/env python3
"""Disturb small studies in a loop, poll them all the while, and check what must hold of every study.

Each cycle is a small but real study (two presets and an open search on the CPU) that two workers train. Workers and
commands are killed, one by one and all at once, interrupted, paused and asked to stop at random moments, and the study
goes on, by turns with `run` and `resume`, until it is complete. Meanwhile its dashboard is polled, and killed now and
then, and `export` runs in a loop. No poll may fail or contradict the one before. In the end every planned trial is
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
from harness.forks import in_fork, prepare
from harness.run import DIFFERENT, EQUAL, STOPPED, option_parser, run_harness
from soak.cycle import Cycle, SoakedStudy
from soak.summary import study_line, summary

EXAMPLES = """\
examples:
  python scripts/soak.py --minutes 30
  python scripts/soak.py --minutes 0.5 --seed 7   a single study

The seed decides how a study is disturbed, and after how many seconds; its progress by then depends on the machine.

exit code: 0 all invariants hold, 1 one is broken (the folder of its study is kept), 2 the soak could not do its work,
130 it was stopped
"""
SEARCH_TRIALS = 12
# Enough for a trial to be disturbed in the middle.
SAMPLES, EPOCHS = 600, 12


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run_harness(_options(argv), "soak_", _soak, prepare=lambda: prepare("jsonschema"))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--minutes",
        metavar="M",
        type=float,
        default=30.0,
        help="start no further study after this many; at least one is started (default: %(default)s)",
    )
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="of all randomness (default: %(default)s)")
    return parser.parse_args(argv)


def _soak(options: argparse.Namespace, folder: Path) -> int:
    begun_s = time.monotonic()
    small = FixtureStudy(folder, SEARCH_TRIALS, samples=SAMPLES, epochs=EPOCHS)
    in_fork(small.write_inputs)
    studies: list[SoakedStudy] = []
    memory_bytes: list[int] = []
    rng = random.Random(options.seed)
    done = EQUAL
    try:
        while not studies or time.monotonic() - begun_s < options.minutes * 60:
            studies.append(Cycle(small, f"cycle_{len(studies) + 1:03d}", rng).run())
            memory_bytes.append(psutil.Process().memory_info().rss)
            print(study_line(studies[-1]), flush=True)
    except KeyboardInterrupt:
        print("stopped; so far:")
        done = STOPPED
    print("", *summary(studies, memory_bytes), f"{time.monotonic() - begun_s:.0f} s in all", sep="\n")
    return DIFFERENT if any(study.problems for study in studies) else done


if __name__ == "__main__":
    sys.exit(main())
