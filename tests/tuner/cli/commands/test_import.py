"""`import` recreates a study that looks the same in every command and trains its pending trials to the same results."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from optuna_dashboard import get_note

from search_spaces import ConfigurationError
from studies import SearchRequest, add_search_trials, load_study, load_study_for_changes
from tuner import HyperparameterTuner, RunOptions
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.study_files import load_earlier_studies
from tuner.session.study_setup import ExistingStudy
from tuner.workers.run_study import run_study

ROOT = Path(__file__).parents[4]
ONCE = ("tables created", "renaming to study.db", "database created", "renaming to owner.json", "folder claimed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, configs_in, spaces_in, make_watcher):
    """A study with a preset, two finished search trials and two waiting ones, and a prior."""
    folder = tmp_path_factory.mktemp("trained")
    config, space = configs_in(folder)({"ខ្មែរ": {}}), spaces_in(folder)()
    earlier = folder / "earlier"
    for out, warm_start in ((earlier, []), (folder / "out", [str(earlier)])):
        search = SearchRequest(at_least=2, warm_start=load_earlier_studies(warm_start, out))
        options = RunOptions(out, results_file=f"{out}.json", space_file=str(space), search=search)
        HyperparameterTuner(str(config), options=options, display=make_watcher()).run_experiments()
    add_search_trials(*load_study_for_changes(folder / "out"), SearchRequest(more=2))
    return folder / "out"


@pytest.fixture
def original(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "original"))


def seen(cli, folder, *options):
    """Return what the reading commands show of a study, without disk usage, times of the command and locations."""
    study = ["--output-dir", folder, *options]
    status = json.loads(cli("status", "--json", *study).out)
    results = json.loads(cli("export", *study).out)
    results.pop("timestamp")
    report = cli("report", "--out", "-", *study).out
    report = (
        re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "TIME", report).replace("<wbr>", "").replace(str(folder), "FOLDER")
    )
    sections = re.sub(r"(sqlite|postgresql)[^<]*", "STORAGE", report)
    trials = cli("export", "--format", "csv", "--results-file", "-", *study).out
    disk = status.pop("disk")
    assert disk["database"] >= 0
    return {"status": status, "results": results, "report": sections, "csv": trials}


def rewrite(path, number, change):
    """Change one line of a study file, and its digest."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]
    data = json.loads(lines[number])
    change(data)
    lines[number] = json.dumps(data) + "\n"
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    path.write_text("".join(lines) + json.dumps({"sha256": digest}) + "\n", encoding="utf-8")


def test_imported_study_looks_the_same(cli, original, working_dir):
    exported = cli("export", "--format", "study", "--output-dir", original)
    (path,) = working_dir.glob("study_*.jsonl")
    assert (exported.code, exported.out, exported.err) == (0, "", f"study with 5 trials written to {path.name}\n")
    # The plots and checkpoints are not in the file.
    for name in ("artifacts", "ខ្មែរ/checkpoints", "ខ្មែរ/logs", "ខ្មែរ/tensorboard", "ខ្មែរ/configs"):
        shutil.rmtree(original / name, ignore_errors=True)
    done = cli("import", path, "--output-dir", "new")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "imported: study khmer-ocr, 3 finished trials, 2 pending",
        "run `khmer-tuner resume --output-dir new` to train the pending trials",
    ]
    cli("export", "--format", "study", "--output-dir", "new", "--results-file", "again.jsonl")
    assert Path("again.jsonl").read_bytes() == path.read_bytes()
    before, after = seen(cli, original), seen(cli, working_dir / "new")
    assert before["status"]["search"]["prior"][0]["used"] == 3
    # The three observations are shown apart from the study's five trials.
    assert (before["report"].count("3 observations from earlier"), len(before["status"]["trials"])) == (1, 5)
    assert "| prior | 3 observations from earlier" in get_note(load_study(original)[0])
    for name, value in before.items():
        assert after[name] == value, name
    assert cli("status", "--output-dir", "new").out.count("prior: 3 observations from earlier (best ") == 1


def test_pending_trials_are_trained_to_the_same_results(cli, original, working_dir):
    cli("export", "--format", "study", "--output-dir", original, "--results-file", "s.jsonl")
    cli("import", "s.jsonl", "--output-dir", "new")
    outcomes = []
    for folder in (original, working_dir / "new"):
        cli.ok("resume", "--output-dir", folder, "--results-file", f"{folder.name}.json")
        trials = load_study(folder)[0].get_trials()
        outcomes.append([(one.number, one.params, one.value, one.intermediate_values) for one in trials])
    assert outcomes[0] == outcomes[1]
    best = [json.loads(cli("best", "--json", "--output-dir", folder).out) for folder in ("new", original)]
    assert best[0]["name"] == best[1]["name"]


def test_study_on_a_server_is_exported_without_its_password(cli, original, working_dir, new_database, monkeypatch):
    url = new_database()
    password = url.split(":")[2].split("@")[0]
    cli("export", "--format", "study", "--output-dir", original, "--results-file", "s.jsonl")
    monkeypatch.setenv("KHMER_TUNER_STORAGE", url)
    imported = cli("import", "s.jsonl", "--output-dir", "server", "--json")
    assert json.loads(imported.out) == {"study": "khmer-ocr", "finished": 3, "pending": 2}
    exported = cli("export", "--format", "study", "--output-dir", "server", "--results-file", "server.jsonl")
    assert Path("server.jsonl").read_bytes() == Path("s.jsonl").read_bytes()
    files = [path.read_bytes() for path in working_dir.rglob("*") if path.is_file()]
    assert not [one for one in files if password.encode() in one]
    assert password not in imported.out + imported.err + exported.out + exported.err
    assert seen(cli, working_dir / "server")["status"]["counts"]["completed"] >= 1


def test_dataset_elsewhere_is_named_in_the_next_command(cli, original, working_dir):
    cli("export", "--format", "study", "--output-dir", original, "--results-file", "s.jsonl")
    moved = {"metadata_path": "/elsewhere/metadata.yaml"}
    rewrite(Path("s.jsonl"), 0, lambda header: header["attributes"]["invariants"]["dataset"].update(moved))
    done = cli("import", "s.jsonl", "--output-dir", "new")
    assert "run `khmer-tuner resume --output-dir new --metadata FILE` to train the pending trials" in done.out


def test_export_names_interrupted_trials(cli, original, make_watcher):
    session = Session.reopen(ExistingStudy.load(original), make_watcher(after_epoch=1))
    with pytest.raises(KeyboardInterrupt):
        run_study(session, TrialFilter(), StopConditions(), results_file=str(original.parent / "r.json"))
    done = cli("export", "--format", "study", "--output-dir", original, "--results-file", "s.jsonl")
    assert done.err == ("study with 5 trials (unfinished, and starting again after an import: 1) written to s.jsonl\n")
    imported = cli("import", "s.jsonl", "--output-dir", "new", "--json")
    assert json.loads(imported.out) == {"study": "khmer-ocr", "finished": 3, "pending": 2}


@pytest.mark.parametrize("epoch", [{"epoch": "one"}, {}, {"epoch": 1, "train_loss": None}])
def test_damaged_metrics_are_refused(epoch, cli, original, working_dir):
    cli("export", "--format", "study", "--output-dir", original, "--results-file", "s.jsonl")
    rewrite(Path("s.jsonl"), 1, lambda trial: trial["epochs"].insert(0, epoch))
    done = cli("import", "s.jsonl", "--output-dir", "new")
    assert (done.code, done.out, Path("new").exists()) == (2, "", False)
    assert done.err.startswith("error: s.jsonl: damaged (")


def test_warm_start_from_a_folder_and_from_its_file_are_equal(original, cli):
    cli("export", "--format", "study", "--output-dir", original, "--results-file", "s.jsonl")
    (from_folder,), (from_file,) = (load_earlier_studies([path], "new") for path in (str(original), "s.jsonl"))
    assert (from_folder.name, from_file.name) == ("original", "s.jsonl")
    assert from_folder == replace(from_file, name="original")
    with pytest.raises(ConfigurationError, match=r"--warm-start: .*: found this study itself"):
        load_earlier_studies([str(original)], original)


def test_option_may_be_repeated_and_the_plan_names_all_studies(cli, original, trained):
    config = trained.parent / "experiments.yaml"
    arguments = ["run", "--config", config, "--trials", "2", "--output-dir", "new", "--dry-run"]
    plan = cli.ok(*arguments, "--warm-start", original, "--warm-start", trained.parent / "earlier")
    lines = [line for line in plan.out.splitlines() if line.startswith("prior:")]
    assert lines == ["prior:   6 finished trials of original", "prior:   3 finished trials of earlier"]


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
def test_import_that_is_killed_again_and_again_leaves_no_study_until_it_is_complete(
    storage, cli, original, working_dir, new_database, environment, monkeypatch
):
    cli("export", "--format", "study", "--output-dir", original, "--results-file", "s.jsonl")
    script = "import json, sys; from kills.child import *; sys.exit(perform(Task(**json.loads(sys.argv[1]))))"
    variables = environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}

    def run(start, folder, **kill_at):
        if storage == "postgresql":
            variables["KHMER_TUNER_STORAGE"] = urls[folder]
        task = {"command": ["import", "s.jsonl", "--output-dir", folder], "start": start, "kill_at": kill_at}
        return subprocess.run([sys.executable, "-c", script, json.dumps(task)], env=variables).returncode

    urls = {"undisturbed": new_database(), "killed": new_database()}
    assert run(1, "undisturbed") == 0
    lines = (json.loads(line) for line in Path("events.jsonl").read_text().splitlines())
    passages = next(line["passages"] for line in lines if line.get("passages"))
    last = "after study renamed"
    # Later processes find the database and the owner file.
    once = [point for step in ONCE for side in ("before", "after") if (point := f"{side} {step}") in passages]
    often = [point for point in passages if point not in (*once, last)]
    kills = [(point, 1) for point in once] + [(point, passages[point]) for point in often]
    assert len(kills) >= 16
    if storage == "postgresql":
        kills = [("after trial imported", 2), ("before study renamed", 1)]
    for start, (point, number) in enumerate(kills, start=2):
        assert run(start, "killed", **{point: number}) == -signal.SIGKILL, (point, number)
        cli.error("status", "--output-dir", "killed")
    assert run(len(kills) + 2, "killed", **{last: 1}) == -signal.SIGKILL
    for folder in urls:
        monkeypatch.setenv("KHMER_TUNER_STORAGE", urls[folder] if storage == "postgresql" else "")
        cli("export", "--format", "study", "--output-dir", folder, "--results-file", f"{folder}.jsonl")
        assert Path(f"{folder}.jsonl").read_bytes() == Path("s.jsonl").read_bytes()
    print(f"\n{storage}: {len(kills) + 1} kills")
