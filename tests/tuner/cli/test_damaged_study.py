"""Damaged content of a study is an error that names it; the trials of other programs are ignored."""

import json
import sqlite3

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from tuner.cli.output import print_json

NAME = "ខ្មែរ"  # the experiment of `run_study` that has completed, as trial 1
COMMANDS = (["status"], ["show", NAME], ["export", "--results-file", "results.json"], ["resume"])


def add_trial(folder, attributes, **settings):
    study = optuna.load_study(study_name="khmer-ocr", storage=f"sqlite:///{folder}/study.db")
    study.add_trial(create_trial(value=0.99, user_attrs=attributes, **settings))


def change(folder, statement):
    with sqlite3.connect(folder / "study.db") as connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


@pytest.fixture
def preset(copy_of_the_study):
    """The attributes of a completed preset."""
    storage = f"sqlite:///{copy_of_the_study}/study.db"
    return optuna.load_study(study_name="khmer-ocr", storage=storage).trials[1].user_attrs


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": ["x"]}, "kind"),
        ({"kind": {"preset": 1}}, "kind"),
        ({"experiment_name": "../x"}, "experiment_name"),
        ({"experiment_name": ["x"]}, "experiment_name"),
        ({}, f"it is a second trial of '{NAME}'"),
        ({"experiment_name": "new", "config": 3}, "config"),
        ({"experiment_name": "new", "attempts": [{"began": 1}]}, "attempts"),
        ({"experiment_name": "new", "outcome": {"why_ended": "boredom"}}, "outcome"),
    ],
)
def test_a_trial_with_damaged_attributes_is_named(changes, expected, copy_of_the_study, preset, cli):
    add_trial(copy_of_the_study, preset | changes)
    for command in COMMANDS:
        done = cli.error(*command, "--output-dir", copy_of_the_study)
        assert "trial 2: damaged" in done
        assert expected in done
        assert "restore a backup" in done


@pytest.mark.parametrize(
    "statement",
    [
        "update trial_user_attributes set value_json = '{' where trial_id = 1",
        "update trial_user_attributes set value_json = null where trial_id = 1 and key = 'config'",
        "delete from trial_user_attributes where trial_id = 1 and key = 'kind'",
        "insert into trial_values values (99, 1, 0, null, 'FINITE')",
        "insert into trial_intermediate_values values (99, 1, 9, 'x', 'FINITE')",
        "insert into trial_params values (99, 1, 'gamma', 0.5, '{}')",
        "insert into trial_params values (99, 1, null, 0.5, "
        """'{"name": "FloatDistribution", "attributes": {"low": 0.1, "high": 0.9}}')""",
    ],
)
def test_the_trial_of_an_undecodable_value_is_named(statement, copy_of_the_study, cli):
    change(copy_of_the_study, statement)
    assert "trial 0: damaged" in cli.error("status", "--output-dir", copy_of_the_study)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("update study_user_attributes set value_json = '{' where key = 'targets'", "value '{'"),
        ("update study_user_attributes set value_json = '[]' where key = 'targets'", "attribute 'targets'"),
        ("update study_user_attributes set value_json = '[]' where key = 'invariants'", "attribute 'invariants'"),
        ("update study_user_attributes set value_json = 'null' where key = 'invariants'", "attribute 'invariants'"),
        (
            "update study_user_attributes set value_json = json_set(value_json, '$.models.tiny', 3)"
            " where key = 'invariants'",
            "attribute 'invariants'",
        ),
        ("delete from study_directions", "'direction'"),
        ("update study_directions set direction = 'UP'", "'UP'"),
        ("update trials set state = 'ASLEEP' where trial_id = 1", "'ASLEEP'"),
        ("update trials set datetime_start = 'yesterday' where trial_id = 1", "yesterday"),
        ("delete from trials where trial_id = 1", "trial 0"),
    ],
)
def test_damage_to_the_whole_study_is_an_error_that_names_the_location(statement, expected, copy_of_the_study, cli):
    change(copy_of_the_study, statement)
    for command in (["status"], ["resume"]):
        done = cli.error(*command, "--output-dir", copy_of_the_study)
        assert "damaged" in done
        assert expected in done
        assert "restore a backup" in done


def test_damaged_study_is_not_reported_as_a_foreign_folder(run_study, copy_of_the_study, cli):
    change(copy_of_the_study, "update study_user_attributes set value_json = '3' where key = 'invariants'")
    done = cli.error("run", "--config", run_study.config, "--output-dir", copy_of_the_study)
    assert "attribute 'invariants': damaged" in done
    assert "move the folder away" not in done


def test_incompatible_distribution_of_another_program_refuses_new_trials(copy_of_the_study, cli, write_space):
    several = ["--space", write_space(), "--trials", 2, "--output-dir", copy_of_the_study]
    other = {"warmup_epochs": CategoricalDistribution(["few", "many"])}
    add_trial(copy_of_the_study, {}, params={"warmup_epochs": "few"}, distributions=other)
    assert "trial 2, of another program, has the distribution " in cli.error("search", *several)
    status = json.loads(cli("status", "--json", "--output-dir", copy_of_the_study).out)
    assert status["search"] is None
    assert len(status["trials"]) == 2


def test_incompatible_distribution_keeps_pending_trials_pending(copy_of_the_study, cli, write_space):
    cli.ok("enqueue", "--space", write_space(), "--trials", 2, "--output-dir", copy_of_the_study)
    other = {"warmup_epochs": CategoricalDistribution(["few", "many"])}
    add_trial(copy_of_the_study, {}, params={"warmup_epochs": "few"}, distributions=other)
    for command in ("resume", "worker"):
        done = cli.error(command, "--output-dir", copy_of_the_study)
        assert "of another program, has the distribution CategoricalDistribution" in done
    assert json.loads(cli("status", "--json", "--output-dir", copy_of_the_study).out)["counts"]["waiting"] == 2


def test_json_has_only_finite_numbers(capsys):
    print_json({"loss": float("nan"), "all": [float("inf"), 1.5]})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"loss": None, "all": [None, 1.5]}
