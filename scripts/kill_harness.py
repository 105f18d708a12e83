#!/usr/bin/env python3
"""Kill a study with SIGKILL again and again, and show that it equals one that was never disturbed.

A small but real study (two presets and an open search on the CPU) is run once undisturbed. Then its processes are
killed, at random moments and before and after everything that they write, and started again, by turns with `run` and
`resume`, until the study is complete. It must equal the undisturbed one bit for bit: trials, parameters, metrics,
checkpoints, TensorBoard curves, results. Times, memory and process ids are left out. The study is kept in SQLite, or in
PostgreSQL on a server of its own, whose password must then be in no file and no output.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from harness.databases import POSTGRESQL_DRIVERS, Databases, passwords_found
from harness.fixture_study import FixtureStudy
from harness.forks import in_fork, prepare
from harness.kill_points import KILL_POINTS, KillPoint, Storage, kill_points_of, points
from harness.run import DIFFERENT, EQUAL, HarnessError, option_parser, run_harness
from kills.campaign import Campaign, KilledStudy
from kills.schedule import RANDOM_MOMENT, SEVERAL_DEATHS, Reference, Schedule

EXAMPLES = """\
examples:
  python scripts/kill_harness.py                                200 kills in four minutes
  python scripts/kill_harness.py --kills 20 --seed 7 --trials 4
  python scripts/kill_harness.py --kills 20 --fresh             each process a new interpreter
  python scripts/kill_harness.py --kills 20 --postgresql        a take-over waits for three seconds there
  python scripts/kill_harness.py --kills 10 --at "after tell"   nowhere else

The seed decides which process dies where, and after how many seconds; its progress by then depends on the machine.
"""
# Enough kills for each boundary to have its turn; then each must have had it.
EVERY_BOUNDARY = 200
_NAME_WIDTH = max(len(kill_point.name) for kill_point in KILL_POINTS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run_harness(_options(argv), "kill_harness_", _kill)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, EXAMPLES)
    parser.add_argument("--kills", metavar="K", type=int, default=200, help="kills in all (default: %(default)s)")
    parser.add_argument(
        "--trials", metavar="N", type=int, default=12, help="search trials of the study (default: %(default)s)"
    )
    parser.add_argument(
        "--sampler", choices=("tpe", "random", "gp"), default="tpe", help="the study's sampler (default: %(default)s)"
    )
    parser.add_argument(
        "--postgresql",
        action="store_true",
        help="keep each study in a database of its own on a PostgreSQL server, which is started for that",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start a new interpreter for each process, with another seed of string hashes; the default forks one "
        "that has imported everything, which saves seconds a kill",
    )
    parser.add_argument(
        "--at",
        metavar="POINT",
        nargs="+",
        default=[],
        choices=points(),
        help="kill at these points only, as the table names them with 'before' or 'after' in front; a take-over is "
        "possible only after a kill at another one",
    )
    return parser.parse_args(argv)


def _kill(options: argparse.Namespace, folder: Path) -> int:
    prepare(*(POSTGRESQL_DRIVERS if options.postgresql else ()))
    storage = Storage.POSTGRESQL if options.postgresql else Storage.SQLITE
    kill_points = kill_points_of(storage)
    with closing(Databases(storage)) as databases:
        studies, schedule, shown = _campaign(options, folder, databases, kill_points)
    print("", shown, sep="\n")
    found = passwords_found(folder, "\n".join([*map(str, studies), shown])) if options.postgresql else 0
    if options.postgresql:
        print(f"password found: {found} times")
    if options.kills >= EVERY_BOUNDARY and not options.at:
        _refuse_missed(schedule, kill_points)
    return DIFFERENT if found or any(study.problems for study in studies) else EQUAL


def _campaign(
    options: argparse.Namespace, folder: Path, databases: Databases, kill_points: Sequence[KillPoint]
) -> tuple[list[KilledStudy], Schedule, str]:
    """Return what came of the studies, where their processes were killed, and the summary."""
    rng = random.Random(options.seed)
    small = FixtureStudy(folder, options.trials, options.sampler)
    in_fork(small.write_inputs)
    campaign = Campaign(small, databases, rng, options.fresh)
    reference = campaign.undisturbed()
    print(f"undisturbed: {small.trials} trials, {reference.epochs} epochs, {reference.seconds:.1f} s", flush=True)
    schedule = Schedule(rng, reference, small.trials, options.at)
    studies: list[KilledStudy] = []
    while (left := options.kills - schedule.kills.total()) > 0:
        studies.append(campaign.disturbed(f"study_{len(studies) + 1:03d}", schedule, reference, left))
        print(studies[-1], flush=True)
        if not studies[-1].kills:
            raise HarnessError("a whole study passed without a kill")
    return studies, schedule, "\n".join(_summary(studies, schedule, reference, kill_points))


def _refuse_missed(schedule: Schedule, kill_points: Sequence[KillPoint]) -> None:
    due = [point for kill_point in kill_points for point in kill_point.points]
    if missed := [point for point in due if not schedule.kills[point]]:
        raise HarnessError(f"no process was killed {', '.join(missed)}")
    if schedule.most_deaths < SEVERAL_DEATHS:
        raise HarnessError(f"no epoch was killed {SEVERAL_DEATHS} times")


def _summary(
    studies: Sequence[KilledStudy], schedule: Schedule, reference: Reference, kill_points: Sequence[KillPoint]
) -> Iterator[str]:
    """Yield the lines of the summary, one of them for each of the boundaries that the studies pass."""
    kills = schedule.kills
    yield f"{'kills at':{_NAME_WIDTH}} before after"
    for kill_point in kill_points:
        cells = [
            f"{kills[f'{side} {kill_point.name}']:>{len(side)}}" if side in kill_point.sides else " " * len(side)
            for side in ("before", "after")
        ]
        yield " ".join([f"{kill_point.name:{_NAME_WIDTH}}", *cells]).rstrip()
    yield f"{RANDOM_MOMENT + 's':{_NAME_WIDTH}} {kills[RANDOM_MOMENT]:>6}"
    yield f"most kills of the same epoch: {schedule.most_deaths}"
    yield ""
    yield from _result_lines(studies, reference)


def _result_lines(studies: Sequence[KilledStudy], reference: Reference) -> Iterator[str]:
    total = {
        name: sum(getattr(study, name) for study in studies)
        for name in ("starts", "lost", "doubled", "epochs_started", "trained_again")
    }
    different = sum(bool(study.problems) for study in studies)
    first = [reference.first_epoch_s, *(wait for study in studies for wait in study.first_epoch_s)]
    resumed = [wait for study in studies for wait in study.resumed_epoch_s]
    yield f"{sum(len(study.kills) for study in studies)} kills, {total['starts']} processes, {len(studies)} studies"
    yield f"trials lost: {total['lost']}, doubled: {total['doubled']}; studies that differ: {different}"
    yield f"  compared bit for bit: {len(reference.snapshot)} items of a study"
    yield f"epochs trained again beyond the one in flight: {total['trained_again']}"
    yield f"  started: {total['epochs_started']}, needed: {reference.epochs * len(studies)}"
    yield "seconds from the start of a process to its first epoch"
    yield f"  new study:    {_spread(first)}"
    yield f"  after a kill: {_spread(resumed)}"


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"median {statistics.median(seconds):.2f}, most {max(seconds):.2f} ({len(seconds)} starts)"


if __name__ == "__main__":
    sys.exit(main())
