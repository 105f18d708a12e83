"""`status`: the state of a running study, a finished study and a study with many trials."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from search_spaces import TrainingConfig
from studies import SearchRequest, TrialOutcome, WhyEnded, add_search_trials, load_study_for_changes
from studies.trials.claims import claim_next
from tuner.training.history import EpochMetrics

OUT = Path("training_output")
PRUNED = TrialOutcome(
    why_ended=WhyEnded.PRUNED,
    training_time_s=1.0,
    best_val_char_accuracy=0.1,
    best_val_seq_accuracy=0.1,
    final_train_loss=1.0,
    total_epochs=1,
    best_epoch=1,
)


@pytest.fixture
def running_claim(working_dir, run_study):
    """A study with two finished experiments and 30 search trials, of which this process trains the first."""
    shutil.copytree(run_study.folder, OUT)
    study, folder = load_study_for_changes(OUT)
    add_search_trials(study, folder, SearchRequest(at_least=30))
    claim = claim_next(study, folder)
    assert claim is not None
    claim.record_config(TrainingConfig(model_name="tiny", num_epochs=10))
    trial_dir = folder.trial_dir(claim.record.experiment_name)
    trial_dir.mkdir()
    epochs = [EpochMetrics(epoch, 0.5, 0.4, 0.8, 0.9, 0.6, 0.7, 1e-3, 60.0, 500.0, 200.0) for epoch in (1, 2, 3)]
    (trial_dir / "metrics.jsonl").write_text("".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs))
    for epoch in epochs:
        claim.trial.report(0.25, epoch.epoch)
    yield claim
    claim.release()


def test_running_study_shows_workers_and_remaining_time(cli, running_claim, tree):
    before = tree(OUT)
    shown = cli.ok("status")
    assert tree(OUT) == before
    lines = shown.out.splitlines()
    assert lines[0] == "study khmer-ocr, objective val_char_accuracy (max)"
    assert max(map(len, lines)) <= 80
    assert ["2", "search_0002", "running", "0.2500", "3", "-"] in [line.split()[:6] for line in lines]
    assert "3-21 19 search trials waiting".split() in [line.split()[:5] for line in lines]
    [row] = [line for line in lines if line.startswith("search_0002")]
    assert [word for word in row.split() if "━" not in word] == [
        "search_0002",
        "3/10",
        "0.2500",
        str(os.getpid()),
        "7:00",
    ]
    summary = {line.split(":")[0]: line for line in lines if ":" in line}
    assert "2 of 32 trials finished (1 failed), 29 waiting; 1 worker" in lines
    assert summary["search"] == "search: 0 of 30 trials, sampler tpe, pruner quantile, parallelism 1"
    assert summary["best"].startswith("best: ខ្មែរ, val_char_accuracy 0.")
    assert summary["last ended"] == "last ended: ខ្មែរ max epochs, broken FAILED"
    assert summary["remaining"].startswith("remaining: about ")
    assert summary["remaining"].endswith(" including 29 pending trials")
    assert "disk" in summary
    assert " free" in summary["disk"]
    assert "pending" not in summary  # a worker trains the pending trials


def test_json_has_remaining_time_and_disk_usage(cli, running_claim):
    status = json.loads(cli("status", "--json").out)
    assert (status["workers"], status["pending"], len(status["trials"])) == (1, 29, 22)
    running = status["trials"][2]
    assert (running["num_epochs"], running["epoch_seconds"], running["worker_pid"]) == (10, 60.0, os.getpid())
    finished = status["trials"][1]
    assert finished["parameters"] > 1000
    assert finished["checkpoint_bytes"] > 4 * finished["parameters"]
    assert finished["latency_ms"] > 1000 / finished["images_per_s_batch_64"]
    assert (running["parameters"], running["latency_ms"]) == (None, None)
    # The remaining seven epochs of the running trial, plus the other trials.
    assert status["eta_seconds"] > 420
    assert status["eta_is_at_most"] is False
    files = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    assert status["disk"]["used"] == files
    assert sum(status["disk"].values()) - status["disk"]["free"] == 2 * status["disk"]["used"]


def test_idle_study_has_no_remaining_time(cli, running_claim):
    running_claim.release()
    shown = cli("status").out
    assert "2 of 32 trials finished (1 failed), 29 waiting, 1 interrupted\n" in shown
    assert "remaining: " not in shown
    [pending] = [line for line in shown.splitlines() if line.startswith("pending: ")]
    assert pending.startswith("pending: 1 interrupted, 29 waiting, about ")
    assert pending.endswith(" with one worker; run `khmer-tuner resume` to continue")
    status = json.loads(cli("status", "--json").out)
    assert (status["workers"], status["eta_seconds"], status["eta_is_at_most"]) == (0, None, None)


def test_all_option_shows_each_of_many_trials(cli, running_claim):
    table = cli("status", "--all").out.split("\n\n")[1]
    assert [line.split()[0] for line in table.splitlines()[1:]] == [str(number) for number in range(22)]


def test_complete_study_is_reported_as_complete(cli, run_study):
    shown = cli("status", "--output-dir", run_study.folder).out
    assert "2 of 2 trials finished (1 failed)\n" in shown
    assert "pending: " not in shown
    assert "targets (character_accuracy 0.99, training_time_per_epoch 1000): met by no trial" in shown


def test_running_trials_fit_a_narrow_terminal(cli, running_claim, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    [row] = [line for line in cli("status").out.splitlines() if line.startswith("search_0002")]
    assert len(row) <= 60
    assert "3/10" in row
    assert "━" in row


def test_watch_without_a_terminal_prints_changes_until_no_trial_is_pending(cli, copy_of_the_study, monkeypatch):
    study, folder = load_study_for_changes(copy_of_the_study)
    add_search_trials(study, folder, SearchRequest(at_least=1))
    claim = claim_next(study, folder)
    assert claim is not None
    claim.record_config(TrainingConfig(model_name="tiny", num_epochs=10))
    actions = [lambda: None, lambda: claim.trial.report(0.5, 1), lambda: claim.finish(PRUNED)]
    # Replace only the name in the module, because other threads call `time.sleep` as well.
    monkeypatch.setattr("tuner.cli.commands.status.time", SimpleNamespace(sleep=lambda seconds: actions.pop(0)()))
    watched = cli("status", "--watch", "--output-dir", copy_of_the_study)
    assert (watched.code, watched.err, actions) == (0, "", [])
    assert [line for line in watched.out.splitlines() if not line.startswith("best: ")] == [
        "search_0002: epoch 0 of 10 finished",
        "2 of 3 trials finished (1 failed); 1 worker",
        "last ended: ខ្មែរ max epochs, broken FAILED",
        "search_0002: epoch 1 of 10 finished",
        "3 of 3 trials finished (1 failed)",
        "last ended: search_0002 pruned, ខ្មែរ max epochs, broken FAILED",
    ]
    assert watched.out.count("best: ") == 1


def test_watch_of_a_complete_study_returns_at_once(cli, run_study):
    assert "2 of 2 trials finished (1 failed)" in cli.ok("status", "--watch", "--output-dir", run_study.folder).out


def test_watch_on_a_terminal_redraws_until_ctrl_c(running_claim):
    terminal, other_end = pty.openpty()
    command = [sys.executable, "-m", "tuner", "status", "--watch"]
    with subprocess.Popen(command, stdout=other_end, stderr=subprocess.PIPE, env=os.environ | {"TERM": "xterm"}) as run:
        shown = b""
        while shown.count(b"\x1b[2J\x1b[H") < 2 or b"search_0002" not in shown.rpartition(b"\x1b[2J")[2]:
            shown += os.read(terminal, 4096)
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=30) == 130
        assert run.stderr is not None
        assert run.stderr.read() == b"stopped\n"
    os.close(terminal)
    os.close(other_end)
