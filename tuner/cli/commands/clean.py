"""Delete unneeded checkpoints and TensorBoard files.

Examples:
  khmer-tuner clean --dry-run
  khmer-tuner clean --keep 3

`clean` deletes the checkpoints of search trials that are not among the best,
and the TensorBoard files of pruned trials. Presets and the best trial keep
their checkpoints. `clean` can be used while workers are training.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from tuner.cli.errors import SUCCESS
from tuner.cli.existing_study import load
from tuner.cli.options import MOST_TRIALS, Command, add_flag, add_option, add_study_options, whole_number
from tuner.cli.output import print_json, print_lines


def _add_options(parser: argparse.ArgumentParser) -> None:
    keep = "number of best search trials that keep their checkpoints (default: %(default)s, as in training)"
    add_option(parser, "--keep", "N", whole_number(1, MOST_TRIALS), keep, default=10)
    add_flag(parser, "--dry-run", "show what would be deleted; delete nothing")
    add_study_options(parser, json=True)


def prepare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Find the files to delete, in order of trial number; none of them is needed to retry a failed trial."""
    from studies import WhyEnded, ended_records, records_beyond_retention

    study, folder = load(options)
    outcomes = [(record, record.outcome) for record in ended_records(study)]
    pruned = [record for record, outcome in outcomes if outcome and outcome.why_ended == WhyEnded.PRUNED]
    found = []
    for what, pattern, records in (
        ("checkpoints", "*.pt", records_beyond_retention(study, options.keep)),
        ("tensorboard", "events.out.tfevents.*", pruned),
    ):
        for record in records:
            path = folder.trial_dir(record.experiment_name) / what
            sizes: dict[str, int] = {}
            for file in sorted(path.glob(pattern)) if folder.contains(path) else ():  # never follow a link elsewhere
                with contextlib.suppress(FileNotFoundError):  # a worker has just removed the file
                    sizes[str(file)] = file.lstat().st_size
            if sizes:
                item = {"number": record.number, "name": record.experiment_name, "what": what}
                found.append(item | {"size": sum(sizes.values()), "files": list(sizes)})
    return sorted(found, key=lambda item: (item["number"], item["what"]))


def run(options: argparse.Namespace, found: list[dict[str, Any]]) -> int:
    """Delete the files unless this is a dry run, and print their number and size per trial."""
    from rich.filesize import decimal

    from tuner.display.terminal import plain_table

    for file in [] if options.dry_run else [file for item in found for file in item["files"]]:
        Path(file).unlink(missing_ok=True)  # a worker may have just removed the file
    size, table = sum(item["size"] for item in found), plain_table("trial", "what", "files", "size", right=(2, 3))
    if options.json:
        print_json({"deleted": not options.dry_run, "size": size, "trials": found})
        return SUCCESS
    for item in found:
        table.add_row(item["name"], item["what"], f"{len(item['files'])}", decimal(item["size"]))
    done = "dry run: nothing was deleted" if options.dry_run else "deleted"
    print_lines([table, "", f"total: {decimal(size)}; {done}"] if found else ["nothing to delete"])
    return SUCCESS


COMMAND = Command(__name__, __doc__, _add_options, prepare, run)
