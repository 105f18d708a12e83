"""Output is safe for any text: passwords, errors, names."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import sqlalchemy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from optuna_dashboard import get_note

import studies
from search_spaces import ConfigurationError, TrainingConfig
from search_spaces.diagnostics.disk import write_json
from search_spaces.diagnostics.names import name_problem
from studies.storage.url import without_password
from studies.trials.claims import claim_next

SCHEMA = json.loads((Path(__file__).parent / "results_schema.json").read_text())
CANARY = "c4n4ry"
ANY = st.text(max_size=20)
# Any password that contains the canary.
SECRETS = st.builds(lambda before, after: before + CANARY + after, ANY, ANY)
LOCATIONS = st.sampled_from(["host/db", "host:5432/db?connect_timeout=5", "[::1]/db", "/db?host=/run/x", ""])
DIALECTS = ("postgresql+psycopg", "postgresql", "postgres", "Postgresql", "mysql", "sqlite", "")
SCHEMES = st.sampled_from([f"{name}{separator}" for name in DIALECTS for separator in ("://", ":/", ":", "//", "")])
USERS = st.sampled_from(["user", "", "a@b", "me%40here", "ខ្មែរ", "a/b", "two words"])


@given(scheme=SCHEMES, user=USERS, secret=SECRETS, location=LOCATIONS)
@example(scheme="postgresql+psycopg://", user="user", secret=f"with space {CANARY}", location="host/db")
@example(scheme="sqlite://", user="user", secret=CANARY, location="/x/study.db")
@example(scheme="", user="user", secret=CANARY, location="host/db")
@example(scheme="postgresql+psycopg://", user="a@b", secret=CANARY, location="host/db")
def test_password_of_any_storage_url_is_masked(scheme, user, secret, location):
    url = f"{scheme}{user}:{secret}@{location}"
    assert CANARY not in studies.mask_password(url)
    problem = problem_of(url)
    assert problem is None or CANARY not in problem
    if problem is None:
        assert CANARY not in without_password(url)
        assert CANARY not in studies.storage_error_text(connection_error(url), url)


def problem_of(url):
    try:
        studies.check_storage_url(url)
    except ConfigurationError as error:
        return str(error)
    return None


def connection_error(url):
    return sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception(f"cannot connect to {url}: no route to host"))


@given(
    secret=ANY.filter(lambda secret: len(secret) > 0), option=st.sampled_from(["password", "sslpassword", "PassWord"])
)
def test_password_in_url_options_is_neither_shown_nor_stored(secret, option):
    url = sqlalchemy.URL.create(
        "postgresql+psycopg", "user", f"{CANARY}{secret}", "host", 5432, "db", {option: f"{secret}{CANARY}"}
    ).render_as_string(hide_password=False)
    assert CANARY not in studies.mask_password(url)
    assert CANARY not in without_password(url)
    assert sqlalchemy.make_url(without_password(url)).database == "db"


@given(name=ANY | st.sampled_from(["..", ".", "", "/etc", "a/../../b", ".study", "x/", "\0", "ខ្មែរ"]))
def test_folder_of_any_trial_is_inside_the_output_folder(name, tmp_path):
    folder = studies.OutputFolder(tmp_path)
    try:
        path = folder.trial_dir(name)
    except ConfigurationError:
        assert name_problem(name) is not None
        return
    assert path.parent == folder.path
    if name_problem(name) is None:
        path.mkdir(exist_ok=True)
        assert path.resolve().parent == tmp_path.resolve()


@given(rows=st.lists(st.tuples(ANY, ANY | st.integers() | st.booleans() | st.none() | st.lists(ANY)), max_size=5))
def test_csv_cells_are_read_back_and_are_never_formulas(rows):
    text = studies.csv_text(["one", "two"], [{"one": one, "two": two} for one, two in rows])
    read = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert len(read) == len(rows) + 1
    for cells, (one, two) in zip(read[1:], rows, strict=True):
        assert not cells[0].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        assert cells[0].removeprefix("'") == one.encode("utf-8", "backslashreplace").decode().removeprefix("'")
        if isinstance(two, list):
            assert json.loads(cells[1]) == [word.encode("utf-8", "backslashreplace").decode() for word in two]
    text.encode()


FIGURES = st.floats(0, 1) | st.sampled_from([float("nan"), float("inf"), 0.0, 1.0])
ERRORS = st.text(max_size=40) | st.sampled_from(["", "\udcff", "<script>", "```\n# x", "\0", "a\nb"])


@st.composite
def outcomes(draw):
    """Return any outcome of a trial; a successful one has a finite loss."""
    why = draw(st.sampled_from(studies.WhyEnded))
    finite = st.floats(-1e300, 1e300)
    outcome = studies.TrialOutcome(
        why_ended=why,
        training_time_s=draw(st.floats(0, 1e9) | st.just(float("inf"))),
        best_val_char_accuracy=draw(FIGURES),
        best_val_seq_accuracy=draw(FIGURES),
        final_train_loss=draw(finite),
        total_epochs=draw(st.integers(1, 1000)),
        best_epoch=1,
    )
    if outcome.succeeded:
        return outcome
    return replace(
        outcome,
        final_train_loss=draw(st.none() | st.floats()),
        total_epochs=draw(st.integers(0, 1000)),
        error_type=draw(ERRORS),
        error_message=draw(ERRORS),
    )


@settings(max_examples=8)
@given(drawn=st.lists(outcomes(), min_size=1, max_size=5))
def test_results_of_any_study_match_the_documented_schema(drawn, start, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("study") / "out"
    study, folder = start({"ខ្មែរ": TrainingConfig()}, path=output_dir)
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=len(drawn)))
    for outcome in drawn:
        claim = claim_next(study, folder)
        claim.trial.report(0.5, step=1)
        claim.finish(outcome, 0.5)
    reader, _ = studies.load_study(output_dir)
    path = output_dir / "results.json"
    write_json(path, studies.render_results(reader, timestamp="20260131_235959"))
    results = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    jsonschema.validate(results, SCHEMA)
    assert len(results["all_results"]) == len(drawn)
    assert results["experiments_completed"] == sum(outcome.succeeded for outcome in drawn)
    best = [entry["best_val_char_accuracy"] for entry in results["all_results"] if entry["status"] == "completed"]
    if results["best_result"] is not None:
        assert results["best_result"]["best_val_char_accuracy"] in best
    elif any(outcome.succeeded for outcome in drawn):
        assert {outcome.why_ended for outcome in drawn if outcome.succeeded} == {studies.WhyEnded.PRUNED}


@pytest.fixture
def write_note(start, outcome):
    """Write the note of a trial that failed with an error of this type and message, and return the note."""
    study, folder = start({"one_two": TrainingConfig(experiment_name="one_two")})
    claim = claim_next(study, folder)

    def write(kind, message):
        failed = replace(outcome, why_ended=studies.WhyEnded.FAILED, error_type=kind, error_message=message)
        studies.write_ended_note(claim.trial, claim.record, failed, None, folder)
        return get_note(claim.trial)

    return write


HOSTILE = [
    "```\n<img src=x onerror=alert(1)>",
    "~~~\n# heading",
    "[a](javascript:alert(1))",
    "</code></pre><script>alert(1)</script>",
    "    ````\n| a | b |\n|---|---|",
    "\x85```\u2028```\n```",
]


@given(message=ANY.filter(str.strip) | st.sampled_from(HOSTILE), kind=st.sampled_from(["", "OSError"]))
def test_error_in_a_note_is_literal_text(message, kind, write_note):
    tokens = MarkdownIt("commonmark", {"html": True}).parse(write_note(kind, message))
    kinds = [token.type for token in tokens] + [child.type for token in tokens for child in token.children or ()]
    (block,) = [token for token in tokens if token.type == "fence"]
    assert block.info == "text"
    assert kinds.count("heading_open") == 1
    assert kinds.count("list_item_open") == 3
    assert not {"html_block", "html_inline", "link_open", "image", "code_block"} & set(kinds)
    text = f"{kind}: {message}" if kind else message
    words = re.findall(r"[0-9A-Za-z<>()]+", text.encode("utf-8", "ignore").decode())
    assert [word for word in words if word not in block.content] == []
