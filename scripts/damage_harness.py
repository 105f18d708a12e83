#!/usr/bin/env python3
"""Damage copies of a study at random, and check that each damage is reported and that no undamaged trial is lost.

The harness creates a small but real study once, with completed, pruned, failed, interrupted and waiting trials and a
trial that was added with Optuna alone. In each of many copies, the harness damages one item: a value, row or table of
the database, or a file of the study or dataset. The item gets another type or other bytes, is deleted, or is replaced
with a special file. All commands that read a study must exit with 0, 1 or 2 and without an unexpected error. At least
one command must report the damage unless the damage is harmless. `resume` must train the pending trials or print why
it does not. Undamaged trials must not change.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from damages.case import Case, check, outputs_of, unexpected_errors
from damages.kinds import damage
from damages.study import STUDY, make_study, run_main
from harness.fixture_study import OUTPUT
from harness.forks import in_fork, in_forks, prepare
from harness.run import DIFFERENT, EQUAL, HarnessError, option_parser, run_harness

EXAMPLES = """\
examples:
  python scripts/damage_harness.py --damages 1000 --jobs 2
  python scripts/damage_harness.py --only 17 --folder damaged   keep the damaged study in this folder
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the harness; return the exit code."""
    parser = option_parser(__doc__, EXAMPLES)
    parser.add_argument("--damages", metavar="N", type=int, default=200, help="number of copies (default: %(default)s)")
    parser.add_argument(
        "--only", metavar="NUMBER", type=int, nargs="+", help="repeat only the damages with these numbers"
    )
    parser.add_argument("--jobs", metavar="J", type=int, default=1, help="parallel processes (default: %(default)s)")
    return run_harness(parser.parse_args(argv), "damage_harness_", _damage)


def _damage(options: argparse.Namespace, folder: Path) -> int:
    prepare("studies.dashboard.view", "studies.report.page", "tuner.inference.checkpoint_reader", "tuner.__main__")
    numbers = options.only or range(1, options.damages + 1)
    jobs = [(options.seed, folder / f"job_{job}", numbers[job :: options.jobs]) for job in range(options.jobs)]
    cases = [case for done in in_forks(_cases, jobs) for case in done]
    print("", *_summary(cases), sep="\n")
    return DIFFERENT if any(case.problems for case in cases) else EQUAL


def _cases(seed: int, folder: Path, numbers: Sequence[int]) -> list[Case]:
    # All copies use the same folder, because the study stores the path of its dataset.
    work, original = folder / "work", folder / "original"
    make_study(work)
    for module in in_fork(_modules, work / STUDY):  # imported once here instead of in each fork
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()  # otherwise the garbage collector makes each fork copy nearly all memory
    shutil.copytree(work, original)
    reference = outputs_of(work)
    if problems := unexpected_errors(reference):
        raise HarnessError("\n".join(["commands failed on the undamaged study:", *problems]))
    cases = []
    for number in numbers:
        shutil.rmtree(work)
        shutil.copytree(original, work)
        cases.append(case := Case(number, in_fork(damage, Random(f"{seed}/{number}"), work)))
        check(case, work, reference)
        result = f"{_result(case)} {case.report}" if case.report else _result(case)
        print(f"{number}: {case.damage.item}, {case.damage.kind} ({case.damage.location}): {result}")
        print(*(f"  {problem}\n" for problem in case.problems), sep="", end="", flush=True)
    return cases


def _modules(folder: Path) -> list[str]:
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for command in ("status", "report", "best"):
            run_main([command, "--output-dir", OUTPUT])
    return list(sys.modules)


def _summary(cases: Sequence[Case]) -> Iterator[str]:
    """Yield the lines of the summary: a table per damaged item, a table per kind of damage, and the totals."""
    items, kinds = [case.damage.item for case in cases], [case.damage.kind for case in cases]
    for title, values in (("damaged item", items), ("kind of damage", kinds)):
        yield f"{title:44} damages  reported  harmless  failures"
        for value in sorted(set(values)):
            counts = Counter(_result(case) for case, one in zip(cases, values, strict=True) if one == value)
            yield f"{value:44} {counts.total():7} {counts['reported']:9} {counts['harmless']:9} {counts['failure']:9}"
        yield ""
    sums = Counter(map(_result, cases))
    yield f"{len(cases)} damages: {sums['reported']} reported, {sums['harmless']} harmless, {sums['failure']} failures"


def _result(case: Case) -> str:
    return "failure" if case.problems else "reported" if case.report else "harmless"


if __name__ == "__main__":
    sys.exit(main())
