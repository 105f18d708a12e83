"""Checks of the program on a damaged study: commands must work, report the damage and keep the other trials."""

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
from damages.study import DATABASE, FINISHED, PENDING, STUDY, TRIALS, run_main

_TIMEOUT_S = 30.0
_MAX_BYTES = 3 * 2**30
# These commands must show the other trials, whatever damage one trial has.
_READERS = {
    "status": ["status"],
    "status --json": ["status", "--json"],
    "export": ["export", "--results-file", "exported.json"],
    "export csv": ["export", "--format", "csv", "--results-file", "-"],
    "export epochs-csv": ["export", "--format", "epochs-csv", "--results-file", "-"],
    "report": ["report", "--out", "report.html"],
    "dashboard": ["dashboard", "--port", "0"],
}
# Damage that no command has to report, and the reason.
HARMLESS = {
    "leases|study.lock|database.lock|lock": "only the lock on the file matters; its content is for people",
    "metadata.yaml.(train|val).(npy|jsonl)|.pixel_cache": "created again from the images",
    "model_config.yaml": "written again from the database",
    "training.log|training_config.yaml|recipe.json": "written for people; no command reads it",
    "tensorboard": "only TensorBoard reads it",
    "artifacts|study_system_attributes": "plots and notes of the dashboard, which shows those that exist",
    "previous.pt": "read only if last.pt is damaged",
    "study.db, 300 GB sparse": "SQLite reads the number of pages that the first page states",
    "study.db, bits flipped": "SQLite has no checksums: an unused byte or another plausible value",
    "study_directions.objective": "only its order matters, and there is one objective",
    "trial_intermediate_values.intermediate_value, huge": "another number is as plausible as the reported one",
    ".* foreign": "a trial of plain Optuna, which no command shows",
    "trial_user_attributes(.key)?, .*config_digest": "`run` compares it and reports a changed preset",
    # These are as plausible as values that a trial or a command may have stored.
    "trial_params": "another plausible value, or a parameter that was not sampled",
    "study_user_attributes(.key)?, ": "a missing attribute is like one that was never set",
    "alembic_version|version_info": "Optuna reads it only to upgrade a database",
}
Outputs = Mapping[str, tuple[int | None, str]]


@dataclass
class Case:
    """A numbered damage, the first output line that reports it, and the problems of the program."""

    number: int
    damage: Damage
    report: str = ""
    problems: list[str] = field(default_factory=list)


def outputs_of(folder: Path, found: Damage | None = None) -> Outputs:
    """Run all commands on a study; return the exit code, None for a command that hangs, and the output of each."""
    shown = TRIALS if found is None else [found.trial or FINISHED[0]]
    checkpoint = ["--checkpoint", f"../{found.path}"] if found and found.path.endswith(".pt") else []
    commands = _READERS | {f"show {name}": ["show", str(TRIALS.index(name))] for name in shown}
    commands["best"] = ["best"]
    commands["evaluate"] = ["evaluate", "--metadata", "../data/metadata.yaml", "--split", "test", *checkpoint]
    commands["resume"] = ["resume", "--results-file", "results.json"]
    outputs = {}
    for name, words in (commands | {"export csv again": commands["export csv"]}).items():
        study = [] if name == "evaluate" and checkpoint else ["--output-dir", OUTPUT]
        ending, output = run_logged(partial(run_main, [*words, *study], _restrict), folder / STUDY, _TIMEOUT_S)
        outputs[name] = ending.code, output
        if ending.code is None:  # the following commands would hang as well
            break
    return outputs


def check(case: Case, folder: Path, reference: Outputs) -> None:
    """Run all commands on a damaged study; add the problems that are found to the case."""
    before = in_fork(_facts, folder)
    outputs = outputs_of(folder, case.damage)
    case.problems += unexpected_errors(outputs)
    if len(outputs) < len(reference) - len(TRIALS) + 1:
        return
    case.problems += _changes_to_others(case.damage, outputs, reference, before, in_fork(_facts, folder))
    case.report = next(_reports(case.damage, outputs, reference), "")
    kind = f"{case.damage.item}, {case.damage.kind}, {case.damage.location}"
    if not case.report and not case.problems and not any(re.match(kinds, kind) for kinds in HARMLESS):
        case.problems.append("no command reports the damage")


def unexpected_errors(outputs: Outputs) -> list[str]:
    """Return the unexpected errors, each with the commands that print it."""
    found: dict[str, list[str]] = {}
    for name, (code, output) in outputs.items():
        lines = [line for line in output.splitlines() if "unexpected" in line or "Traceback" in line]
        if code not in (0, 1, 2) or lines:
            last = (lines or output.splitlines() or [""])[-1]
            found.setdefault("hangs" if code is None else f"exit {code}: {last}", []).append(name)
    return [f"{', '.join(names)}: {problem}" for problem, names in found.items()]


def _restrict() -> None:
    """Limit the memory of this process, and make the dashboard answer a few requests instead of listening."""
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_BYTES, _MAX_BYTES))
    replace("studies.dashboard.server.DashboardServer.serve", lambda function: _request_pages)


def _request_pages(server: Any, app: Any, **options: Any) -> None:
    from werkzeug.test import Client

    for path in ("/dashboard/studies/1", "/api/studies", "/api/studies/1?after=0"):
        answer = Client(app).get(path, base_url="http://127.0.0.1")
        error = answer.text if answer.status_code >= 400 else ""
        is_unknown = answer.status_code == 500 and "may be damaged" not in error
        print("unexpected" if is_unknown else "", path, answer.status_code, error)


def _reports(damage: Damage, outputs: Outputs, reference: Outputs) -> Iterator[str]:
    """Yield the output lines that report a damage and do not appear for the undamaged study."""
    for name, (_, text) in outputs.items():
        for line in text.splitlines():
            is_new = line not in reference[name][1]
            if name in ("resume", "evaluate"):  # their figures differ in each run
                is_new &= re.search("error|warning|note|damaged", line) is not None
            if is_new and any(expected in line for expected in damage.names):
                yield f"{name}: {line}"


def _changes_to_others(
    damage: Damage, outputs: Outputs, reference: Outputs, before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[str]:
    """Yield the losses and changes of the undamaged trials."""
    finished = [name for name in FINISHED if name != damage.trial]
    for fact, value in before.items():
        if fact.partition(":")[0] in finished and after.get(fact) != value:
            yield f"changed: {fact}"
    code, output = outputs["resume"]
    for name in set(PENDING) - {damage.trial} if "waiting: state" in after else ():
        state = after[f"{name}: state"]
        is_explained = state in ("RUNNING", "WAITING") and code and re.search("error:|stays pending", output)
        if state not in ("COMPLETE", "PRUNED") and not is_explained:
            yield f"{name} is {state} after resume:\n{tail(output)}"
    blocked = [name for name in _READERS if outputs[name][0] != 0]
    # A missing row or another number shifts later trials in Optuna's list, so positions no longer identify trials.
    if damage.trial and blocked and "readable" in before and damage.item not in ("trials", "trials.number"):
        yield f"blocked: {', '.join(blocked)}:\n{tail(outputs[blocked[0]][1])}"
    for name in ("export csv", "export csv again"):
        shown, expected = _rows(outputs[name][1]), _rows(reference[name][1])
        if outputs[name][0] == 0 and (other := [trial for trial in finished if shown.get(trial) != expected[trial]]):
            yield f"{name} shows other values for {other}, for the first: {shown.get(other[0])}"


def _rows(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not re.match("error:|warning:|note:", line)]
    return {str(row.get("experiment_name")): str(row) for row in csv.DictReader(lines)}


def _facts(folder: Path) -> dict[str, str]:
    """Return the content of files and database by "TRIAL: item", and whether Optuna can read all trials."""
    import optuna

    facts = {}
    for trial in TRIALS:
        for path in sorted((folder / STUDY / OUTPUT / trial).rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**20:
                facts[f"{trial}: {path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if not (folder / DATABASE).is_file():  # opening a FIFO would block
        return facts
    with contextlib.suppress(sqlite3.Error):
        database = sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True)
        database.text_factory = bytes
        for number, trial in enumerate(TRIALS, start=1):
            states = database.execute(f"SELECT state FROM trials WHERE trial_id = {number}").fetchall()
            facts[f"{trial}: state"] = states[0][0].decode(errors="replace") if states else "missing"
            for table in ("trials", "trial_user_attributes", "trial_params", "trial_values"):
                rows = database.execute(f"SELECT * FROM {table} WHERE trial_id = {number}").fetchall()
                facts[f"{trial}: {table}"] = repr(rows)
    with contextlib.suppress(Exception):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        optuna.load_study(study_name=None, storage=f"sqlite:///{folder / DATABASE}").get_trials()
        facts["readable"] = "all"
    return facts
