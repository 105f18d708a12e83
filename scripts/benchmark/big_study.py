"""Large studies, created by copying the trials of a small study that the program has run.

A copied trial has all database rows and files that the program writes for a trial, except checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from harness.processes import command, seconds_of
from harness.run import HarnessError

from benchmark.plan import Plan
from search_spaces.diagnostics.names import search_trial_name
from studies import OutputFolder

OUTPUT = "out"
_SEARCH_TRIALS, _QUICK_SEARCH_TRIALS = 12, 1
_EPOCHS, _QUICK_EPOCHS, _PATIENCE = 20, 4, 8
_SAMPLES, _TEST_SAMPLES = 40, 10
# Very narrow networks, for short epochs, under the names of the built-in models, which the built-in search space uses.
_NETWORK = {"stem_channels": [4, 8], "stage_channels": [8], "blocks_per_stage": 0, "width": 16, "context_layers": 0}
_DECODERS = {"small": "attention", "medium": "attention", "large": "attention", "ctc": "ctc"}

# Optuna's tables with a `trial_id` column.
_TRIAL_TABLES = (
    "trials",
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)
_NOTE_KEY = re.compile(r"dashboard:(\d+):(.*)")


def run_small_study(plan: Plan) -> Path:
    """Run a small study of presets and search trials unless its folder exists; return the folder."""
    work_dir = plan.folder / "small_study"
    if work_dir.exists():
        return work_dir
    plan.log("running the small study whose trials will be copied")
    epochs = _QUICK_EPOCHS if plan.quick else _EPOCHS
    size = ["--samples", str(_SAMPLES), "--test-samples", str(_TEST_SAMPLES)]
    seconds_of(command("data", *size, "--out", "data"), work_dir, plan.threads)
    models = {name: _NETWORK | {"decoder": decoder} for name, decoder in _DECODERS.items()}
    (work_dir / "models.yaml").write_text(yaml.safe_dump({"models": models}), encoding="utf-8")
    (work_dir / "experiments.yaml").write_text(yaml.safe_dump({"experiments": _presets(epochs)}), encoding="utf-8")
    (work_dir / "space.yaml").write_text(_space(epochs), encoding="utf-8")
    trials = _QUICK_SEARCH_TRIALS if plan.quick else _SEARCH_TRIALS
    arguments = ["run", "--config", "experiments.yaml", "--space", "space.yaml", "--trials", str(trials)]
    seconds_of(command(*arguments, "--output-dir", OUTPUT, "--results-file", "results.json"), work_dir, plan.threads)
    return work_dir


def grow_study(small: Path, work_dir: Path, *, finished: int, waiting: int, threads: int) -> Path:
    """Create a study by copying the search trials of a small study, and enqueue search trials in the new study.

    Args:
        small: Folder of the small study, returned by `run_small_study`.
        work_dir: Folder of the new study.
        finished: Number of finished trials of the new study, at least the number of trials of the small study.
        waiting: Number of search trials to enqueue.
        threads: Number of PyTorch threads.

    Returns:
        The output folder of the new study.
    """
    output = work_dir / OUTPUT
    shutil.copytree(small / OUTPUT, output)
    with contextlib.closing(sqlite3.connect(output / "study.db")) as database, database:
        database.execute("PRAGMA synchronous = OFF")  # nothing reads the database before it is complete
        existing: int = database.execute("SELECT count(*) FROM trials").fetchone()[0]
        if finished < existing:
            raise HarnessError(f"found {existing} trials in the small study; expected {finished} at most")
        _copy_trials(database, OutputFolder(output), existing, finished - existing)
    # Enqueued with the real command, which decides how many search trials it creates at once.
    seconds_of(command("enqueue", "--trials", str(waiting), "--output-dir", OUTPUT), work_dir, threads)
    return output


def _presets(epochs: int) -> dict[str, Any]:
    shared = {"device": "cpu", "batch_size": 16, "num_epochs": epochs, "learning_rate": 0.003}
    preset = {
        "model": {"name": "small", "config_path": "models.yaml"},
        "data": {"metadata_path": "data/metadata.yaml"},
        "early_stopping": {"patience": _PATIENCE},
    }
    rates = {"preset_slow": 0.001, "preset_middle": 0.003, "preset_fast": 0.01}
    return {name: preset | {"training": shared | {"learning_rate": rate}} for name, rate in rates.items()}


def _space(epochs: int) -> str:
    """Return the built-in search space as YAML, with `num_epochs` set to the value of the presets."""
    from search_spaces import resolve_config_path

    text = resolve_config_path("config/search_space.yaml").read_text(encoding="utf-8")
    return re.sub(r"num_epochs: \d+", f"num_epochs: {epochs}", text)


def _copy_trials(database: sqlite3.Connection, folder: OutputFolder, existing: int, count: int) -> None:
    """Add `count` trials to a study that has `existing` trials, by copying its search trials in turn."""
    kind = (
        "SELECT trial_id FROM trial_user_attributes WHERE key = 'kind' AND value_json = '\"search\"' ORDER BY trial_id"
    )
    originals = [row[0] for row in database.execute(kind)]
    first: int = database.execute("SELECT max(trial_id) FROM trials").fetchone()[0] + 1
    copies = [(originals[index % len(originals)], first + index) for index in range(count)]
    numbers = dict(database.execute("SELECT trial_id, number FROM trials"))
    for index, (old, new) in enumerate(copies):
        numbers[new] = existing + index
        _link_files(
            folder.trial_dir(search_trial_name(numbers[old])), folder.trial_dir(search_trial_name(existing + index))
        )
    for table in _TRIAL_TABLES:
        _copy_rows(database, table, copies, numbers)
    _copy_notes(database, copies)
    budget = "UPDATE study_user_attributes SET value_json = value_json + ? WHERE key = 'search_trials'"
    database.execute(budget, (count,))


def _copy_rows(
    database: sqlite3.Connection, table: str, copies: Sequence[tuple[int, int]], numbers: dict[int, int]
) -> None:
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    if table != "trials":
        columns = columns[1:]  # without the primary key, which SQLite assigns
    id_column = columns.index("trial_id")
    number_column = columns.index("number") if table == "trials" else None
    select = f"SELECT {', '.join(columns)} FROM {table} WHERE trial_id = ?"
    rows = {old: database.execute(select, (old,)).fetchall() for old in {old for old, _ in copies}}

    def copied() -> Iterator[list[Any]]:
        for old, new in copies:
            for row in map(list, rows[old]):
                row[id_column] = new
                if number_column is not None:
                    row[number_column] = numbers[new]
                yield row

    marks = ", ".join("?" * len(columns))
    database.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", copied())


def _copy_notes(database: sqlite3.Connection, copies: Sequence[tuple[int, int]]) -> None:
    """Copy the dashboard note of each copied trial."""
    notes: dict[int, list[tuple[int, str, str]]] = {}
    for study, key, value in database.execute("SELECT study_id, key, value_json FROM study_system_attributes"):
        if found := _NOTE_KEY.fullmatch(key):
            notes.setdefault(int(found[1]), []).append((study, found[2], value))
    database.executemany(
        "INSERT INTO study_system_attributes (study_id, key, value_json) VALUES (?, ?, ?)",
        ((study, f"dashboard:{new}:{part}", value) for old, new in copies for study, part, value in notes.get(old, [])),
    )


def _link_files(old: Path, new: Path) -> None:
    """Fill the folder of a copied trial with hard links to the original files, so that copies need no disk space.

    Checkpoints are left out, because the program keeps only the checkpoints of the best trials.
    """
    shutil.copytree(old, new, copy_function=os.link, ignore=shutil.ignore_patterns("*.pt"))
