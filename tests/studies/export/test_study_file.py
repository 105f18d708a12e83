"""A study file contains a whole study, and its import gives an equal study in any storage."""

import hashlib
import json
import os
import time
from dataclasses import asdict, replace
from datetime import datetime

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import TrialState, create_trial

import studies
from search_spaces import ConfigurationError, TrainingConfig
from search_spaces.experiments.schema import Targets
from studies.study.claiming import prepare_sampling
from studies.study.presets import study_space
from studies.study.search_budget import search_settings
from studies.trials.claims import claim_next

EPOCHS = {
    "one": [{"epoch": 1, "val_loss": 0.1 + 0.2}],
    "broken": [{"epoch": 1, "val_loss": 3.5}],  # failed, and its retry has not started
    "search_0003": [{"epoch": 1, "val_loss": 1e-9}],
}


def epochs_of(name):
    return EPOCHS.get(name, [])


def finish_next(study, folder, outcome, value):
    prepare_sampling(study)
    claim = claim_next(study, folder)
    if claim.record.kind == "search":
        settings = search_settings(study)
        claim.record_config(studies.suggest_all(claim.trial, study_space(study), settings.start))
    studies.report_again(claim.trial, value, 1)
    claim.finish(outcome, value)


@pytest.fixture
def finish_some(start, outcome, tmp_path):
    """A function that creates a study with trials in every state, a prior, and trials of other programs."""

    def make(**place):
        old, old_folder = start({"a": TrainingConfig(experiment_name="a")}, path=tmp_path / "old")
        finish_next(old, old_folder, outcome, 0.25)
        study, folder = start({name: TrainingConfig(experiment_name=name) for name in ("one", "ពីរ", "broken")}, **place)
        studies.save_targets(study, Targets(character_accuracy=0.9))
        studies.fix_threads(study, folder, 2)
        finish_next(study, folder, outcome, 1 / 3)
        finish_next(
            study, folder, replace(outcome, why_ended=studies.WhyEnded.EARLY_STOPPED, unseen_char_accuracy=0.1), 0.7
        )
        finish_next(study, folder, replace(outcome, why_ended=studies.WhyEnded.FAILED, error_message="<b>ខ្មែរ"), 0.1)
        studies.add_search_trials(
            study, folder, studies.SearchRequest(at_least=4, warm_start=(studies.earlier_study("old", old),))
        )
        finish_next(study, folder, replace(outcome, why_ended=studies.WhyEnded.PRUNED), 0.2)
        studies.retry_failed_trials(study, folder)
        distribution = {"x": FloatDistribution(0, 1)}
        study.add_trial(create_trial(value=3.5, params={"x": 0.5}, distributions=distribution))
        study.add_trial(
            create_trial(state=TrialState.FAIL, user_attrs={"kind": "nonsense"}, intermediate_values={2: 1.0})
        )
        prepare_sampling(study)
        claim = claim_next(study, folder)  # interrupted: a search trial with sampled parameters and a report
        assert claim.record.kind == "search"
        claim.record_config(studies.suggest_all(claim.trial, study_space(study), TrainingConfig()))
        claim.trial.report(0.4, 1)
        claim.release()
        studies.request_stop(study)
        return study, folder

    return make


def state_of(study, folder):
    """Return what users see of a study, without disk usage and paths."""
    status = studies.study_status(study, folder).as_dict()
    return {"status": status, "results": studies.render_results(study, timestamp="")}


def read(path):
    return studies.read_study_file(path, lambda epoch: json.dumps(epoch) + "\n")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def import_file(path, url, folder, name="khmer-ocr"):
    studies.import_study(read(path), url, name, folder)
    return studies.load_study(folder.path, storage_url=url)[0]


@pytest.mark.parametrize("source", ["sqlite", "postgresql"])
def test_study_moves_between_storages_and_back(source, finish_some, tmp_path, url, new_database):
    study, folder = finish_some() if source == "sqlite" else finish_some(url=new_database())
    text = studies.study_file_text(study, epochs_of)
    file = read(write(tmp_path / "study.jsonl", text))
    assert file.metrics == {name: "".join(f"{json.dumps(one)}\n" for one in epochs) for name, epochs in EPOCHS.items()}
    places = {"server": url, "back": studies.default_storage_url(tmp_path / "back")}
    for name, place in places.items():
        target = studies.OutputFolder(tmp_path / name)
        moved = import_file(tmp_path / "study.jsonl", place, target)
        assert studies.study_file_text(moved, epochs_of) == text
        before, after = state_of(study, folder), state_of(moved, target)
        (interrupted,) = [row for row in before["status"]["trials"] if row["state"] == "interrupted"]
        pending = {"state": "waiting", "best_value": None, "epochs": 0, "started": None, "attempts": 0}
        before["status"]["trials"][interrupted["number"]] |= pending | {"model_name": None, "num_epochs": None}
        before["status"]["counts"] |= {"interrupted": 0, "waiting": after["status"]["counts"]["waiting"]}
        assert after == before
        write(tmp_path / "study.jsonl", studies.study_file_text(moved, epochs_of))


def test_imported_study_continues_like_the_original(finish_some, outcome, tmp_path):
    study, folder = finish_some()
    path = write(tmp_path / "study.jsonl", studies.study_file_text(study, epochs_of))
    target = studies.OutputFolder(tmp_path / "new")
    import_file(path, studies.default_storage_url(target.path), target)
    imported, _ = studies.load_study_for_changes(target.path)
    params = []
    for one, place in ((study, folder), (imported, target)):
        for value in (0.3, 0.8, 0.6, 0.9):
            finish_next(one, place, outcome, value)
        trials = one.get_trials()
        params.append([(trial.number, trial.state, trial.params, trial.distributions) for trial in trials])
    assert params[0] == params[1]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Phnom_Penh", "America/Caracas"])
def test_times_do_not_depend_on_the_time_zone(zone, start, outcome, tmp_path, monkeypatch):
    study, folder = start({"one": TrainingConfig()})
    finish_next(study, folder, outcome, 0.5)
    text = studies.study_file_text(study, epochs_of)
    path = write(tmp_path / "study.jsonl", text)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        target = studies.OutputFolder(tmp_path / "new")
        imported = import_file(path, studies.default_storage_url(target.path), target)
        (trial,) = imported.get_trials()
        assert studies.study_file_text(imported, epochs_of) == text
        assert trial.datetime_complete is not None
        assert abs((datetime.now() - trial.datetime_complete).total_seconds()) < 600
    finally:
        monkeypatch.undo()
        time.tzset()


def test_other_programs_texts_survive(start, tmp_path):
    study, _ = start({"one": TrainingConfig()})
    study.set_user_attr("note", "\ud83d alone, \u2028 separator, \x85, ខ្មែរ, \x00")
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"ខ": ["\u2029\udcff", None, 1e308]}))
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={0: float("inf")}))
    text = studies.study_file_text(study, epochs_of)
    target = studies.OutputFolder(tmp_path / "new")
    imported = import_file(write(tmp_path / "s.jsonl", text), studies.default_storage_url(target.path), target)
    assert studies.study_file_text(imported, epochs_of) == text
    assert imported.user_attrs["note"] == study.user_attrs["note"]


def signed(lines):
    content = "".join(f"{line}\n" for line in lines)
    return content + json.dumps({"sha256": hashlib.sha256(content.encode()).hexdigest()}) + "\n"


def changed(line, **changes):
    return json.dumps({**json.loads(line), **changes}, ensure_ascii=False)


def with_attribute(line, name, value):
    data = json.loads(line)
    data["attributes"][name] = value
    return json.dumps(data, ensure_ascii=False)


CHOICES = json.loads(distribution_to_json(CategoricalDistribution(("a", "b"))))
DAMAGES = {
    "empty": (lambda text, lines: "", "this is not a study file"),
    "results": (lambda text, lines: '{"timestamp": "x"}\n', "this is not a study file"),
    "a list": (lambda text, lines: "[1]\n", "this is not a study file"),
    "newer": (lambda text, lines: signed([changed(lines[0], version=2)]), "found version 2 of the format"),
    "truncated": (lambda text, lines: text[: len(text) // 2], "damaged or incomplete"),
    "without last line": (lambda text, lines: "".join(f"{line}\n" for line in lines), "damaged or incomplete"),
    "flipped digit": (lambda text, lines: text.replace("0.5", "0.6", 1), "damaged or incomplete"),
    "appended": (lambda text, lines: text + "\n", "damaged or incomplete"),
    "without invariants": (lambda text, lines: signed([changed(lines[0], attributes={}), *lines[1:]]), "damaged"),
    "other direction": (lambda text, lines: signed([changed(lines[0], direction="MINIMIZE")]), "damaged"),
    "damaged search": (lambda text, lines: signed([with_attribute(lines[0], "search", 3)]), "damaged"),
    "damaged space": (lambda text, lines: signed([with_attribute(lines[0], "space", [])]), "search space"),
    "unknown state": (lambda text, lines: signed([lines[0], changed(lines[1], state="DONE")]), "damaged"),
    "line without JSON": (lambda text, lines: signed([lines[0], "{", *lines[1:]]), "damaged"),
    "unknown distribution": (
        lambda text, lines: signed([lines[0], changed(lines[1], distributions={"x": {"name": "No"}})]),
        "damaged",
    ),
    "time without zone": (lambda text, lines: signed([lines[0], changed(lines[1], ended="2026-01-01")]), "damaged"),
    "parameter without distribution": (
        lambda text, lines: signed([lines[0], changed(lines[1], params={"x": 1.0})]),
        "not all parameters have a distribution",
    ),
    "unknown choice": (
        lambda text, lines: signed([lines[0], changed(lines[1], params={"x": "c"}, distributions={"x": CHOICES})]),
        "damaged",
    ),
    "huge step": (lambda text, lines: signed([lines[0], changed(lines[1], reports=[[2**40, 0.5]])]), "damaged"),
    "long key": (lambda text, lines: signed([with_attribute(lines[0], "k" * 600, 1)]), "damaged"),
    "key with NUL": (lambda text, lines: signed([lines[0], with_attribute(lines[1], "a\0", 1)]), "damaged"),
    "huge budget": (
        lambda text, lines: signed([with_attribute(lines[0], "search_trials", 10**12), *lines[1:]]),
        "attribute 'search_trials': damaged",
    ),
    "deep": (lambda text, lines: signed([lines[0], "[" * 100_000]), "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_or_foreign_file_is_refused(damage, start, outcome, tmp_path):
    study, folder = start({"one": TrainingConfig()})
    finish_next(study, folder, outcome, 0.5)
    text = studies.study_file_text(study, epochs_of)
    change, problem = DAMAGES[damage]
    path = write(tmp_path / "s.jsonl", change(text, text.splitlines()[:-1]))
    with pytest.raises(ConfigurationError, match=problem) as caught:
        read(path)
    (line,) = caught.value.problems
    assert line.startswith(f"{path}: ")


def test_folder_and_stop_request_of_another_study_are_ignored(start, outcome, tmp_path):
    study, folder = start({"one": TrainingConfig()})
    finish_next(study, folder, outcome, 0.5)
    text = studies.study_file_text(study, epochs_of)
    lines = text.splitlines()[:-1]
    forged = with_attribute(with_attribute(lines[0], "folder", {"id": "x", "path": "/etc"}), "stop", "now")
    file = read(write(tmp_path / "s.jsonl", signed([forged, *lines[1:]])))
    assert studies.study_file_text(file.study, epochs_of) == text
    assert "folder" not in file.study.user_attrs
    # A text editor may add a byte order mark.
    assert read(write(tmp_path / "s.jsonl", f"\ufeff{text}")).study.user_attrs == file.study.user_attrs


@pytest.mark.parametrize("name", ["../../etc", "search_0007", ".study", "a/b", ""])
def test_trial_with_a_forged_name_is_refused(name, start, outcome, tmp_path):
    study, folder = start({"one": TrainingConfig()})
    finish_next(study, folder, outcome, 0.5)
    lines = studies.study_file_text(study, epochs_of).splitlines()[:-1]
    path = write(tmp_path / "s.jsonl", signed([lines[0], with_attribute(lines[1], "experiment_name", name)]))
    with pytest.raises(ConfigurationError, match="trial 0: damaged"):
        read(path)


def test_unreadable_file_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    for name, problem in {
        "missing": "No such file",
        "binary": "not a text file",
        "pipe": "regular",
        ".": "folder",
    }.items():
        with pytest.raises(ConfigurationError, match=rf"cannot be read \(.*{problem}"):
            read(tmp_path / name)


class TestImport:
    @pytest.fixture
    def source(self, start, outcome, tmp_path):
        study, folder = start({"one": TrainingConfig(), "two": TrainingConfig()}, path=tmp_path / "source")
        finish_next(study, folder, outcome, 0.5)
        return read(write(tmp_path / "study.jsonl", studies.study_file_text(study, epochs_of)))

    @pytest.fixture
    def target(self, tmp_path):
        return studies.OutputFolder(tmp_path / "target")

    def test_folder_with_a_study_is_refused(self, source, target, start):
        start({"mine": TrainingConfig()}, path=target.path)
        url = studies.default_storage_url(target.path)
        for name, problem in {
            "khmer-ocr": "already contains the study 'khmer-ocr'",
            "other": "belongs to the study",
        }.items():
            with pytest.raises(ConfigurationError, match=problem):
                studies.import_study(source, url, name, target)
        assert [study.study_name for study in optuna.get_all_study_summaries(studies.open_storage(url))] == [
            "khmer-ocr"
        ]

    def test_folder_with_other_files_is_refused(self, source, target):
        for name in ("metrics.jsonl", "mine.txt"):
            (target.path / "one").mkdir(parents=True)
            (target.path / "one" / name).write_text("mine")
            with pytest.raises(ConfigurationError, match="the import did not write this file"):
                studies.check_import(source, studies.default_storage_url(target.path), "khmer-ocr", target)
            (target.path / "one" / name).unlink()
            (target.path / "one").rmdir()

    def test_folder_of_a_pending_trial_is_refused(self, source, target):
        (target.path / "two").mkdir(parents=True)
        (target.path / "two" / "mine.txt").touch()
        with pytest.raises(ConfigurationError, match="the import did not write this file"):
            studies.check_import(source, studies.default_storage_url(target.path), "khmer-ocr", target)

    def test_server_database_without_tables_is_accepted(self, source, target, postgresql):
        url = postgresql.create_database("without_tables")
        studies.check_import(source, url, "khmer-ocr", target)
        studies.import_study(source, url, "khmer-ocr", target)
        assert len(studies.load_study(target.path, storage_url=url)[0].get_trials()) == 2

    def test_link_out_of_the_folder_is_refused(self, source, target, tmp_path):
        target.path.mkdir()
        (tmp_path / "elsewhere").mkdir()
        (target.path / "one").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ConfigurationError, match="symbolic link"):
            studies.import_study(source, studies.default_storage_url(target.path), "x", target)
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_other_study_of_the_database_is_unchanged(self, source, target, start, url, tmp_path):
        mine, _ = start({"mine": TrainingConfig()}, path=tmp_path / "mine", url=url)
        with pytest.raises(ConfigurationError, match="another --study name in this storage"):
            studies.import_study(source, url, "khmer-ocr", target)
        studies.import_study(source, url, "second", target)
        names = [summary.study_name for summary in optuna.get_all_study_summaries(studies.open_storage(url))]
        assert sorted(names) == ["khmer-ocr", "second"]
        assert len(mine.get_trials()) == 1
        assert len(studies.load_study(target.path, storage_url=url)[0].get_trials()) == 2

    @pytest.fixture
    def interruptions(self):
        with pytest.MonkeyPatch.context() as patch:
            yield patch

    @pytest.mark.parametrize("call", range(12))
    def test_interrupted_import_leaves_no_study_and_can_be_repeated(self, call, source, target, interruptions):
        calls = 0

        def interrupted(function):
            def wrapper(*arguments, **named):
                nonlocal calls
                calls += 1
                if calls == call + 1:
                    raise KeyboardInterrupt
                return function(*arguments, **named)

            return wrapper

        module = "studies.export.study_file."
        for name in ("open_storage", "create_study", "add_trial", "write_bytes", "rename_study"):
            original = getattr(__import__("studies.export.study_file", fromlist=["x"]), name)
            interruptions.setattr(module + name, interrupted(original))
        interruptions.setattr(optuna.Study, "set_user_attr", interrupted(optuna.Study.set_user_attr))
        url = studies.default_storage_url(target.path)
        try:
            studies.import_study(source, url, "khmer-ocr", target)
        except KeyboardInterrupt:
            with pytest.raises(ConfigurationError):
                studies.load_study(target.path)
            interruptions.undo()
            studies.import_study(source, url, "khmer-ocr", target)
        else:
            assert call >= 9
        study, _ = studies.load_study(target.path)
        assert studies.study_file_text(study, epochs_of) == studies.study_file_text(source.study, epochs_of)
        assert [summary.study_name for summary in optuna.get_all_study_summaries(studies.open_storage(url))] == [
            "khmer-ocr"
        ]
        assert asdict(studies.study_status(study, target))["study"] == "khmer-ocr"
