"""Check the program on a damaged study: its commands must work, name the damage and keep the other trials."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import re
import resource
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness.fixture_study import OUTPUT
from harness.forks import in_fork, run_logged
from harness.processes import tail
from harness.replacement import replace

from damages.kinds import Damage
from damages.study import DATABASE, ENDED, PENDING, STUDY, TRIALS, give

_LONGEST_S = 30.0
_MOST_BYTES = 3 * 2**30
# No damage to one trial may keep these from showing the others.
_READERS = {
    "status": ["status"],
    "status --json": ["status", "--json"],
    "export": ["export", "--results-file", "exported.json"],
    "export csv": ["export", "--format", "csv", "--results-file", "-"],
    "export epochs-csv": ["export", "--format", "epochs-csv", "--results-file", "-"],
    "report": ["report", "--out", "report.html"],
    "dashboard": ["dashboard", "--port", "0"],
}
# Damages that no command has to name, and why.
HARMLESS = {
    "leases|study.lock|database.lock|lock": "only the lock on the file counts, its content is for people",
    "metadata.yaml.(train|val).(npy|jsonl)|.pixel_cache": "made anew from the images",
    "model_config.yaml": "written anew from the database",
    "training.log|training_config.yaml|recipe.json": "written for people; no command reads it",
    "tensorboard": "TensorBoard alone reads it",
    "artifacts|study_system_attributes": "plots and notes of the dashboard, which shows what there is",
    "previous.pt": "read only if last.pt is damaged",
    "study.db, 300 GB sparse": "SQLite reads as many pages as the first one says",
    "study.db, bits flipped": "SQLite has no checksums: another value in an unread or plausible place",
    "study_directions.objective": "only its order counts, and there is one",
    "trial_intermediate_values.intermediate_value, huge": "another number looks like the reported one",
    ".* foreign": "a trial of plain Optuna, of which no command shows anything",
    "trial_user_attributes(.key)?, .*config_digest": "`run` compares it, and calls the preset changed",
    # These look like what a trial or a command of the user may have stored.
    "trial_params": "another plausible value, or a parameter that was not sampled",
    "study_user_attributes(.key)?, ": "an attribute that is gone is one that was never set",
    "alembic_version|version_info": "Optuna reads it only to upgrade a database",
}
Outputs = Mapping[str, tuple[int | None, str]]


@dataclass
class Case:
    """A damage by number, the first output line that names it, and what is wrong with the program."""

    number: int
    damage: Damage
    said: str = ""
    problems: list[str] = field(default_factory=list)


def outputs_of(folder: Path, found: Damage | None = None) -> Outputs:
    """Return the exit codes of all commands on a study, None for one that hangs, and what they print."""
    shown = TRIALS if found is None else [found.trial or ENDED[0]]
    checkpoint = ["--checkpoint", f"../{found.path}"] if found and found.path.endswith(".pt") else []
    commands = _READERS | {f"show {name}": ["show", str(TRIALS.index(name))] for name in shown}
    commands["best"] = ["best"]
    commands["evaluate"] = ["evaluate", "--metadata", "../data/metadata.yaml", "--split", "test", *checkpoint]
    commands["resume"] = ["resume", "--results-file", "results.json"]
    outputs = {}
    for name, words in (commands | {"export csv again": commands["export csv"]}).items():
        place = [] if name == "evaluate" and checkpoint else ["--output-dir", OUTPUT]
        ending, output = run_logged(partial(give, [*words, *place], _restrict), folder / STUDY, _LONGEST_S)
        outputs[name] = ending.code, output
        if ending.code is None:  # the others would hang as well
            break
    return outputs


def check(case: Case, folder: Path, reference: Outputs) -> None:
    """Run all commands on a damaged study, and add their mistakes to the case."""
    before = in_fork(_facts, folder)
    outputs = outputs_of(folder, case.damage)
    case.problems += unknown_errors(outputs)
    if len(outputs) < len(reference) - len(TRIALS) + 1:
        return
    case.problems += _lost(case.damage, outputs, reference, before, in_fork(_facts, folder))
    case.said = next(_naming(case.damage, outputs, reference), "")
    kind = f"{case.damage.what}, {case.damage.how}, {case.damage.where}"
    if not case.said and not case.problems and not any(re.match(kinds, kind) for kinds in HARMLESS):
        case.problems.append("nothing names it")


def unknown_errors(outputs: Outputs) -> list[str]:
    """Return the unexpected errors, each with the commands that print it."""
    found: dict[str, list[str]] = {}
    for name, (code, output) in outputs.items():
        lines = [line for line in output.splitlines() if "unexpected" in line or "Traceback" in line]
        if code not in (0, 1, 2) or lines:
            last = (lines or output.splitlines() or [""])[-1]
            found.setdefault("hangs" if code is None else f"exit {code}: {last}", []).append(name)
    return [f"{', '.join(names)}: {problem}" for problem, names in found.items()]


def _restrict() -> None:
    """Limit the memory of this process, and let the dashboard answer a few requests instead of listening."""
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    replace("studies.dashboard.server.DashboardServer.serve", lambda function: _ask)


def _ask(server: Any, app: Any, **options: Any) -> None:
    from werkzeug.test import Client

    for path in ("/dashboard/studies/1", "/api/studies", "/api/studies/1?after=0"):
        answer = Client(app).get(path, base_url="http://127.0.0.1")
        error = answer.text if answer.status_code >= 400 else ""
        is_unknown = answer.status_code == 500 and "may be damaged" not in error
        print("unexpected" if is_unknown else "", path, answer.status_code, error)


def _naming(damage: Damage, outputs: Outputs, reference: Outputs) -> Iterator[str]:
    """Yield the lines that name a damage and that the commands do not print on an undamaged study."""
    for name, (_, text) in outputs.items():
        for line in text.splitlines():
            is_new = line not in reference[name][1]
            if name in ("resume", "evaluate"):  # their figures differ each time
                is_new &= re.search("error|warning|note|damaged|going back", line) is not None
            if is_new and any(found in line for found in damage.names):
                yield f"{name}: {line}"


def _lost(
    damage: Damage, outputs: Outputs, reference: Outputs, before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[str]:
    """Yield what is missing or has changed of the trials that were not damaged."""
    ended = [name for name in ENDED if name != damage.trial]
    for fact, value in before.items():
        if fact.partition(":")[0] in ended and after.get(fact) != value:
            yield f"changed: {fact}"
    code, said = outputs["resume"]
    for name in set(PENDING) - {damage.trial} if "waiting: state" in after else ():
        state = after[f"{name}: state"]
        is_explained = state in ("RUNNING", "WAITING") and code and re.search("error:|stays pending", said)
        if state not in ("COMPLETE", "PRUNED") and not is_explained:
            yield f"{name} is {state} after resume:\n{tail(said)}"
    blocked = [name for name in _READERS if outputs[name][0] != 0]
    # A missing row or another number moves all later trials in Optuna's list, so that places no longer identify trials.
    if damage.trial and blocked and "readable" in before and damage.what not in ("trials", "trials.number"):
        yield f"blocked: {', '.join(blocked)}:\n{tail(outputs[blocked[0]][1])}"
    for name in ("export csv", "export csv again"):
        shown, expected = _rows(outputs[name][1]), _rows(reference[name][1])
        if outputs[name][0] == 0 and (other := [trial for trial in ended if shown.get(trial) != expected[trial]]):
            yield f"{name} shows {other} otherwise, the first as {shown.get(other[0])}"


def _rows(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not re.match("error:|warning:|note:", line)]
    return {str(row.get("experiment_name")): str(row) for row in csv.DictReader(lines)}


def _facts(folder: Path) -> dict[str, str]:
    """Return what files and database have of each trial, as "TRIAL: what", and whether Optuna can read them all."""
    import optuna

    facts = {}
    for trial in TRIALS:
        for path in sorted((folder / STUDY / OUTPUT / trial).rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**20:
                facts[f"{trial}: {path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if not (folder / DATABASE).is_file():  # opening a FIFO would hang
        return facts
    with contextlib.suppress(sqlite3.Error):
        database = sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True)
        database.text_factory = bytes
        for number, trial in enumerate(TRIALS, start=1):
            states = database.execute(f"SELECT state FROM trials WHERE trial_id = {number}").fetchall()
            facts[f"{trial}: state"] = states[0][0].decode(errors="replace") if states else "gone"
            for table in ("trials", "trial_user_attributes", "trial_params", "trial_values"):
                rows = database.execute(f"SELECT * FROM {table} WHERE trial_id = {number}").fetchall()
                facts[f"{trial}: {table}"] = repr(rows)
    with contextlib.suppress(Exception):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        optuna.load_study(study_name=None, storage=f"sqlite:///{folder / DATABASE}").get_trials()
        facts["readable"] = "all"
    return facts
