"""The dashboard for databases that are locked, missing, damaged, replaced or being written."""

import gzip
import json
import os
import shutil
import sqlite3
import time
from contextlib import closing

import optuna
import pytest

from studies import OutputFolder, default_storage_url, load_study
from studies.dashboard.artifacts import artifact_store
from studies.dashboard.view import page_path

NO_STUDY = "this dashboard shows no such study; open the URL that `khmer-tuner dashboard` printed"


@pytest.fixture
def database(tmp_path, create):
    """The database of a study with two trials."""
    create(tmp_path / "out", trials=2)
    return tmp_path / "out" / "study.db"


def test_page_shows_the_study_of_its_folder(served):
    study = served.study()
    assert study["name"] == "khmer-ocr"
    assert study["objective_names"] == ["val_char_accuracy"]
    assert [trial["state"] for trial in study["trials"]] == ["Complete", "Running"]
    assert [point["step"] for point in study["trials"][0]["intermediate_values"]] == [1, 2, 3]
    assert served.url.endswith("/dashboard/studies/1")
    assert b"bundle.js" in served.request("/dashboard/studies/1").body


def test_list_of_trials_shows_trial_names(served):
    assert b'src="/static/bundle.js?names"' in served.request("/dashboard").body
    script = served.request("/static/bundle.js?names", Accept_Encoding="gzip")
    assert script.header("Content-Encoding") == "gzip"
    assert gzip.decompress(script.body).count(b"'experiment_name'") == 1
    assert script.body == served.request("/static/bundle.js?names", Accept_Encoding="gzip").body


def test_each_study_of_a_database_has_its_page(tmp_path, create):
    url = f"sqlite:///{tmp_path}/shared.db"
    create(tmp_path / "one", name="one", url=url)
    create(tmp_path / "two", name="two", url=url)
    assert page_path(load_study(tmp_path / "one")[0]) == "/dashboard/studies/1"
    assert page_path(load_study(tmp_path / "two")[0]) == "/dashboard/studies/2"


@pytest.fixture
def two_studies(tmp_path, create):
    """Two studies in one database: the URL path of an artifact of each study, keyed by study name."""
    paths = {}
    (tmp_path / "plot.png").write_bytes(b"plot")
    for name in ("one", "two"):
        study = create(tmp_path / name, name=name, url=f"sqlite:///{tmp_path}/shared.db", trials=1)
        trial = study.ask()
        identifier = optuna.artifacts.upload_artifact(
            artifact_store=artifact_store(OutputFolder(tmp_path / name)),
            file_path=str(tmp_path / "plot.png"),
            study_or_trial=trial,
            mimetype="image/png",
        )
        paths[name] = f"/artifacts/{study._study_id}/{trial._trial_id}/{identifier}"
    return paths


def test_other_studies_of_the_database_are_hidden(tmp_path, serve, two_studies):
    with serve(tmp_path / "two") as served:
        own = json.loads(served.request("/api/studies").body)["study_summaries"]
        assert [(study["study_id"], study["study_name"]) for study in own] == [(2, "two")]
        assert json.loads(served.request("/api/studies/").body)["study_summaries"] == own
        assert served.request("/api/studies", "HEAD").header("Content-Length") == str(
            len(served.request("/api/studies").body)
        )
        paths = ("/api/studies/2", "/csv/2", two_studies["two"], "/csv/%D9%A2")
        assert [served.request(path).code for path in paths] == [200] * len(paths)
        # "%D9%A1" is the number 1 in Arabic digits.
        for path in (
            "/api/studies/1",
            "/api/studies/01/param_importances",
            "/csv/1",
            "/csv/%D9%A1",
            two_studies["one"],
        ):
            reply = served.request(path)
            assert (reply.code, reply.reason) == (404, NO_STUDY), path
        reply = served.request(two_studies["one"].replace("/artifacts/1/", "/artifacts/2/"))
        assert (reply.code, reply.reason) == (404, "this study has no such trial; choose one from the list of trials")


def test_unreadable_database_is_reported_until_it_is_readable_again(tmp_path, create, serve, database):
    create(tmp_path / "other", trials=5)
    with serve(tmp_path / "out") as served:

        def refused():
            reply = served.request("/api/studies/1?after=0")
            assert (reply.code, reply.header("Retry-After")) == (503, "10")
            assert served.request("/dashboard").code == 200  # the page shows the reason
            return reply.reason

        assert len(served.study()["trials"]) == 2

        with closing(sqlite3.connect(database, isolation_level=None)) as locker:
            locker.execute("BEGIN EXCLUSIVE")
            assert refused().startswith(f"{database}: database is locked; let the process that holds the lock continue")
        assert len(served.study()["trials"]) == 2

        renamed = database.rename(tmp_path / "renamed.db")
        assert "there is no study database" in refused()
        assert "there is no study database" in refused()
        shutil.copy(renamed, database)
        assert len(served.study()["trials"]) == 2

        (tmp_path / "damaged.db").write_bytes(b"SQLite format 3\0" + b"\x7f" * 5000)
        os.replace(tmp_path / "damaged.db", database)
        assert "the file is damaged" in refused()

        os.replace(tmp_path / "other" / "study.db", database)
        assert len(served.study()["trials"]) == 5


def test_deleted_study_is_reported(tmp_path, serve, database):
    with serve(tmp_path / "out") as served:
        assert served.request("/api/studies/1").code == 200
        optuna.delete_study(study_name="khmer-ocr", storage=default_storage_url(tmp_path / "out"))
        reply = served.request("/api/studies/1")
        assert (reply.code, reply.reason) == (404, NO_STUDY)


def test_reports_of_a_running_trial_are_shown(tmp_path, create, serve):
    study = create(tmp_path / "out", trials=1)
    trial = study.ask()
    trial.report(0.25, 1)
    with serve(tmp_path / "out") as served:
        assert served.study()["trials"][1]["intermediate_values"] == [{"step": 1, "value": 0.25}]
        trial.report(0.5, 2)
        study.tell(trial, 0.5)
        assert wait_for(lambda: served.study()["trials"][1].get("values")) == [0.5]
        assert len(served.study()["trials"][1]["intermediate_values"]) == 2


def wait_for(poll):
    """Poll until the result is true; optuna-dashboard itself reads the study again only after two seconds."""
    while not (result := poll()):
        time.sleep(0.2)
    return result


def test_polling_does_not_affect_training(tmp_path, child, serve):
    """A study polled by a dashboard equals an unpolled study, and no worker reports a locked database."""
    assert child("work", tmp_path / "watched", 1, 0).communicate(timeout=60)[1] == ""
    polls = 0
    with serve(tmp_path / "watched", lock_timeout_s=60) as served:
        workers = [child("work", tmp_path / name, 1, 6) for name in ("watched", "alone")]
        while workers[0].poll() is None:
            for path in ("/api/studies/1?after=0", "/csv/1", "/api/studies", "/api/studies/1/param_importances"):
                assert served.request(path).code in (200, 400)  # 400: too few trials for importances
            polls += 1
        assert [worker.communicate(timeout=60)[1] for worker in workers] == ["", ""]
        before = (tmp_path / "watched" / "study.db").read_bytes()
        served.study()
        assert (tmp_path / "watched" / "study.db").read_bytes() == before
    assert polls > 0
    watched, alone = (load_study(tmp_path / name)[0].get_trials() for name in ("watched", "alone"))
    assert len(watched) == 7
    assert [comparable(trial) for trial in watched] == [comparable(trial) for trial in alone]


def comparable(trial):
    """Return the content of a trial without its workers and times."""
    attributes = {name: value for name, value in trial.user_attrs.items() if name != "attempts"}
    return trial.number, trial.state, trial.values, trial.params, trial.intermediate_values, attributes
