#!/usr/bin/env python3
"""Inject faults into small studies in a loop, poll the studies continuously, and check the invariants of each study.

Each cycle runs a small but real study (two presets and an open search on the CPU) with two workers. At random moments
the harness kills workers and commands, one at a time or all at once, pauses or interrupts them, or requests a stop. It
resumes the study, alternately with `run` and `resume`, until the study is complete. Meanwhile it polls the dashboard
of the study, kills the dashboard from time to time, and runs `export` in a loop. No poll may fail or contradict the
previous poll. At the end every planned trial must exist once, no temporary file may remain, and every trial must give
the same bits when it is retrained without faults.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from harness.fixture_study import FixtureStudy
from harness.forks import in_fork, prepare
from harness.run import DIFFERENT, EQUAL, STOPPED, option_parser, run_harness
from soak.cycle import Cycle, SoakedStudy

EXAMPLES = """\
examples:
  python scripts/soak.py --minutes 30
  python scripts/soak.py --minutes 0.5 --seed 7   a single study

The seed determines the faults and their times. The progress of the study at these times depends on the machine.
"""
# Large enough that faults occur in the middle of trials.
SAMPLES, EPOCHS = 600, 12
_MIB = 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the harness; return the exit code."""
    return run_harness(_options(argv), "soak_", _soak, prepare=lambda: prepare("jsonschema"))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--minutes",
        metavar="M",
        type=float,
        default=30.0,
        help="start no new study after this many minutes; at least one study is run (default: %(default)s)",
    )
    parser.add_argument(
        "--trials", metavar="N", type=int, default=12, help="number of search trials per study (default: %(default)s)"
    )
    return parser.parse_args(argv)


def _soak(options: argparse.Namespace, folder: Path) -> int:
    started_s = time.monotonic()
    small = FixtureStudy(folder, options.trials, samples=SAMPLES, epochs=EPOCHS)
    in_fork(small.write_inputs)
    studies: list[SoakedStudy] = []
    memory_bytes: list[int] = []
    rng = random.Random(options.seed)
    done = EQUAL
    try:
        while not studies or time.monotonic() - started_s < options.minutes * 60:
            studies.append(Cycle(small, f"cycle_{len(studies) + 1:03d}", rng).run())
            memory_bytes.append(psutil.Process().memory_info().rss)
            print(_study_line(studies[-1]), flush=True)
    except KeyboardInterrupt:
        print("stopped; results so far:")
        done = STOPPED
    print("", *_summary(studies, memory_bytes), sep="\n")
    return DIFFERENT if any(study.problems for study in studies) else done


def _study_line(study: SoakedStudy) -> str:
    """Format a summary of a study: one line, followed by a line for each problem."""
    faults = _listed(study.faults) or "no faults"
    return study.summary(f"{faults}; {study.commands} commands, {study.seconds:.0f} s")


def _summary(studies: Sequence[SoakedStudy], memory_bytes: Sequence[int]) -> Iterator[str]:
    """Yield the lines of the summary.

    Args:
        studies: All studies.
        memory_bytes: Memory of this process after each study.
    """
    faults, polls = Counter[str](), Counter[str]()
    for study in studies:
        faults += study.faults
        polls += study.polls.counts
    names = ("commands", "trials", "epochs", "retrained", "equal", "not_retrained")
    total = {name: sum(getattr(study, name) for study in studies) for name in names}
    yield f"cycles: {len(studies)}, " + ", ".join(f"{name}: {total[name]}" for name in names[:3])
    yield f"injected faults: {_listed(faults)}"
    yield f"polls: {_listed(polls)}"
    yield f"retrained trials with equal results: {total['equal']} of {total['retrained']}"
    if total["not_retrained"]:
        yield f"trials not retrained, because crashes had changed how they were trained: {total['not_retrained']}"
    if memory_bytes:
        folders = _size_range([study.folder_bytes for study in studies])
        yield f"MiB of a study's folder: {folders}; MiB of this process's memory: {_size_range(memory_bytes)}"
    yield f"broken invariants: {sum(len(study.problems) for study in studies)}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items()) if count)


def _size_range(sizes: Sequence[int]) -> str:
    first, largest, last = (size / _MIB for size in (sizes[0], max(sizes), sizes[-1]))
    return f"first {first:.1f}, maximum {largest:.1f}, last {last:.1f}"


if __name__ == "__main__":
    sys.exit(main())
