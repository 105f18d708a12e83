"""Whole reports on different studies."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace

import optuna
import pytest
from optuna.trial import create_trial

from search_spaces import TrainingConfig
from search_spaces.experiments.schema import Targets
from studies import SearchRequest, WhyEnded, add_search_trials, save_artifact, save_targets
from studies.trials.claims import claim_next
from studies.trials.record import record_outcome

SECTIONS = ["summary", "winner", "use", "targets", "confirmation", "history", "latency", "curves", "parallel"]
SECTIONS += ["importances", "slices", "timeline", "reasons", "trials", "environment"]
PNG = b"\x89PNG\r\n\x1a\n and so on"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> &amp; 'x' \"y\" ${z} {{ 7 * 7 }}"


def spread(count):
    """Return different values, the best in the middle."""
    return [0.2 + 0.7 * math.sin(math.pi * (number + 1) / (count + 1)) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 10, 60])
def test_report_on_any_number_of_trials_is_self_contained(count, start, add_trials, report):
    study, folder = start()
    add_trials(study, spread(count))
    page = report(folder)
    assert page.ids == SECTIONS
    assert [address for address in page.addresses if not address.startswith("#")] == []
    assert {address[1:] for address in page.addresses} == set(SECTIONS)
    plots = [json.loads(text) for kind, text in page.scripts if kind == "application/json"]
    assert all(figure["data"] for figure in plots)
    assert len(page.rows() or [[]]) == max(1, count + bool(count))
    # History, curves, timeline and reasons appear with the first trial.
    assert len(plots) == {0: 0, 1: 4, 2: 7, 10: 7, 60: 8}[count]


def test_policy_allows_only_the_reports_own_scripts(start, report):
    _, folder = start()
    page = report(folder)
    scripts = [text for kind, text in page.scripts if kind == ""]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in digests]
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data: blob:"
    assert [text.startswith("/**\n* plotly.js") for text in scripts] == [True, False]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("failed", {"winner": "No trial has completed yet", "history": "when the first trial has ended with a value"}),
        ("running", {"curves": "", "reasons": "No trial has ended yet", "targets": "All targets: not met yet."}),
        ("waiting", {"timeline": "when the first trial has started", "trials": "waiting"}),
        ("pruned", {"winner": "No trial has completed yet", "history": "", "reasons": "Why trials ended"}),
    ],
)
def test_report_explains_missing_parts(kind, words, start, presets, add_trials, report):
    study, folder = start(presets if kind in ("running", "waiting") else {})
    save_targets(study, Targets(character_accuracy=0.9))
    claim = None
    if kind == "running":
        claim = claim_next(study, folder)
        claim.trial.report(0.25, 1)
    elif kind != "waiting":
        add_trials(study, [None, None] if kind == "failed" else [0.5, 0.6], **_reason(kind))
    page = report(folder)
    for section, text in words.items():
        assert text in page.texts[section]
    if claim is not None:
        assert page.rows()[1][:9] == ["0", "conservative_small", "running", "", "0.2500", "", "", "", "1"]
        claim.release()


def _reason(kind):
    return {"why_ended": WhyEnded.PRUNED} if kind == "pruned" else {"error_message": "boom"}


def test_error_message_is_shown_as_literal_text(start, add_trials, report):
    study, folder = start()
    add_trials(study, [None, 0.5], error_type="Error", error_message=HOSTILE)
    page = report(folder)
    assert f"Error: {HOSTILE}" in page.texts["reasons"]
    assert [kind for kind, _ in page.scripts if kind != "application/json"] == ["", ""]
    names = [trace["name"] for figure in figures(page) for trace in figure["data"] if "name" in trace]
    assert not any("<" in name for name in names)


def figures(page):
    return [json.loads(text) for kind, text in page.scripts if kind == "application/json"]


def test_trials_added_with_optuna_alone_are_not_shown(start, add_trials, report):
    study, folder = start()
    study.add_trial(create_trial(value=5.0, user_attrs={"<b>": "x"}))
    add_trials(study, [0.5])
    study.enqueue_trial({"learning_rate": 7.0, "anything": "else"}, user_attrs={"kind": "by hand"})
    add_trials(study, [0.75])
    page = report(folder)
    assert [row[0] for row in page.rows()[1:]] == ["1", "3"]
    assert "2 not shown (created by hand)" in page.texts["summary"]
    assert "search_0003" in page.texts["winner"]
    histories = [figure["data"] for figure in figures(page) if figure["data"][-1].get("name") == "best so far"]
    assert [points["x"] for points, _ in histories] == [[1, 3]]


def test_nan_and_infinite_values_are_left_out(start, add_trials, report):
    study, folder = start()
    add_trials(study, [0.5, 0.6])
    trial = study.ask()
    trial.set_user_attr("kind", "search")
    for step, value in enumerate((0.25, math.nan, math.inf), start=1):
        trial.report(value, step)
    page = report(folder)
    assert page.rows()[3][:5] == ["2", "search_0002", "interrupted", "", "0.2500"]
    epoch = dict.fromkeys(("train_loss", "val_loss", "train_char_accuracy", "val_char_accuracy"), math.nan)
    epoch |= {"epoch": 1, "train_seq_accuracy": 0.5, "val_seq_accuracy": 0.5}
    assert not re.search(r"\b(NaN|Infinity)\b", "".join(text for kind, text in page.scripts if kind))
    assert "Predictions" in report(folder, search_0001=[epoch]).texts["winner"]


def test_values_outside_the_search_space_are_shown(start, outcome, report):
    study, folder = start({"ខ្មែរ": TrainingConfig(model_name="large", batch_size=48, scheduler_type="plateau")})
    claim = claim_next(study, folder)
    claim.finish(outcome, 0.9)
    page = report(folder)
    headings, row = page.rows()
    assert row[1] == "ខ្មែរ"
    assert row[headings.index("model_name")] == "large"
    assert "ខ្មែរ" in page.texts["summary"]
    assert "large" in page.texts["winner"]


def test_pruned_trial_with_a_value_outside_its_range_is_shown(start, add_trials, outcome, report):
    study, folder = start()
    study.enqueue_trial({"learning_rate": 7.0}, user_attrs={"kind": "search"})
    trial = study.ask()
    with pytest.warns(UserWarning, match="out of range"):
        assert trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True) == 7.0
    record_outcome(trial, replace(outcome, why_ended=WhyEnded.PRUNED))
    trial.report(0.5, 1)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    add_trials(study, [0.5, 0.6])
    page = report(folder)
    headings, row, *_ = page.rows()
    assert row[headings.index("learning_rate")] == "7"
    assert "are included with their best value" in page.texts["slices"]


@pytest.mark.parametrize(("mode", "leader"), [("max", "search_0001"), ("min", "search_0000")])
def test_winner_is_the_best_result_and_a_different_leader_is_noted(mode, leader, start, add_trials, report):
    study, folder = start(mode=mode, monitor="val_loss")
    add_trials(study, [0.5, 0.8])
    page = report(folder)
    assert "Trial 1, search_0001" in page.texts["winner"]
    assert (f"val_loss, {leader} is better with 0.5000" in page.texts["winner"]) == (mode == "min")
    best_so_far = {"max": [0.5, 0.8], "min": [0.5, 0.5]}[mode]
    assert best_so_far in [trace.get("y") for figure in figures(page) for trace in figure["data"]]


def test_winner_is_shown_with_curves_plots_and_commands(start, presets, outcome, report):
    study, folder = start(presets)
    claim = claim_next(study, folder)
    save_artifact(claim.trial, folder, "worst_readings.png", PNG)
    save_artifact(claim.trial, folder, "confusion_matrix.png", b"<script>not a PNG</script>")
    claim.finish(outcome, 0.9)
    names = ("train_loss", "val_loss", "train_char_accuracy", "val_char_accuracy", "train_seq_accuracy")
    epochs = [dict.fromkeys((*names, "val_seq_accuracy"), 1 / epoch) | {"epoch": epoch} for epoch in (1, 2)]
    page = report(folder, conservative_small=epochs)
    plots = [address for address in page.addresses if address.startswith("data:")]
    assert plots == [f"data:image/png;base64,{base64.b64encode(PNG).decode()}"]
    assert "Missing plots: confusion matrix." in page.texts["winner"]
    curves = {trace.get("name"): trace["y"] for figure in figures(page)[:2] for trace in figure["data"]}
    assert curves["validation"] == [1.0, 0.5]
    assert len(curves) == 6
    assert "khmer-tuner predict image.png --output-dir 'my output'" in page.texts["use"]
    assert "--metadata /data/metadata.yaml --split test" in page.texts["use"]
    assert "the trial's metrics.jsonl is missing or empty" in report(folder).texts["winner"]


def test_size_and_speed_are_shown(start, add_trials, report):
    study, folder = start()
    add_trials(study, [0.5, 0.75, None], parameters=159_867, checkpoint_bytes=761_234, images_per_s_batch_1=500.0)
    page = report(folder)
    headings, *rows = page.rows()
    columns = [headings.index(title) for title in ("parameters", "ms/image")]
    assert [[row[column] for column in columns] for row in rows] == [["159867", "2.00"]] * 3
    assert "159,867 parameters, checkpoint 0.76 MB, 2.00 ms per image (batch 1)" in page.texts["winner"]
    assert "No trial is both faster and more accurate" in page.texts["latency"]


def test_targets_are_shown_with_the_trials_that_met_them(start, add_trials, outcome, report):
    study, folder = start()
    save_targets(study, Targets(character_accuracy=0.7, convergence_epochs=5))
    add_trials(study, [0.5, 0.75, 0.8], converged_epoch=4)
    add_trials(study, [0.9], converged_epoch=9)
    page = report(folder)
    assert "All targets: met by search_0001, search_0002." in page.texts["targets"]
    lines = page.texts["targets"].split("\n")
    assert "char >= 0.73 of 40.9000, search_0003search_0001, search_0002, search_0003" in lines
    assert "converged <= 53 of 44, search_0000search_0000, search_0001, search_0002" in lines
    assert "met by 2 trials" in page.texts["summary"]
    assert page.html.count('<td class="number met">') == 6


def test_failed_trial_meets_no_target(start, presets, add_trials, outcome, report):
    study, folder = start(dict([next(iter(presets.items()))]))
    save_targets(study, Targets(character_accuracy=0.7))
    claim = claim_next(study, folder)
    claim.finish(replace(outcome, best_val_char_accuracy=0.99), 0.99)
    add_trials(study, [0.95], why_ended=WhyEnded.NONFINITE_LOSS)
    add_trials(study, [0.75])
    page = report(folder)
    met = "char >= 0.72 of 30.9900, conservative_smallconservative_small, search_0002"
    assert met in page.texts["targets"].split("\n")
    # In the table of trials the diverged trial meets no target.
    assert page.html.count('<td class="number met">') == 2


def test_environment_and_seeds_are_shown(start, add_trials, report):
    study, folder = start()
    add_search_trials(study, folder, SearchRequest(at_least=3, prune_share=0.7))
    attempts = [
        {"began": "2026-11-24T20:00:00+00:00", "worker": f"host{number}:7", "epochs": 0, "after": after}
        for number, after in enumerate(("waiting", "stop", "crash"))
    ]
    add_trials(study, [0.5], user_attrs={"attempts": attempts})
    text = report(folder).texts["environment"]
    for part in (
        "/data/metadata.yaml",
        "f00d",
        "tpe",
        "quantile",
        "after 10 epochs, a trial is pruned unless it is at least as good as 70%",
        "5.0.0",
    ):
        assert part in text
    assert "3 processes host0, host1, host2" in text
    assert "1 stopped, 1 crashed" in text
    assert "0.0001 to 0.01, log scale" in text
    assert "scheduler_type is cosine" in text
    assert "0 of 3 trials" in report(folder).texts["summary"] or "1 of 3 trials" in report(folder).texts["summary"]


def test_report_changes_no_file(start, add_trials, presets, report):
    study, folder = start(presets)
    add_trials(study, [0.5, 0.6, None])
    claim = claim_next(study, folder)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert "running" in report(folder).texts[""]
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    claim.release()


def test_only_the_latest_failures_are_shown(start, add_trials, report, monkeypatch):
    monkeypatch.setattr("studies.report.page.MAX_FAILURES", 3)
    study, folder = start()
    add_trials(study, [None] * 4, error_message="long " * 200)
    page = report(folder)
    assert "Only the latest 3 of 4 failed trials are shown." in page.texts["reasons"]
    assert "search_0000" not in page.texts["reasons"]
    assert page.texts["reasons"].count("…") == 3


@pytest.mark.slow
def test_report_on_a_thousand_trials_is_smaller_than_fifteen_megabytes(start, add_trials, report):
    study, folder = start()
    add_trials(study, spread(1000))
    page = report(folder)
    assert len(page.rows()) == 1001
    assert len(page.html.encode()) < 15_000_000
