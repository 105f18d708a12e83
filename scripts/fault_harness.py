#!/usr/bin/env python3
"""Make file-system calls of a study fail, and check that nothing is lost and that the error message names the cause.

A small but real study (two presets and an open search on the CPU) runs once without faults, as the reference. The
harness counts all calls that create, write, flush, rename, truncate or remove a file of this study, including SQLite's
calls. Then the study runs many times, and each time one of these calls fails: the disk is full and stays full, an I/O
error occurs, or the process is killed during the call. The command must print an error that names path and reason,
`status` and `export` must work, and `resume` must complete the study. The complete study must equal the reference study
bit for bit: trials, parameters, metrics, checkpoints, TensorBoard curves, results. Times, memory and process ids are
not compared.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from faults.calls import Call, Fault, Injection, Operation, plan
from faults.campaign import Campaign, FaultyStudy
from faults.child import restart_preloaded
from harness.fixture_study import FixtureStudy
from harness.forks import in_fork, in_forks, prepare
from harness.run import DIFFERENT, EQUAL, option_parser, run_harness
from harness.snapshot import Snapshot

EXAMPLES = """\
examples:
  python scripts/fault_harness.py --jobs 2                             calls in checkpoints and `tell`, 200 others
  python scripts/fault_harness.py --faults 20 --only-sampled --seed 7  a short run
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the harness; return the exit code."""
    return run_harness(_options(argv), "fault_harness_", _inject, prepare=restart_preloaded)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--faults", metavar="N", type=int, default=200, help="number of randomly chosen faults (default: %(default)s)"
    )
    parser.add_argument(
        "--only-sampled",
        action="store_true",
        help="inject only the randomly chosen faults, not all faults in checkpoints and in `tell` (reports of results)",
    )
    parser.add_argument(
        "--trials", metavar="N", type=int, default=2, help="number of search trials per study (default: %(default)s)"
    )
    parser.add_argument("--jobs", metavar="J", type=int, default=1, help="parallel studies (default: %(default)s)")
    return parser.parse_args(argv)


def _inject(options: argparse.Namespace, folder: Path) -> int:
    prepare()
    small = FixtureStudy(folder, options.trials)
    in_fork(small.write_inputs)
    campaign = Campaign(small)
    reference, calls = campaign.run_reference()
    rng = random.Random(options.seed)
    injections = plan(calls, rng, options.faults, all_operations=not options.only_sampled)
    print(f"reference study: {small.trials} trials, {len(calls)} calls; {len(injections)} faults to inject", flush=True)
    numbered = list(enumerate(injections, start=1))
    jobs = [(campaign, reference, numbered[job :: options.jobs]) for job in range(options.jobs)]
    studies = [study for done in in_forks(_run_with_faults, jobs) for study in done]
    print("", *_summary(studies, calls, reference), sep="\n")
    return DIFFERENT if any(study.problems for study in studies) else EQUAL


def _run_with_faults(
    campaign: Campaign, reference: Snapshot, numbered: Sequence[tuple[int, Injection]]
) -> list[FaultyStudy]:
    studies = []
    for number, injection in numbered:
        studies.append(campaign.run_with_fault(f"study_{number:03d}", injection, reference))
        print(studies[-1].summary(f"{injection}: {studies[-1].exit}"), flush=True)
    return studies


def _summary(studies: Sequence[FaultyStudy], calls: Sequence[Call], reference: Snapshot) -> Iterator[str]:
    """Yield the lines of the summary: calls and faults per kind of call, then the results."""
    injections = [study.injection for study in studies]
    injected = Counter((injection.call.kind, injection.fault) for injection in injections)
    kinds = Counter(call.kind for call in calls)
    width = max(len(kind) for kind in kinds)
    yield " ".join([f"{'call':{width}}", "  calls", *(f"{fault:>9}" for fault in Fault)])
    for kind in sorted(kinds, key=lambda kind: (kind.split(" ")[1:], kind)):
        counts = (f"{injected[kind, fault] or '':>9}" for fault in Fault)
        yield " ".join([f"{kind:{width}}", f"{kinds[kind]:7}", *counts])
    yield ""
    around = Counter(injection.call.operation[0] for injection in injections if injection.call.operation is not None)
    yield from (f"faults in operation {operation}: {around[operation]}" for operation in Operation)
    exits = Counter(study.exit for study in studies)
    yield f"{len(studies)} faults; commands: {', '.join(f'{count} x {name}' for name, count in sorted(exits.items()))}"
    complete = sum(not study.problems for study in studies)
    yield f"studies that were complete and equal to the reference afterwards: {complete} of {len(studies)}"
    yield f"  compared bit for bit: {len(reference)} items per study"


if __name__ == "__main__":
    sys.exit(main())
