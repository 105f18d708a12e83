"""Random damage to a study: the items that may be damaged, and the ways to damage an item."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from harness.fixture_study import OUTPUT

from damages.study import DATABASE, STUDY, TRIALS

# All files in folders with one of these names count as one item, named after the folder. Other files are items of
# their own; files whose names differ only in digits count as one item.
_FOLDERS = {"artifacts", "leases", "tensorboard", ".pixel_cache", "train", "val", "test"}
# Repeated tables are damaged more often.
_TABLES = (
    *(["trials", "trial_user_attributes"] * 4),
    *(["trial_params", "trial_values", "trial_intermediate_values", "study_user_attributes"] * 2),
    *("study_system_attributes", "study_directions", "studies", "version_info", "alembic_version"),
)
_WORDS = ("COMPLETE", "FAIL", "RUNNING", "WAITING", "PRUNED", "MAXIMIZE", "NOT_SET", "INF_POS", "NAN", "complete", "")
_PLAIN = (None, True, 3, -1.5, "x", [], {}, ["x"], {"x": 1}, "running", 10**30, "\x1b[31m")

_CELLS: dict[str, Callable[[Random, Any], Any]] = {
    "NULL": lambda rng, old: None,
    "bytes": lambda rng, old: b"\xff\x00" + rng.randbytes(9),
    "truncated": lambda rng, old: str(old)[: len(str(old)) // 2],
}
_PLAIN_CELLS = _CELLS | {
    "other word": lambda rng, old: rng.choice(_WORDS),
    "huge number": lambda rng, old: rng.choice((2**62, -1, 1e308, float("inf"))),
}
_JSON_CELLS = _CELLS | {
    "other type": lambda rng, old: json.dumps(rng.choice(_PLAIN)),
    "huge number": lambda rng, old: rng.choice(("1e999", "9" * 5000, "NaN", "-1")),
    "nested list": lambda rng, old: (depth := rng.choice((50, 900, 100_000))) * "[" + depth * "]",
    "value inside": lambda rng, old: _changed_inside(rng, json.loads(old)),
}


@dataclass(frozen=True)
class Damage:
    """A damaged item of a study.

    Attributes:
        item: Damaged table, column or kind of file.
        kind: Way in which the item is damaged.
        location: Damaged value or file.
        names: Texts that identify the damage; an output line that reports the damage contains one of them.
        trial: Name of the damaged trial; empty if the damage concerns no single trial.
        path: Path of the damaged file in the folder of `make_study`.
    """

    item: str
    kind: str
    location: str
    names: tuple[str, ...]
    trial: str
    path: str = DATABASE


def damage(rng: Random, folder: Path) -> Damage:
    """Damage a random item of the study that `make_study` created in a folder; return what was damaged and how."""
    if rng.random() < 0.5:
        return _damage_file(rng, folder)
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        return _damage_row(rng, database, rng.choice(_TABLES))


def _damage_row(rng: Random, database: sqlite3.Connection, table: str) -> Damage:
    columns = [column for _, column, *_ in database.execute(f"PRAGMA table_info({table})")]
    rows = database.execute(f"SELECT rowid, * FROM {table}").fetchall()
    row = dict(zip(("rowid", *columns), rng.choice(rows), strict=True))
    trial = TRIALS[row["trial_id"] - 1] if "trial_id" in row else ""
    key = row.get("key", row.get("param_name", table))
    names = ("damaged", key, *((trial, f"trial {row['trial_id'] - 1}") if trial else ("error:", "warning:")))
    location = f"{key} in row {row['rowid']} {trial}"
    if rng.random() < 0.05:
        whole = rng.random() < 0.3
        database.execute(f"DROP TABLE {table}" if whole else f"DELETE FROM {table} WHERE rowid = {row['rowid']}")
        return (
            Damage(table, "dropped", table, (*names, "error:"), "")
            if whole
            else Damage(table, "row deleted", location, names, trial)
        )
    column = rng.choice([name for name in columns if not name.endswith("_id")])
    changes = _JSON_CELLS if column.endswith("_json") else _PLAIN_CELLS
    for kind in rng.sample(list(changes), len(changes)):
        value = changes[kind](rng, row[column])
        try:
            database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = {row['rowid']}", (value,))
        except sqlite3.IntegrityError:  # the schema forbids this value
            continue
        return Damage(f"{table}.{column}", kind, f"{location}: {value!r:.60}", names, trial)
    raise AssertionError(table)


def _changed_inside(rng: Random, value: Any) -> str:
    """Replace or remove one random value inside a JSON value; return the JSON text."""
    entries = list(_entries(value))
    if not entries:
        return json.dumps(rng.choice(_PLAIN))
    container, key = rng.choice(entries)
    container[key] = rng.choice(_PLAIN)
    if rng.random() < 0.2:
        del container[key]
    return json.dumps(value)


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _entries(value[key])


def _damage_file(rng: Random, folder: Path) -> Damage:
    files: dict[str, list[Path]] = {}
    for path in sorted(path for part in (f"{STUDY}/{OUTPUT}", "data") for path in (folder / part).rglob("*")):
        if path.is_file():
            item = path.parent.name if path.parent.name in _FOLDERS else re.sub(r"\d+", "N", path.name)
            files.setdefault(item, []).append(path.relative_to(folder))
    item = rng.choice(sorted(files))
    file = rng.choice(files[item])
    changes = _CHANGES | (_CHECKPOINT_CHANGES if file.suffix == ".pt" else {})
    kind = rng.choice(list(changes))
    changes[kind](rng, folder / file)
    trial = next((part for part in file.parts if part in TRIALS), "")
    names = ("error:",) if item == "study.db" else (trial,) if trial else ()
    return Damage(item, kind, str(file), ("damaged", file.name, *names), trial, str(file))


def _flip(rng: Random, path: Path) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    for _ in range(rng.randint(1, 5)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _zero_page(rng: Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    page = rng.randrange(len(content) // 4096 + 1) * 4096
    content[page : page + 4096] = bytes(len(content[page : page + 4096]))
    path.write_bytes(content)


def _replace_by(make: Callable[[Path], object]) -> Callable[[Random, Path], object]:
    return lambda rng, path: (path.unlink(), make(path))


def _resave(change: Callable[[Any], Any]) -> Callable[[Random, Path], None]:
    def resave(rng: Random, path: Path) -> None:
        from tuner.training.checkpoints import load_checkpoint, save_checkpoint

        save_checkpoint(path, change(load_checkpoint(path)))

    return resave


def _weights(change: Callable[[Any], Any]) -> Callable[[Random, Path], None]:
    return _resave(lambda state: state | {"model": {name: change(part) for name, part in state["model"].items()}})


_CHANGES: dict[str, Callable[[Random, Path], object]] = {
    "bits flipped": _flip,
    "truncated": lambda rng, path: os.truncate(path, int(path.stat().st_size * rng.random())),
    "4096 bytes zeroed": _zero_page,
    "empty": lambda rng, path: os.truncate(path, 0),
    "missing": lambda rng, path: path.unlink(),
    "directory": _replace_by(Path.mkdir),
    "FIFO": _replace_by(os.mkfifo),
    "broken symbolic link": _replace_by(lambda path: path.symlink_to("nothing")),
    "symbolic link to /dev/zero": _replace_by(lambda path: path.symlink_to("/dev/zero")),
    "200,000 brackets": lambda rng, path: path.write_text("[" * 200_000),
    "300 GB sparse": lambda rng, path: os.truncate(path, 300 * 2**30),
}
_CHECKPOINT_CHANGES = {
    "valid digest, a list": _resave(lambda state: [1, 2]),
    "valid digest, wrong types": _resave(lambda state: dict.fromkeys(state, "x")),
    "valid digest, missing part": _resave(lambda state: dict(list(state.items())[:-1])),
    "valid digest, wrong shapes": _weights(lambda part: part[..., None]),
    "valid digest, NaN weights": _weights(lambda part: part * float("nan")),
}
