"""The output of both displays, on a terminal and on other streams."""

import math
import re
from dataclasses import replace

import pytest

from search_spaces import TrainingConfig
from tuner.display.displays import LiveDisplay, ProgressDisplay
from tuner.display.terminal import console_on, is_terminal


@pytest.fixture
def send_events(config, make_record, make_metrics, make_signal, make_row, make_status):
    def send(display):
        display.run_started({"old": config, "new": config}, [make_record("old")])
        display.status_polled(make_status(make_row(0, "completed", "old"), make_row(1, "waiting", "new")))
        display.trial_started(1, "new", config, resumed=False)
        display.epoch_ended(1, make_metrics(4), make_signal())
        for step in range(64):
            display.batch(1, step, 63)

    return send


def test_plain_lines_have_no_control_characters_and_fit_80_columns(stream, send_events, make_record):
    display = ProgressDisplay(stream, None)
    send_events(display)
    display.trial_ended(make_record("new", 1))
    assert stream.getvalue() == stream.text
    assert stream.lines == [
        "old is already finished",
        "1 of 2 experiments to train; validation metrics after each epoch:",
        "[2/2] new (trial 1): small, batch 32, lr 0.001, steplr, up to 30 epochs",
        "   4/30  char 0.9123  seq 0.7000  loss 0.4000  best 0.9100  10.0 s  ETA <= 4:20",
        "new: early stopped at epoch 25, best char 0.9912, seq 0.6789",
    ]
    assert max(map(len, stream.lines)) <= 80


def test_lines_of_parallel_trials_start_with_their_names(stream, config, make_metrics, make_signal, make_record):
    display = ProgressDisplay(stream, None)
    display.run_started({"a": config, "b": config}, [])
    display.trial_started(0, "a", config, resumed=False)
    display.trial_started(1, "b", config, resumed=True)
    display.epoch_ended(0, make_metrics(1), make_signal())
    display.epoch_ended(1, make_metrics(1), make_signal())
    display.batch(1, 0, 63)
    display.epoch_ended(1, make_metrics(2), make_signal())
    display.trial_ended(make_record("b", 1))
    display.epoch_ended(0, make_metrics(2), make_signal())
    starts = [line[:7].split("/")[0] for line in stream.lines if "char" in line and "/30" in line]
    assert starts == ["a   1", "b   2", "a   2"]
    assert "b  resumes at epoch 2" in stream.lines


def test_search_trial_shows_its_sampled_settings(stream):
    sampled = TrainingConfig(
        model_name="ctc",
        batch_size=48,
        learning_rate=0.00312345,
        weight_decay=3.14159e-5,
        loss_type="ctc",
        optimizer_type="adamw",
        scheduler_type="cosine",
        warmup_epochs=3,
        gradient_clip_norm=2.5,
    )
    display = ProgressDisplay(stream, None)
    display.run_started({"search_0007": None}, [])
    display.trial_started(7, "search_0007", sampled, resumed=False)
    assert stream.lines == [
        "1 of 1 trials to train; validation metrics after each epoch:",
        "search_0007: ctc, batch 48, lr 0.003123, cosine, up to 40 epochs",
        "  weight_decay 3.14e-05, gradient_clip_norm 2.5, loss_type ctc,",
        "  optimizer_type adamw, warmup_epochs 3",
    ]


def test_epochs_before_an_interruption_are_not_printed_again(stream, config, make_metrics, make_signal):
    display = ProgressDisplay(stream, None)
    display.run_started({"a": config}, [])
    display.trial_started(0, "a", config, resumed=True)
    display.epoch_ended(0, make_metrics(1), make_signal())
    display.batch(0, 0, 63)
    display.epoch_ended(0, make_metrics(2), make_signal())
    assert "  resumes at epoch 2" in stream.lines
    assert "  1/30" not in stream.text
    assert "  2/30" in stream.text


def test_dataset_progress_is_printed_in_ten_lines(stream):
    display = ProgressDisplay(stream, None)
    for done in range(0, 6001, 100):
        display.dataset_progress(done, 6000)
    assert len(stream.lines) == 10


@pytest.mark.parametrize("kind", [ProgressDisplay, LiveDisplay])
def test_finished_presets_have_a_line_each_and_search_trials_share_one(kind, terminal, config, make_record):
    finished = [
        make_record("a"),
        make_record("b", 1, "failed"),
        *(make_record(f"search_{number:04d}", number) for number in range(2, 30)),
        make_record("search_0030", 30, "crashed"),
    ]
    display = kind(terminal, None)
    display.run_started({record.experiment_name: config for record in finished}, finished)
    display.close()
    shown = [line.strip() for line in terminal.lines if "already" in line or "nothing" in line]
    assert shown == [
        "a is already finished",
        "b has already failed; `khmer-tuner resume --retry-failed` retries it",
        "28 search trials are already finished",
        "1 search trial has already failed",
        "nothing to train: all trials of this run are finished",
    ]


@pytest.mark.parametrize("kind", [ProgressDisplay, LiveDisplay])
def test_lost_worker_and_resumed_trial_are_shown(kind, terminal, config):
    display = kind(terminal, None)
    display.run_started({"a": config}, [])
    display.trial_started(0, "a", config, resumed=False)
    display.worker_lost(0)
    display.trial_started(0, "a", config, resumed=True)
    display.close()
    lost = "a (trial 0): worker killed or crashed; another worker will resume the trial"
    assert lost in terminal.text
    assert re.search(r"a \(trial 0(, resumed\)|\): resumed)", terminal.text.split(lost)[1])


@pytest.mark.parametrize("kind", [ProgressDisplay, LiveDisplay])
def test_interrupted_trial_is_not_shown_as_lost(kind, terminal, config, monkeypatch):
    monkeypatch.setattr("tuner.display.displays._REFRESH_SECONDS", 0.0)
    display = kind(terminal, None)
    display.run_started({"ក": config}, [])
    display.trial_started(0, "ក", config, resumed=False)
    display.trial_interrupted(0)
    display.trial_interrupted(7)  # unknown to the display
    display.close()
    assert terminal.text.count("ក (trial 0): interrupted") == 1
    assert "killed" not in terminal.text
    assert "trial 7" not in terminal.text


@pytest.mark.parametrize("kind", [ProgressDisplay, LiveDisplay])
def test_events_of_an_unknown_trial_are_ignored_until_it_ends(kind, terminal, make_metrics, make_signal, make_record):
    display = kind(terminal, None)
    display.batch(3, 1, 63)
    display.epoch_ended(3, make_metrics(1), make_signal())
    display.worker_lost(3)
    display.trial_ended(make_record("a", 3))
    display.close()
    assert "a: early stopped at epoch 25, best char 0.9912, seq 0.6789" in terminal.text
    assert "/30" not in terminal.text


@pytest.mark.parametrize("kind", [ProgressDisplay, LiveDisplay])
def test_changes_by_other_processes_are_shown(kind, terminal, config, make_row, make_status):
    display = kind(terminal, None)
    display.run_started({"a": config}, [])
    display.trial_started(0, "a", config, resumed=False)
    own, other = make_row(0, "running", "a"), make_row(1, "running")
    display.status_polled(make_status(own, other, make_row(2, "running")))
    status = make_status(
        own,
        make_row(1, "pruned", best_value=0.875, epochs=12),
        make_row(2, "failed", best_value=None, epochs=1),
        unenqueued=3,
    )
    for _ in range(3):
        display.status_polled(status)
    display.close()
    shown = [line.strip() for line in terminal.lines if "another process" in line or "added" in line]
    assert shown == [
        "3 trials were added to the study, 6 in total",
        "search_0001: pruned at epoch 12, best val_char_accuracy 0.8750 (another process)",
        "search_0002: FAILED (crashed) at epoch 1 (another process)",
    ]


def test_position_in_the_study_is_shown_after_the_first_poll(stream, config, make_row, make_status):
    display = ProgressDisplay(stream, None)
    display.run_started({"b": config}, [])
    display.trial_started(1, "search_0001", config, resumed=False)
    assert stream.lines[-1] == "search_0001: small, batch 32, lr 0.001, steplr, up to 30 epochs"
    rows = [make_row(0, "completed", "a"), make_row(1, "running"), make_row(2, "waiting", "b"), make_row(3, "waiting")]
    display.status_polled(make_status(*rows, unenqueued=2))
    display.trial_started(2, "b", config, resumed=False)
    assert "[3/6] b (trial 2): small, batch 32, lr 0.001, steplr, up to 30 epochs" in stream.lines


def test_live_view_is_redrawn_in_synchronized_updates(terminal, send_events, make_row, make_status):
    display = LiveDisplay(terminal, None)
    send_events(display)
    display.status_polled(make_status(make_row(0), make_row(1, "running", "new"), make_row(2, "running")))
    display.close()
    updates = re.findall("\x1b\\[\\?2026([hl])", terminal.getvalue())
    assert "".join(updates) == "hl" * (len(updates) // 2)
    # The old view is erased within the same update, so that no partly erased view is visible.
    outside = re.sub("\x1b\\[\\?2026h.*?\x1b\\[\\?2026l", "", terminal.getvalue(), flags=re.DOTALL)
    assert updates
    assert "search_0002" in terminal.text
    assert "search_0002" not in outside


def test_live_view_shows_the_progress_of_the_run(monkeypatch, terminal, send_events):
    monkeypatch.setattr("tuner.display.displays._REFRESH_SECONDS", 0.0)
    monkeypatch.setattr("tuner.display.displays._MAX_DRAWING_FRACTION", math.inf)
    display = LiveDisplay(terminal, None)
    send_events(display)
    display.close()
    for text in ["1/2 done", "4/30 epochs", "epoch 5", "31/63 batches", "char 0.9123", "val_char_accuracy 0.9100"]:
        assert text in terminal.text
    assert "at most 4:20" in terminal.text
    assert "\x1b[?25h" in terminal.getvalue()  # shows the cursor again


def test_live_view_is_not_redrawn_for_every_batch(terminal, config):
    display = LiveDisplay(terminal, None)
    display.run_started({"a": config}, [])
    display.trial_started(0, "a", config, resumed=False)
    for step in range(1000):
        display.batch(0, step, 1000)
    display.close()
    assert terminal.text.count("batches") < 20


@pytest.mark.parametrize(("cost", "most"), [(0.0, 41), (0.001, 41), (0.1, 3), (1.0, 1)])
def test_drawing_the_live_view_takes_a_small_fraction_of_the_time(cost, most, monkeypatch, terminal, config):
    now, drawn = 100.0, 0

    def draw(*_):
        nonlocal now, drawn
        now, drawn = now + cost, drawn + 1
        return ""

    monkeypatch.setattr("tuner.display.displays.live_view", draw)
    display = LiveDisplay(terminal, None)
    display.run_started({"a": config}, [])
    monkeypatch.setattr("tuner.display.displays.time.monotonic", lambda: now)
    display.trial_started(0, "a", config, resumed=False)
    drawn = 0
    for step in range(1000):
        now += 0.01
        display.batch(0, step, 1000)
    monkeypatch.undo()
    display.close()
    assert most - 2 <= drawn <= most


@pytest.mark.parametrize("kind", [ProgressDisplay, LiveDisplay])
def test_closed_terminal_does_not_stop_the_training(kind, terminal, send_events, monkeypatch):
    def write(text):
        raise BrokenPipeError

    monkeypatch.setattr(terminal, "write", write)
    send_events(kind(terminal, None))


@pytest.mark.parametrize("kind", [ProgressDisplay, LiveDisplay])
def test_summary_is_printed_to_its_own_console(kind, stream, terminal, make_summary, make_record):
    kind(terminal, console_on(stream)).run_ended(make_summary(make_record("a")))
    assert stream.getvalue() == stream.text
    assert "best: a, char 0.9912, seq 0.6789" in stream.lines
    assert "best: a" not in terminal.text


@pytest.mark.parametrize(
    ("variables", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_colours_are_used_only_if_the_terminal_allows_them(variables, colours, monkeypatch, terminal):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    console_on(terminal).print("text", style="green")
    assert ("\x1b[32m" in terminal.getvalue()) == colours
    assert is_terminal(terminal) == (variables.get("TERM") != "dumb")


def test_default_settings_are_not_shown(stream, config):
    display = ProgressDisplay(stream, None)
    display.run_started({}, [])
    display.trial_started(7, "search_0007", replace(config, seed=5, output_dir="x", metadata_path="y"), resumed=False)
    assert stream.lines[1:] == ["search_0007: small, batch 32, lr 0.001, steplr, up to 30 epochs"]


def test_live_view_shows_a_finished_trial_without_a_poll(terminal, send_events, make_record):
    display = LiveDisplay(terminal, None)
    send_events(display)
    display.trial_ended(make_record("new", 1))
    display.close()
    assert "2/2 done" in terminal.text
