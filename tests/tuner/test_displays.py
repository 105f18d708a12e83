"""What both displays tell of one run, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from search_spaces import Targets, TrainingConfig
from studies import TrialKind, TrialOutcome, TrialPhase, TrialRecord, WhyEnded
from tuner.display import Display, RunSummary
from tuner.display_live import LiveDisplay
from tuner.display_plain import PlainDisplay
from tuner.screen import console_on, is_terminal
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

CONFIG = TrainingConfig(model_name="small", num_epochs=30)
DONE = TrialOutcome(
    why_ended=WhyEnded.EARLY_STOPPED,
    training_time_s=200.0,
    best_val_char_accuracy=0.9912,
    best_val_seq_accuracy=0.6789,
    final_train_loss=0.05,
    total_epochs=25,
    best_epoch=15,
    epoch_seconds_median=7.94,
    converged_epoch=None,
)
BROKEN = TrialOutcome(
    why_ended=WhyEnded.OUT_OF_MEMORY,
    training_time_s=0.0,
    best_val_char_accuracy=0.0,
    best_val_seq_accuracy=0.0,
    final_train_loss=None,
    total_epochs=0,
    best_epoch=None,
    error_type="RuntimeError",
    error_message="DefaultCPUAllocator: can't allocate memory\nand more",
)


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        """What was written, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


def record(name: str, outcome: TrialOutcome) -> TrialRecord:
    phase = TrialPhase.COMPLETED if outcome.succeeded else TrialPhase.FAILED
    return TrialRecord(0, TrialKind.PRESET, phase, name, asdict(CONFIG), "", 1, outcome)


def summary(*records: TrialRecord, targets: Targets, leader: str | None = None) -> RunSummary:
    best = {"experiment_name": "a", "best_val_char_accuracy": 0.9912, "best_val_seq_accuracy": 0.6789}
    return RunSummary(
        results={"best_result": best},
        results_path=Path.cwd() / "results.json",
        output_dir=Path.cwd() / "out",
        storage_url=None,
        records=records,
        targets=targets,
        monitor="val_loss",
        leader=leader,
    )


def tell_a_run(display: Display) -> None:
    signal = EarlyStopping("max", 0.0, 10)
    signal.update(4, 0.91)
    display.run_started({"old": CONFIG, "new": CONFIG}, [record("old", DONE)])
    display.trial_started("new", 1, CONFIG, adopted=False)
    display.epoch_ended(EpochMetrics(4, 0.5, 0.4, 0.8, 0.9123, 0.6, 0.7, 1e-3, 10.0, 500.0, 200.0), signal)
    for step in range(64):
        display.batch(step, 63)


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_plain_lines_have_no_control_characters_and_fit_80_columns():
    stream = Stream(terminal=False)
    display = PlainDisplay(stream, None)
    tell_a_run(display)
    display.trial_ended(record("conservative_small", DONE))
    assert stream.getvalue() == stream.text
    assert "old is finished already" in stream.text
    assert "   4/30  char 0.9123  seq 0.7000  loss 0.4000  best 0.9100  10.0 s  <= 4:20 left" in stream.text
    assert max(map(len, stream.text.splitlines())) <= 80


def test_epochs_of_before_an_interruption_are_not_told_again():
    stream = Stream(terminal=False)
    display = PlainDisplay(stream, None)
    display.run_started({"a": CONFIG}, [])
    display.trial_started("a", 0, CONFIG, adopted=True)
    told = EpochMetrics(1, 0.5, 0.4, 0.8, 0.9, 0.6, 0.7, 1e-3, 10.0, 500.0, 200.0)
    display.epoch_ended(told, EarlyStopping("max", 0.0, 10))
    display.batch(0, 63)
    display.epoch_ended(replace(told, epoch=2), EarlyStopping("max", 0.0, 10))
    assert "going on with epoch 2" in stream.text
    assert "  1/30" not in stream.text
    assert "  2/30" in stream.text


def test_a_dataset_is_drawn_in_a_few_lines():
    stream = Stream(terminal=False)
    display = PlainDisplay(stream, None)
    for done in range(0, 6001, 100):
        display.dataset_progress(done, 6000)
    assert len(stream.text.splitlines()) == 10


def test_the_live_picture_shows_where_the_run_is(monkeypatch):
    monkeypatch.setattr("tuner.display_live._REFRESH_SECONDS", 0.0)
    stream = Stream(terminal=True)
    display = LiveDisplay(stream, None)
    tell_a_run(display)
    display.close()
    for text in ["1/2 done", "4/30 epochs", "epoch 5", "31/63 batches", "char 0.9123", "val_char_accuracy 0.9100"]:
        assert text in stream.text
    assert "at most 4:20" in stream.text
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back


def test_the_live_picture_is_redrawn_seldom():
    stream = Stream(terminal=True)
    display = LiveDisplay(stream, None)
    display.run_started({"a": CONFIG}, [])
    display.trial_started("a", 0, CONFIG, adopted=False)
    for step in range(1000):
        display.batch(step, 1000)
    display.close()
    assert stream.text.count("batches") < 20


@pytest.mark.parametrize("kind", [PlainDisplay, LiveDisplay])
def test_a_terminal_that_is_gone_does_not_stop_the_training(kind):
    class Gone(Stream):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    tell_a_run(kind(Gone(terminal=True), None))


@pytest.mark.parametrize("kind", [PlainDisplay, LiveDisplay])
def test_the_summary_fits_80_columns_and_says_met_or_missed(kind):
    out = Stream(terminal=False)
    targets = Targets(character_accuracy=0.85, sequence_accuracy=0.7, training_time_per_epoch=30, convergence_epochs=15)
    records = record("conservative_small", DONE), record("high_learning_rate", BROKEN)
    kind(Stream(terminal=True), console_on(out)).run_ended(summary(*records, targets=targets, leader="b"))
    assert out.getvalue() == out.text
    assert max(len(line) for line in out.text.splitlines() if "failed: " not in line) <= 80
    lines = {line.split()[0]: line.split() for line in out.text.splitlines() if line.split()}
    assert "conservative_small done early stopped 25/30 0.9912 0.6789 7.9 -".split() in map(
        str.split, out.text.splitlines()
    )
    assert lines["conservative_small"][1:] == "0.9912 met 0.6789 MISSED 7.9 met never MISSED".split()
    assert lines["high_learning_rate"][1:] == "failed: RuntimeError: DefaultCPUAllocator: can't allocate memory".split()
    assert lines["log:"][1] == "out/high_learning_rate/logs/training.log"
    assert "by val_loss, which the study goes by, b is better" in out.text
    assert lines["results"][1] == "results.json"
    assert lines["study"][1] == "out/study.db"
    assert lines["curves"][1:] == ["tensorboard", "--logdir", "out"]


def test_a_summary_without_targets_or_rivals_says_nothing_of_them():
    out = Stream(terminal=False)
    PlainDisplay(Stream(terminal=False), console_on(out)).run_ended(summary(record("a", DONE), targets=Targets()))
    assert "targets" not in out.text
    assert "goes by" not in out.text


@pytest.mark.parametrize(
    ("variables", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_colours_are_for_terminals_that_want_them(variables, colours, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Stream(terminal=True)
    console_on(stream).print("text", style="green")
    assert ("\x1b[32m" in stream.getvalue()) == colours
    assert is_terminal(Stream(terminal=True)) == (variables.get("TERM") != "dumb")
