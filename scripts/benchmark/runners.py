"""Trials per second without training, for increasing numbers of workers, on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from harness.postgresql import PASSWORD, PostgresServer
from harness.processes import in_subprocess
from rich.table import Table

from benchmark.light_trials import run_trials
from benchmark.plan import Figures, Plan
from studies import default_storage_url
from studies.storage.url import without_password
from tuner.display.terminal import plain_table

COUNTS, QUICK_COUNTS = (1, 2, 4, 8, 16), (1, 2)
# Number of presets, and number of search trials.
_TRIALS, _QUICK_TRIALS = 60, 5
# More workers must increase the rate by this factor to be useful.
_MIN_USEFUL_FACTOR = 1.1


def measure(plan: Plan) -> Figures:
    """Measure the trials per second for each number of workers, on databases that flush each commit to the disk."""
    figures: Figures = {"sqlite": _rates(plan, "sqlite", default_storage_url)}
    try:
        server = PostgresServer(durable=True)
    except (ImportError, RuntimeError) as error:
        return figures | {"postgresql": {"skipped": f"cannot start a PostgreSQL server: {error}"}}

    def create(work_dir: Path) -> str:
        return without_password(server.create_database(work_dir.name.replace(" ", "_")))

    with server, patch.dict(os.environ, PGPASSWORD=PASSWORD):  # the password is not in the URL, as recommended to users
        return figures | {"postgresql": _rates(plan, "postgresql", create)}


def tables(figures: Figures) -> list[Table]:
    """Return a table of the rates, and a table of the useful number of workers and the costs per trial.

    The costs are measured with the largest number of workers.
    """
    rates = plain_table(
        "workers", "SQLite trials/s", "vs. 1 worker", "PostgreSQL trials/s", "vs. 1 worker", right=(0, 1, 2, 3, 4)
    )
    for count in figures["sqlite"]:
        rates.add_row(count, *_cells(figures["sqlite"], count), *_cells(figures["postgresql"], count))
    more = plain_table(
        "database", "rate rises up to", "CPU ms/trial", "SQL/trial", "commits/trial", "connections", right=(2, 3, 4, 5)
    )
    for title, found in (("SQLite", figures["sqlite"]), ("PostgreSQL", figures["postgresql"])):
        more.add_row(title, *_facts(found))
    return [rates, more]


def stops_scaling_after(rates: dict[str, float]) -> str | None:
    """Return the number of workers beyond which the rate rises by less than 10 %; None if there is no such number."""
    counts = list(rates)
    pairs = itertools.pairwise(counts)
    return next((fewer for fewer, more in pairs if rates[more] < _MIN_USEFUL_FACTOR * rates[fewer]), None)


def _rates(plan: Plan, database: str, url_of: Callable[[Path], str]) -> Figures:
    """Measure the rate of each number of workers; `url_of` returns the URL of a new database for a study's folder."""
    figures = {}
    for count in QUICK_COUNTS if plan.quick else COUNTS:
        work_dir = plan.folder / f"{database} {count} runners"
        figures[str(count)] = _run(plan, count, work_dir, url_of(work_dir))
    return figures


def _run(plan: Plan, count: int, work_dir: Path, url: str) -> Figures:
    plan.log(work_dir.name)
    trials = _QUICK_TRIALS if plan.quick else _TRIALS
    arguments = {"output_dir": str(work_dir), "url": url, "workers": count, "presets": trials, "searches": trials}
    found = in_subprocess(run_trials, plan.folder, plan.threads, **arguments)
    shutil.rmtree(work_dir)
    return {
        "trials": found["trials"],
        "seconds": found["seconds"],
        "trials_per_second": found["trials"] / found["seconds"],
        "statements_per_trial": found["statements"] / found["trials"],
        "commits_per_trial": found["commits"] / found["trials"],
        "cpu_seconds_per_trial": found["cpu_seconds"] / found["trials"],
        "connections_per_worker_at_most": found["connections"],
    }


def _cells(found: Figures, count: str) -> tuple[str, str]:
    if "skipped" in found:
        return "skipped", ""
    one = next(iter(found.values()))["trials_per_second"]
    rate = found[count]["trials_per_second"]
    return f"{rate:.1f}", f"{rate / one:.2f}"


def _facts(found: Figures) -> tuple[str, ...]:
    if "skipped" in found:
        return (found["skipped"],)
    limit = stops_scaling_after({count: point["trials_per_second"] for count, point in found.items()})
    *_, (most, last) = found.items()
    rises = f"{limit} worker{'s' if limit != '1' else ''}" if limit else f"{most} workers at least"
    connections = [point["connections_per_worker_at_most"] for point in found.values()]
    return (
        rises,
        f"{1000 * last['cpu_seconds_per_trial']:.0f}",
        f"{last['statements_per_trial']:.0f}",
        f"{last['commits_per_trial']:.0f}",
        "-" if None in connections else str(max(connections)),
    )
