"""Checks of the program on a damaged study: commands must work, report the damage and keep the undamaged trials."""

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
# Commands that must show all other trials if one trial is damaged.
_READERS = {
    "status": ["status"],
    "status --json": ["status", "--json"],
    "export": ["export", "--results-file", "exported.json"],
    "export csv": ["export", "--format", "csv", "--results-file", "-"],
    "export epochs-csv": ["export", "--format", "epochs-csv", "--results-file", "-"],
    "report": ["report", "--out", "report.html"],
    "dashboard": ["dashboard", "--port", "0"],
}
# Damage that no command has to report: a pattern for "ITEM, KIND, LOCATION", and the reason.
HARMLESS = {
    "leases|study.lock|database.lock|lock": "only the lock on the file matters; the content of the file is for people",
    "metadata.yaml.(train|val).(npy|jsonl)|.pixel_cache": "caches, which the program recreates from the images",
    "model_config.yaml": "the program rewrites the file from the database",
    "training.log|training_config.yaml|recipe.json": "written for people; no command reads these files",
    "tensorboard": "only TensorBoard reads it",
    "artifacts|study_system_attributes": "the dashboard shows only the plots and notes that exist",
    "previous.pt": "read only if last.pt is damaged",
    "study.db, 300 GB sparse": "SQLite reads only as many pages as the first page states",
    "study.db, bits flipped": "SQLite has no checksums; the bits may be unused or give a plausible value",
    "study_directions.objective": "orders the objectives; a study has only one objective",
    "trial_intermediate_values.intermediate_value, huge": "any number is plausible as a reported value",
    ".* foreign": "a trial that was added with Optuna alone, which no command shows",
    "trial_user_attributes(.key)?, .*config_digest": "`run` compares the digest and reports a changed preset",
    # The damaged values of these tables are as plausible as those that a trial or a command may have stored.
    "trial_params": "another plausible value, or a parameter that was not sampled",
    "study_user_attributes(.key)?, ": "a missing attribute is like one that was never set",
    "alembic_version|version_info": "Optuna reads it only to upgrade a database",
}
Outputs = Mapping[str, tuple[int | None, str]]


@dataclass
class Case:
    """A damage with its number, the first output line that reports the damage, and the problems that it revealed."""

    number: int
    damage: Damage
    report: str = ""
    problems: list[str] = field(default_factory=list)


def outputs_of(folder: Path, found: Damage | None = None) -> Outputs:
    """Run all commands on a study; return the exit code and the output of each, keyed by command.

    The exit code of a command that does not exit in time is None; the commands after it do not run. If the study is
    damaged, `show` reads the damaged trial and `evaluate` the damaged checkpoint.
    """
    shown = TRIALS if found is None else [found.trial or FINISHED[0]]
    checkpoint = ["--checkpoint", f"../{found.path}"] if found and found.path.endswith(".pt") else []
    commands = _READERS | {f"show {name}": ["show", str(TRIALS.index(name))] for name in shown}
    commands["best"] = ["best"]
    commands["evaluate"] = ["evaluate", "--metadata", "../data/metadata.yaml", "--split", "test", *checkpoint]
    commands["resume"] = ["resume", "--results-file", "results.json"]
    outputs = {}
    for name, arguments in (commands | {"export csv again": commands["export csv"]}).items():
        study = [] if name == "evaluate" and checkpoint else ["--output-dir", OUTPUT]
        ending, output = run_logged(partial(run_main, [*arguments, *study], _restrict), folder / STUDY, _TIMEOUT_S)
        outputs[name] = ending.code, output
        if ending.code is None:  # the following commands would hang as well
            break
    return outputs


def check(case: Case, folder: Path, reference: Outputs) -> None:
    """Run all commands on a damaged study; add the report of the damage and the problems to the case."""
    before = in_fork(_facts, folder)
    outputs = outputs_of(folder, case.damage)
    case.problems += unexpected_errors(outputs)
    if len(outputs) < len(reference) - len(TRIALS) + 1:
        return
    case.problems += _changes_to_others(case.damage, outputs, reference, before, in_fork(_facts, folder))
    case.report = next(_reports(case.damage, outputs, reference), "")
    kind = f"{case.damage.item}, {case.damage.kind}, {case.damage.location}"
    if not case.report and not case.problems and not any(re.match(kinds, kind) for kinds in HARMLESS):
        case.problems.append("no command reports the damage; expected an error, warning or note")


def unexpected_errors(outputs: Outputs) -> list[str]:
    """Return one text per unexpected error, with the names of the commands that printed the error."""
    found: dict[str, list[str]] = {}
    for name, (code, output) in outputs.items():
        lines = [line for line in output.splitlines() if "unexpected" in line or "Traceback" in line]
        if code not in (0, 1, 2) or lines:
            last = (lines or output.splitlines() or [""])[-1]
            problem = f"did not exit within {_TIMEOUT_S:.0f} s" if code is None else f"exited with {code}: {last}"
            found.setdefault(problem, []).append(name)
    return [f"{', '.join(names)}: {problem}" for problem, names in found.items()]


def _restrict() -> None:
    """Limit the memory of this process, and make `dashboard` answer a few requests and exit instead of listening."""
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
    """Yield the output lines that report the damage and that no command printed for the undamaged study."""
    for name, (_, text) in outputs.items():
        for line in text.splitlines():
            is_new = line not in reference[name][1]
            if name in ("resume", "evaluate"):  # the numbers in their output differ in each run
                is_new &= re.search("error|warning|note|damaged", line) is not None
            if is_new and any(expected in line for expected in damage.names):
                yield f"{name}: {line}"


def _changes_to_others(
    damage: Damage, outputs: Outputs, reference: Outputs, before: Mapping[str, str], after: Mapping[str, str]
) -> Iterator[str]:
    """Yield a problem for each undamaged trial that was lost, changed or not shown."""
    finished = [name for name in FINISHED if name != damage.trial]
    for fact, value in before.items():
        if fact.partition(":")[0] in finished and after.get(fact) != value:
            yield f"the commands changed or lost an item of an undamaged trial: {fact}"
    code, output = outputs["resume"]
    for name in set(PENDING) - {damage.trial} if "waiting: state" in after else ():
        state = after[f"{name}: state"]
        is_explained = state in ("RUNNING", "WAITING") and code and re.search("error:|stays pending", output)
        if state not in ("COMPLETE", "PRUNED") and not is_explained:
            yield f"{name} is {state} after `resume`; expected COMPLETE, PRUNED or an explanation:\n{tail(output)}"
    blocked = [name for name in _READERS if outputs[name][0] != 0]
    # A missing row or another number shifts later trials in Optuna's list, so positions no longer identify trials.
    if damage.trial and blocked and "readable" in before and damage.item not in ("trials", "trials.number"):
        yield f"damage to one trial makes these fail: {', '.join(blocked)}; the first:\n{tail(outputs[blocked[0]][1])}"
    for name in ("export csv", "export csv again"):
        shown, expected = _rows(outputs[name][1]), _rows(reference[name][1])
        if outputs[name][0] == 0 and (other := [trial for trial in finished if shown.get(trial) != expected[trial]]):
            yield f"{name} shows changed values of undamaged trials: {', '.join(other)}; first: {shown.get(other[0])}"


def _rows(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not re.match("error:|warning:|note:", line)]
    return {str(row.get("experiment_name")): str(row) for row in csv.DictReader(lines)}


def _facts(folder: Path) -> dict[str, str]:
    """Return a digest of each file and the text of the database rows, keyed by "<trial>: <item>".

    The key "readable" exists only if Optuna can read all trials.
    """
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
