#!/usr/bin/env python3
"""Kill a study with SIGKILL again and again, and show that nobody can tell it from one that was never disturbed.

A small but real study (two presets and an open search on the CPU) is run once undisturbed. Then its processes are
killed, at random moments and before and after everything that they write, and started again, by turns with `run` and
`resume`, until the study is complete. It must equal the undisturbed one bit for bit: trials, parameters, metrics,
checkpoints, TensorBoard curves, results. Times, memory and process ids are left out. The study is kept in SQLite, or in
PostgreSQL on a server of its own, whose password must then be in no file and no output.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness.databases import POSTGRESQL_DRIVERS, Databases, ServerDatabases, passwords_found
from harness.fixture_study import FixtureStudy
from harness.kill_points import AFTER_TAKE_OVER, KillPoint, kill_points_of, points
from harness.processes import DIFFERENT, EQUAL, HarnessError, in_fork, prepare, run_harness
from kills.campaign import Campaign, Reference, Story
from kills.schedule import Schedule
from kills.summary import story_line, summary

EXAMPLES = """\
examples:
  python scripts/kill_harness.py                                200 kills in four minutes
  python scripts/kill_harness.py --kills 20 --seed 7 --trials 4
  python scripts/kill_harness.py --kills 20 --fresh             each process a new interpreter
  python scripts/kill_harness.py --kills 20 --postgresql        a take-over waits for three seconds there
  python scripts/kill_harness.py --kills 10 --at "after tell"   nowhere else

The seed decides which process dies where, and after how many seconds; how far it has got by then is the machine's
affair.

exit code: 0 nothing differs, 1 something does (its folders are kept), 2 the harness could not do its work,
130 it was stopped
"""
# So many kills are enough for each boundary to have its turn, and then it must have had it.
EVERY_BOUNDARY = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _options(argv)
    return run_harness(options.folder, "kill_harness_", options.seed, lambda folder: _kill(options, folder))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", metavar="K", type=int, default=200, help="kills in all (default: %(default)s)")
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="of all chance (default: %(default)s)")
    parser.add_argument(
        "--trials", metavar="N", type=int, default=12, help="search trials of the study (default: %(default)s)"
    )
    parser.add_argument(
        "--sampler", choices=("tpe", "random", "gp"), default="tpe", help="which one draws (default: %(default)s)"
    )
    parser.add_argument(
        "--postgresql",
        action="store_true",
        help="keep each study in a database of its own on a PostgreSQL server, which is started for that",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="begin a new interpreter for each process, with another seed of string hashes; the default forks one "
        "that has its imports behind it, which saves seconds a kill",
    )
    parser.add_argument(
        "--at",
        metavar="POINT",
        nargs="+",
        default=[],
        choices=points(),
        help="kill at these points only, as the table names them with 'before' or 'after' in front; a take-over comes "
        "only after a kill at another one",
    )
    parser.add_argument("--folder", metavar="DIR", help="an empty folder to work in, kept (default: a temporary one)")
    return parser.parse_args(argv)


def _kill(options: argparse.Namespace, folder: Path) -> int:
    begun_s = time.monotonic()
    prepare(*(POSTGRESQL_DRIVERS if options.postgresql else ()))
    with ServerDatabases() if options.postgresql else Databases() as databases:
        kill_points = kill_points_of(options.sampler, databases.storage)
        stories, schedule, told = _campaign(options, folder, databases, kill_points)
    print("", told, sep="\n")
    found = passwords_found(folder, "\n".join([*map(story_line, stories), told])) if options.postgresql else 0
    if options.postgresql:
        print(f"password found: {found} times")
    print(f"{time.monotonic() - begun_s:.0f} s in all")
    if options.kills >= EVERY_BOUNDARY and not options.at:
        _refuse_missed(schedule, kill_points)
    return DIFFERENT if found or any(story.problems for story in stories) else EQUAL


def _campaign(
    options: argparse.Namespace, folder: Path, databases: Databases, kill_points: Sequence[KillPoint]
) -> tuple[list[Story], Schedule, str]:
    """Return what happened to the studies, where their processes were killed, and the summary."""
    rng = random.Random(options.seed)
    small = FixtureStudy(folder, options.trials, options.sampler)
    in_fork(small.write_inputs)
    campaign = Campaign(small, databases, rng, fresh=options.fresh)
    reference = campaign.undisturbed()
    print(f"undisturbed: {small.trials} trials, {reference.epochs} epochs, {reference.seconds:.1f} s", flush=True)
    schedule = Schedule(
        rng,
        passages=reference.passages,
        trials=small.trials,
        start_s=reference.first_epoch_s,
        work_s=reference.seconds - reference.first_epoch_s,
        only=options.at,
    )
    stories = _stories(campaign, schedule, reference, options.kills)
    return stories, schedule, summary(stories, schedule.kills, reference, kill_points)


def _refuse_missed(schedule: Schedule, kill_points: Sequence[KillPoint]) -> None:
    # Whether there is an occasion for this one is chance, however many are killed; it has a test of its own.
    due = [point for kill_point in kill_points for point in kill_point.points if point != AFTER_TAKE_OVER]
    if missed := [point for point in due if not schedule.kills[point]]:
        raise HarnessError(f"no process was killed {', '.join(missed)}")


def _stories(campaign: Campaign, schedule: Schedule, reference: Reference, kills: int) -> list[Story]:
    stories: list[Story] = []
    while (left := kills - schedule.kills.total()) > 0:
        stories.append(campaign.tortured(f"study_{len(stories) + 1:03d}", schedule, reference, left))
        print(story_line(stories[-1]), flush=True)
        if not stories[-1].deaths:
            raise HarnessError("a whole study passed and nobody was killed")
    return stories


if __name__ == "__main__":
    sys.exit(main())
