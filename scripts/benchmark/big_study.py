"""Studies of many trials: a small one that the program itself has trained, its trials copied many times over.

So whatever the program writes beside a trial is there, in the database and in the folders, as it writes it.
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
_SEARCH_TRIALS, _QUICK_SEARCH_TRIALS = 12, 3
_EPOCHS, _PATIENCE = 20, 8
_SAMPLES, _TEST_SAMPLES = 40, 10
# Names of the shipped models, so that the shipped search space holds them; so narrow that an epoch takes no time.
_NETWORK = {"stem_channels": [4, 8], "stage_channels": [8], "blocks_per_stage": 0, "width": 16, "context_layers": 0}
_DECODERS = {"small": "attention", "medium": "attention", "large": "attention", "ctc": "ctc"}

# What Optuna keeps of a trial.
_TRIAL_TABLES = (
    "trials",
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)
_NOTE_KEY = re.compile(r"dashboard:(\d+):(.*)")


def train_small_study(plan: Plan) -> Path:
    """Let the program train a study of presets and search trials, once; return the folder that holds it."""
    place = plan.folder / "small_study"
    if place.exists():
        return place
    plan.say("a small study, whose trials are copied")
    size = ["--samples", str(_SAMPLES), "--test-samples", str(_TEST_SAMPLES)]
    seconds_of(command("data", *size, "--out", "data"), place, plan.threads)
    models = {name: _NETWORK | {"decoder": decoder} for name, decoder in _DECODERS.items()}
    (place / "models.yaml").write_text(yaml.safe_dump({"models": models}), encoding="utf-8")
    (place / "experiments.yaml").write_text(yaml.safe_dump({"experiments": _presets()}), encoding="utf-8")
    (place / "space.yaml").write_text(_space(), encoding="utf-8")
    trials = _QUICK_SEARCH_TRIALS if plan.quick else _SEARCH_TRIALS
    words = ["run", "--config", "experiments.yaml", "--space", "space.yaml", "--trials", str(trials)]
    seconds_of(command(*words, "--output-dir", OUTPUT, "--results-file", "results.json"), place, plan.threads)
    return place


def grow(small: Path, place: Path, *, ended: int, waiting: int, threads: int) -> Path:
    """Copy a small study, and its search trials until so many have ended; enqueue more.

    Args:
        small: From `train_small_study`.
        place: The new study's folder.
        ended: Trials that have ended, no fewer than those of the small study.
        waiting: Number of pending search trials.
        threads: PyTorch's threads.

    Returns:
        The new study's output folder.
    """
    output = place / OUTPUT
    shutil.copytree(small / OUTPUT, output)
    with contextlib.closing(sqlite3.connect(output / "study.db")) as database, database:
        database.execute("PRAGMA synchronous = OFF")  # it is read only when it is complete
        have: int = database.execute("SELECT count(*) FROM trials").fetchone()[0]
        if ended < have:
            raise HarnessError(f"a study of {ended} trials cannot be grown from one of {have}")
        _copy_trials(database, OutputFolder(output), have, ended - have)
    # The pending trials are enqueued by the program itself, which decides how many at a time.
    seconds_of(command("enqueue", "--trials", str(waiting), "--output-dir", OUTPUT), place, threads)
    return output


def _presets() -> dict[str, Any]:
    shared = {"device": "cpu", "batch_size": 16, "num_epochs": _EPOCHS, "learning_rate": 0.003}
    preset = {
        "model": {"name": "small", "config_path": "models.yaml"},
        "data": {"metadata_path": "data/metadata.yaml"},
        "early_stopping": {"patience": _PATIENCE},
    }
    rates = {"preset_slow": 0.001, "preset_middle": 0.003, "preset_fast": 0.01}
    return {name: preset | {"training": shared | {"learning_rate": rate}} for name, rate in rates.items()}


def _space() -> str:
    """Return the shipped search space with trials as short as the presets."""
    from search_spaces import resolve_config_path

    text = resolve_config_path("config/search_space.yaml").read_text(encoding="utf-8")
    return re.sub(r"num_epochs: \d+", f"num_epochs: {_EPOCHS}", text)


def _copy_trials(database: sqlite3.Connection, folder: OutputFolder, have: int, count: int) -> None:
    """Copy a study's search trials one after the other until there are `count` more."""
    kind = (
        "SELECT trial_id FROM trial_user_attributes WHERE key = 'kind' AND value_json = '\"search\"' ORDER BY trial_id"
    )
    originals = [row[0] for row in database.execute(kind)]
    first: int = database.execute("SELECT max(trial_id) FROM trials").fetchone()[0] + 1
    copies = [(originals[place % len(originals)], first + place) for place in range(count)]
    numbers = dict(database.execute("SELECT trial_id, number FROM trials"))
    for place, (old, new) in enumerate(copies):
        numbers[new] = have + place
        _link_files(
            folder.trial_dir(search_trial_name(numbers[old])), folder.trial_dir(search_trial_name(have + place))
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
        columns = columns[1:]  # without the row's own number, which it gets anew
    place = columns.index("trial_id")
    number = columns.index("number") if table == "trials" else None
    select = f"SELECT {', '.join(columns)} FROM {table} WHERE trial_id = ?"
    rows = {old: database.execute(select, (old,)).fetchall() for old in {old for old, _ in copies}}

    def copied() -> Iterator[list[Any]]:
        for old, new in copies:
            for row in map(list, rows[old]):
                row[place] = new
                if number is not None:
                    row[number] = numbers[new]
                yield row

    marks = ", ".join("?" * len(columns))
    database.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", copied())


def _copy_notes(database: sqlite3.Connection, copies: Sequence[tuple[int, int]]) -> None:
    """Copy the dashboard's note of each trial."""
    notes: dict[int, list[tuple[int, str, str]]] = {}
    for study, key, value in database.execute("SELECT study_id, key, value_json FROM study_system_attributes"):
        if found := _NOTE_KEY.fullmatch(key):
            notes.setdefault(int(found[1]), []).append((study, found[2], value))
    database.executemany(
        "INSERT INTO study_system_attributes (study_id, key, value_json) VALUES (?, ?, ?)",
        ((study, f"dashboard:{new}:{part}", value) for old, new in copies for study, part, value in notes.get(old, [])),
    )


def _link_files(old: Path, new: Path) -> None:
    """Give a copied trial a folder with the same files, which take no room of their own.

    Without checkpoints: the program keeps those of the best few trials only.
    """
    shutil.copytree(old, new, copy_function=os.link, ignore=shutil.ignore_patterns("*.pt"))
