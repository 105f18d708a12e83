#!/usr/bin/env python3
"""Damage a study at random, and show that every damage is named and that no other trial is lost.

A small but real study is made once: completed, pruned, failed, interrupted and waiting trials, and one of plain Optuna.
In each of many copies one thing is damaged: a value, row or table of the database, or a file of the study or dataset
gets another type or other bytes, is deleted or is replaced by a special file. All commands that read a study must exit
with 0, 1 or 2 and without an unexpected error; one must name the damage, unless it has no effect; `resume` must train
the pending trials or say why not. No other trial may change.
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

from damages.case import Case, check, outputs_of, unknown_errors
from damages.kinds import damage
from damages.study import STUDY, give, make_study
from harness.fixture_study import OUTPUT
from harness.forks import in_fork, in_forks, prepare
from harness.run import DIFFERENT, EQUAL, HarnessError, option_parser, run_harness

EXAMPLES = """\
examples:
  python scripts/damage_harness.py --damages 1000 --jobs 2
  python scripts/damage_harness.py --only 17 --folder damaged   the folder keeps the damaged study
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = option_parser(__doc__, EXAMPLES)
    parser.add_argument("--damages", metavar="N", type=int, default=200, help="how many damages (default: %(default)s)")
    parser.add_argument("--only", metavar="NUMBER", type=int, nargs="+", help="repeat only these damages")
    parser.add_argument("--jobs", metavar="J", type=int, default=1, help="studies in parallel (default: %(default)s)")
    return run_harness(parser.parse_args(argv), "damage_harness_", _damage)


def _damage(options: argparse.Namespace, folder: Path) -> int:
    prepare("studies.dashboard.view", "studies.report.page", "tuner.inference.reader", "tuner.__main__")
    numbers = options.only or range(1, options.damages + 1)
    shares = [(options.seed, folder / f"job_{job}", numbers[job :: options.jobs]) for job in range(options.jobs)]
    cases = [case for done in in_forks(_cases, shares) for case in done]
    print("", *_summary(cases), sep="\n")
    return DIFFERENT if any(case.problems for case in cases) else EQUAL


def _cases(seed: int, folder: Path, numbers: Sequence[int]) -> list[Case]:
    # Always in the same folder: a study knows the path of its dataset.
    work, original = folder / "work", folder / "original"
    make_study(work)
    for module in in_fork(_modules, work / STUDY):  # else each fork would import them
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()  # else each fork would copy nearly all memory
    shutil.copytree(work, original)
    reference = outputs_of(work)
    if problems := unknown_errors(reference):
        raise HarnessError("\n".join(problems))
    cases = []
    for number in numbers:
        shutil.rmtree(work)
        shutil.copytree(original, work)
        cases.append(case := Case(number, in_fork(damage, Random(f"{seed}/{number}"), work)))
        check(case, work, reference)
        said = f"{_end(case)} {case.said}" if case.said else _end(case)
        print(f"{number}: {case.damage.what}, {case.damage.how} ({case.damage.where}): {said}")
        print(*(f"  {problem}\n" for problem in case.problems), sep="", end="", flush=True)
    return cases


def _modules(folder: Path) -> list[str]:
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for command in ("status", "report", "best"):
            give([command, "--output-dir", OUTPUT])
    return list(sys.modules)


def _summary(cases: Sequence[Case]) -> Iterator[str]:
    """Yield the lines of the summary: what was damaged, and how."""
    for title, kinds in (("what", [case.damage.what for case in cases]), ("how", [case.damage.how for case in cases])):
        yield f"{title:44} damages  named  healed  failures"
        for kind in sorted(set(kinds)):
            ends = Counter(_end(case) for case, one in zip(cases, kinds, strict=True) if one == kind)
            yield f"{kind:44} {ends.total():7} {ends['named']:6} {ends['healed']:7} {ends['failure']:9}"
        yield ""
    ends = Counter(map(_end, cases))
    yield f"{len(cases)} damages: {ends['named']} named, {ends['healed']} silently healed, {ends['failure']} failures"


def _end(case: Case) -> str:
    return "failure" if case.problems else "named" if case.said else "healed"


if __name__ == "__main__":
    sys.exit(main())
