import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from search_spaces import TrainingConfig


def read_file(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def read_text(text):
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_json_export_goes_to_standard_output_or_a_file(cli, run_study, tree):
    before = tree(run_study.folder)
    export = ["export", "--output-dir", run_study.folder]
    printed = cli(*export)
    assert cli(*export, "--results-file", "-").out.splitlines()[2:] == printed.out.splitlines()[2:]
    written = cli(*export, "--results-file", "r.json")
    assert (written.code, written.out, written.err) == (0, "", "2 results written to r.json\n")
    ran = json.loads(run_study.results.read_text())
    assert list(json.loads(printed.out)) == list(ran)
    assert json.loads(printed.out)["all_results"] == json.loads(Path("r.json").read_text())["all_results"]
    assert json.loads(printed.out)["all_results"] == ran["all_results"]
    assert tree(run_study.folder) == before


def test_trials_csv_is_written_for_spreadsheets(cli, run_study):
    written = cli("export", "--output-dir", run_study.folder, "--format", "csv")
    assert (written.code, written.out) == (0, "")
    (path,) = Path().glob("*.csv")
    assert re.fullmatch(r"trials_\d{8}_\d{6}\.csv", path.name)
    assert written.err == f"2 trials written to {path}\n"
    assert path.read_bytes().startswith("\ufeffnumber,experiment_name,".encode())
    broken, done = read_file(path)
    assert (broken["experiment_name"], broken["state"], broken["why_ended"]) == ("broken", "failed", "failed")
    assert broken["error_type"] == "RuntimeError"
    assert broken["error_message"] == "simulated error"
    assert (done["experiment_name"], done["state"], done["batch_size"]) == ("ខ្មែរ", "completed", "8")
    assert {field.name for field in fields(TrainingConfig)} <= done.keys()
    assert (done["target_character_accuracy"], done["target_training_time_per_epoch"]) == ("missed", "met")
    (result,) = [
        entry
        for entry in json.loads(run_study.results.read_text())["all_results"]
        if entry["experiment_name"] == "ខ្មែរ"
    ]
    for name in ("best_val_char_accuracy", "best_val_seq_accuracy", "final_train_loss", "total_epochs"):
        assert float(done[name]) == result[name]


def test_pipe_receives_only_the_table(cli, run_study):
    trials = cli("export", "--output-dir", run_study.folder, "--results-file", "-", "--format", "csv")
    assert trials.out.startswith("number,experiment_name,kind,state,")
    assert trials.err == ""
    assert [row["experiment_name"] for row in read_text(trials.out)] == ["broken", "ខ្មែរ"]
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize(
    ("path", "problem"), [("nowhere/r", "there is no folder"), (".", "this is a folder; expected a file")]
)
def test_unwritable_file_and_missing_study_are_reported_together(cli, tmp_path, form, path, problem):
    refused = cli.error("export", "--format", form, "--results-file", path, "--output-dir", tmp_path / "no study")
    assert problem in refused
    assert refused.count("error: ") == 2


def test_torch_is_not_imported(run_study):
    code = "import sys; from tuner.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    argv = ["export", "--output-dir", str(run_study.folder), "--format", "csv", "--results-file", "-"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ខ្មែរ" in done.stdout
