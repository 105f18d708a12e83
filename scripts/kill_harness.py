#!/usr/bin/env python3
"""Kill the processes of a study with SIGKILL, and check that the study equals an uninterrupted reference study.

A small but real study (two presets and an open search on the CPU) runs once without kills, in one process, as the
reference. Then the study runs again many times, with kills: one process trains it, or with `--workers` several at the
same time; they are killed at random moments, and before and after each step that writes to a file or the database.
`run` and `resume` alternately replace each killed process until the study is complete. Each complete study must equal
the reference study bit for bit: trials, parameters, metrics, checkpoints, TensorBoard curves, results.
Times, memory and process ids are not compared. The studies are stored in SQLite, or in PostgreSQL on a new server,
whose password must not appear in any file or output.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from harness.databases import POSTGRESQL_DRIVERS, Databases, passwords_found
from harness.fixture_study import FixtureStudy
from harness.forks import in_fork, prepare
from harness.kill_points import KILL_POINTS, KillPoint, Storage, kill_points_of, points
from harness.run import DIFFERENT, EQUAL, HarnessError, option_parser, run_harness
from kills.campaign import Campaign, KilledStudy
from kills.schedule import RANDOM_MOMENT, SEVERAL_CRASHES, Reference, Schedule

EXAMPLES = """\
examples:
  python scripts/kill_harness.py                                200 kills in four minutes
  python scripts/kill_harness.py --kills 20 --seed 7 --trials 4
  python scripts/kill_harness.py --kills 20 --workers 2         two processes train each study
  python scripts/kill_harness.py --kills 20 --fresh             each process is a new interpreter
  python scripts/kill_harness.py --kills 20 --postgresql        each takeover waits for three seconds
  python scripts/kill_harness.py --kills 10 --at "after tell"   kills at this point only

The seed determines where and when processes are killed; how far a process has got by then depends on the machine.
"""
# With this number of kills or more, there must be a kill at every kill point.
EVERY_POINT = 200
_NAME_WIDTH = max(len(kill_point.name) for kill_point in KILL_POINTS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the harness; return the exit code."""
    return run_harness(_options(argv), "kill_harness_", _kill)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = option_parser(__doc__, EXAMPLES)
    parser.add_argument("--kills", metavar="K", type=int, default=200, help="number of kills (default: %(default)s)")
    parser.add_argument(
        "--trials", metavar="N", type=int, default=12, help="number of search trials per study (default: %(default)s)"
    )
    parser.add_argument(
        "--sampler",
        choices=("tpe", "random", "gp"),
        default="tpe",
        help="sampler of all studies (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        metavar="W",
        type=int,
        choices=range(1, 17),
        default=1,
        help="number of processes that train each study at the same time, except the reference study (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--parallelism",
        metavar="P",
        type=int,
        help="parallelism of the search in all studies (default: 1 for one worker, otherwise 2 x W)",
    )
    parser.add_argument(
        "--warm-start", action="store_true", help="run one more study first, from which the search of all others learns"
    )
    parser.add_argument(
        "--postgresql",
        action="store_true",
        help="store each study in a new database on a PostgreSQL server that the harness starts",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start each process as a new interpreter with another hash seed; by default, each process is forked from "
        "the harness, which has already imported all modules; forking saves some seconds per kill",
    )
    parser.add_argument(
        "--at",
        metavar="POINT",
        nargs="+",
        default=[],
        choices=points(),
        help="kill only at these points, such as 'after tell' (the output lists all steps); for a point at a takeover, "
        "add another point, because a process takes over a trial only after another process was killed",
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
    if options.kills >= EVERY_POINT and not options.at:
        _check_every_point_was_hit(schedule, kill_points)
    return DIFFERENT if found or any(study.problems for study in studies) else EQUAL


def _campaign(
    options: argparse.Namespace, folder: Path, databases: Databases, kill_points: Sequence[KillPoint]
) -> tuple[list[KilledStudy], Schedule, str]:
    """Run the studies and kill their processes; return the outcome of each study, the schedule and the summary."""
    from tuner.session.run_options import default_parallelism

    rng = random.Random(options.seed)
    parallelism = options.parallelism or default_parallelism(options.workers)
    small = FixtureStudy(folder, options.trials, options.sampler, parallelism=parallelism)
    in_fork(small.write_inputs)
    campaign = Campaign(small, databases, rng, options.fresh, options.workers)
    if options.warm_start:
        campaign.run_earlier(folder / "earlier.jsonl")
        campaign = replace(campaign, small=replace(small, warm_start="../earlier.jsonl"))
    reference = campaign.run_reference()
    print(f"reference study: {small.trials} trials, {reference.epochs} epochs, {reference.seconds:.1f} s", flush=True)
    schedule = Schedule(rng, reference, small.trials, options.at)
    studies: list[KilledStudy] = []
    while (remaining := options.kills - schedule.kills.total()) > 0:
        studies.append(campaign.run_with_kills(f"study_{len(studies) + 1:03d}", schedule, reference, remaining))
        print(studies[-1], flush=True)
        # The worker whose kill is planned may find no trial, if there are several.
        latest = studies[-options.workers :]
        if len(latest) == options.workers and not any(study.kills for study in latest):
            raise HarnessError(
                f"{studies[-1].name}: no process was killed; expected at least one kill; choose other points for --at"
            )
    return studies, schedule, "\n".join(_summary(studies, schedule, reference, kill_points))


def _check_every_point_was_hit(schedule: Schedule, kill_points: Sequence[KillPoint]) -> None:
    expected = [point for kill_point in kill_points for point in kill_point.points]
    if missed := [point for point in expected if not schedule.kills[point]]:
        raise HarnessError(f"found no kill {', '.join(missed)}; expected one at every point; use a larger --kills")
    if (most := schedule.most_crashes) < SEVERAL_CRASHES:
        raise HarnessError(
            f"no epoch was killed more than {most} times in a row; expected {SEVERAL_CRASHES}; use a larger --kills"
        )


def _summary(
    studies: Sequence[KilledStudy], schedule: Schedule, reference: Reference, kill_points: Sequence[KillPoint]
) -> Iterator[str]:
    """Yield the lines of the summary: the number of kills per kill point, then the results."""
    kills = schedule.kills
    yield f"{'kills at':{_NAME_WIDTH}} before after"
    for kill_point in kill_points:
        cells = [
            f"{kills[f'{side} {kill_point.name}']:>{len(side)}}" if side in kill_point.sides else " " * len(side)
            for side in ("before", "after")
        ]
        yield " ".join([f"{kill_point.name:{_NAME_WIDTH}}", *cells]).rstrip()
    yield f"{RANDOM_MOMENT + 's':{_NAME_WIDTH}} {kills[RANDOM_MOMENT]:>6}"
    yield f"most consecutive kills in one epoch: {schedule.most_crashes}"
    yield ""
    yield from _result_lines(studies, reference)


def _result_lines(studies: Sequence[KilledStudy], reference: Reference) -> Iterator[str]:
    total = {
        name: sum(getattr(study, name) for study in studies)
        for name in ("starts", "missing", "duplicates", "epochs_started", "overlapping_epochs", "retrained_epochs")
    }
    different = sum(bool(study.problems) for study in studies)
    first = [reference.first_epoch_s, *(wait for study in studies for wait in study.first_epoch_s)]
    resumed = [wait for study in studies for wait in study.resumed_epoch_s]
    yield f"{sum(len(study.kills) for study in studies)} kills, {total['starts']} processes, {len(studies)} studies"
    yield f"trials missing: {total['missing']}, duplicate: {total['duplicates']}; studies with problems: {different}"
    yield f"  compared bit for bit: {len(reference.snapshot)} items per study"
    yield f"finished epochs that were trained again: {total['retrained_epochs']}"
    yield f"  epochs started: {total['epochs_started']}, required: {reference.epochs * len(studies)}"
    yield f"  epochs during which another process was training, too: at least {total['overlapping_epochs']}"
    yield "seconds from the start of a process to the start of its first epoch"
    yield f"  new study:    {_spread(first)}"
    yield f"  after a kill: {_spread(resumed)}"


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    return f"median {statistics.median(seconds):.2f}, maximum {max(seconds):.2f} ({len(seconds)} starts)"


if __name__ == "__main__":
    sys.exit(main())
