"""`studies/README.md` lists every column and key that a real study exports, in order and with its type."""

import csv
import io
import json
import re
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import pytest

from search_spaces import TrainingConfig
from studies import RowState, SearchRequest, TrialKind, WhyEnded, add_search_trials, load_study_for_changes
from tuner import HyperparameterTuner, RunOptions
from tuner.session.study_files import load_earlier_studies

PAGE = Path(__file__).parents[3] / "studies" / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
SETTINGS = [item.name for item in fields(TrainingConfig) if item.name != "experiment_name"]


def fail():
    raise RuntimeError("simulated error")


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory, configs_in, spaces_in, make_watcher, fail):
    """A study with a failed and a completed preset, a finished and a waiting search trial, and a warm start."""
    folder = tmp_path_factory.mktemp("study")
    targets = {
        "character_accuracy": 0.9,
        "sequence_accuracy": 0.9,
        "training_time_per_epoch": 100,
        "convergence_epochs": 1,
    }
    config = configs_in(folder)({"broken": {}, "one": {}}, targets=targets)
    out, earlier = folder / "out", folder / "earlier"
    first = RunOptions(earlier, results_file=str(folder / "earlier.json"))
    HyperparameterTuner(str(config), options=first, display=make_watcher()).run_experiments(["one"])
    options = RunOptions(
        out,
        results_file=str(folder / "results.json"),
        space_file=str(spaces_in(folder)()),
        search=SearchRequest(at_least=1, warm_start=load_earlier_studies([str(earlier)], out)),
    )
    watcher = make_watcher(after_epoch=1, action=fail)
    HyperparameterTuner(str(config), options=options, display=watcher).run_experiments()
    study, output_folder = load_study_for_changes(out)
    add_search_trials(study, output_folder, SearchRequest(more=1))
    return out


def documented(heading):
    """Return the documented types of the table below a heading, keyed by name of column or key."""
    (section,) = [part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE) if part.startswith(f"{heading}\n")]
    types = {}
    for line in section.splitlines():
        if line.startswith("| settings |"):
            types |= dict.fromkeys(SETTINGS, "setting or empty")
        elif line.startswith("| `"):
            name, kind, *_ = (cell.strip() for cell in line.strip("|").split(" | "))
            types[name.strip("`")] = kind
    return types


def kind_of(value):
    """Return the name that the page uses for the type of a JSON value."""
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value):
        datetime.fromisoformat(value)
        return "time"
    kinds = {bool: "true or false", int: "whole number", float: "number", list: "list of text", dict: "object"}
    return kinds.get(type(value), "text")


def cell_value(text):
    """Return the value of a CSV cell."""
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def check(heading, found, absent):
    """Compare a table of the page with the values in real output, keyed by name; the message has the rows to change."""
    types = documented(heading)
    above = dict(zip(found, [None, *found], strict=False))
    for name, values in found.items():
        kinds = sorted({kind_of(value) for value in values if value is not None}) or ["TYPE"]
        kind = kinds[-1 if kinds[0] == "number" else 0] if len(kinds) == 2 else kinds[0]
        row = f"| `{name}` | {kind}{f' or {absent}' if None in values else ''} | UNIT | MEANING |"
        assert name in types, f"add to the table '{heading}' of {PAGE}, below `{above[name]}`, a row such as\n{row}"
        documented_type = types[name].removesuffix(f" or {absent}")
        allowed = {documented_type, "whole number"} if documented_type == "number" else {documented_type}
        assert documented_type == "setting" or not set(kinds) - {*allowed, "TYPE"}, (
            f"'{heading}', `{name}`: write\n{row}"
        )
        assert None not in values or types[name] != documented_type, (
            f"'{heading}', `{name}`: write '{documented_type} or {absent}'"
        )
    obsolete = types.keys() - found.keys()
    assert not obsolete, f"delete from the table '{heading}' of {PAGE} the rows of {', '.join(sorted(obsolete))}"
    assert list(types) == list(found), f"write the table '{heading}' of {PAGE} in the order {', '.join(found)}"


def flat(data, path=""):
    """Yield each key path of JSON data with its value; the entries of a list have the same key paths."""
    if isinstance(data, list) and data and isinstance(data[0], dict):
        for entry in data:
            yield from flat(entry, f"{path}[]")
        return
    if path in ("best", "best_result") or not isinstance(data, dict):
        yield path, data
        return
    if path == "search":
        yield path, data
    for key, value in data.items():
        yield from flat(value, f"{path}.{key}" if path else key)


def grouped(data):
    values = {}
    for name, value in flat(data):
        values.setdefault(name, []).append(value)
    return values


def test_every_csv_column_is_documented(output_dir, cli):
    exported = cli.ok("export", "--format", "csv", "--results-file", "-", "--output-dir", output_dir)
    table = list(csv.DictReader(io.StringIO(exported.out, newline="")))
    assert len(table) == 4
    columns = {name: [cell_value(row[name]) if row[name] else None for row in table] for name in table[0]}
    check("Trials CSV", columns, "empty")


def test_every_epoch_metric_is_documented(output_dir):
    lines = [line for path in output_dir.glob("*/metrics.jsonl") for line in path.read_text().splitlines()]
    epochs = [json.loads(line) for line in lines]
    assert len(epochs) == 5
    check("Epoch metrics", {name: [epoch[name] for epoch in epochs] for name in epochs[0]}, "null")


def test_every_results_key_is_documented(output_dir, cli):
    results = json.loads(cli("export", "--output-dir", output_dir).out)
    check("Results JSON", grouped(results), "null")
    entry = results["all_results"][0]
    assert list(results["best_result"]) == [key for key in entry if key != "error_message"]


def test_every_status_key_is_documented(output_dir, cli):
    status = json.loads(cli("status", "--json", "--output-dir", output_dir).out)
    check("Status JSON", grouped(status), "null")
    assert status["best"] in status["trials"]


@pytest.mark.parametrize(("column", "values"), [("kind", TrialKind), ("state", RowState), ("why_ended", WhyEnded)])
def test_every_enum_value_is_documented(column, values):
    (row,) = re.findall(rf"^\| `{column}` .*", TEXT, re.MULTILINE)
    missing = [value for value in values if f"`{value}`" not in row]
    assert not missing, f"name {', '.join(missing)} in the row `{column}` of the table 'Trials CSV' of {PAGE}"
