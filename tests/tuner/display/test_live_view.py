"""The live view on terminals of several sizes."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from search_spaces import TrainingConfig
from studies import StatusRow
from tuner.display.progress import RunProgress
from tuner.display.tables import bars, live_view, running_table
from tuner.display.terminal import ambiguous_cells

KHMER = "គំរូមធ្យម_ការបណ្តុះបណ្តាល"


def shown(progress, width=80, height=24):
    return rendered(live_view(progress, width, height), width)


def rendered(renderable, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width, height=24).print(renderable)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def words(lines):
    """Return the words of each line, without its progress bar."""
    return [re.sub("[━╸]+", " ", line).split() for line in lines]


@pytest.fixture
def eight_workers(make_row, make_status, make_metrics, make_signal, config):
    """27 trials: nine finished, eight running (two of them in other processes), ten pending."""
    running = [
        make_row(number, "running", epochs=number if number > 9 else 0, best_value=number / 100 if number > 9 else None)
        for number in range(9, 17)
    ]
    running[7] = replace(running[7], epoch_seconds=60.0)
    progress = RunProgress()
    for number in range(9, 15):
        progress.trial_started(number, f"search_{number:04d}", config)
    ended = [
        make_row(number, "pruned") if number % 2 else make_row(number, why_ended="max_epochs") for number in range(1, 9)
    ]
    first = make_row(0, "completed", "conservative_small", best_value=0.9912)
    waiting = [make_row(number, "waiting") for number in range(17, 20)]
    progress.status_polled(make_status(first, *ended, *running, *waiting, unenqueued=7))
    for number in range(10, 15):
        progress.epoch_ended(number, make_metrics(number), make_signal(best=number / 100, epoch=number))
        progress.batch(number, 32, 64)
    return progress


def test_each_running_trial_has_a_row(eight_workers):
    lines = shown(eight_workers)
    rows = words(lines)
    assert rows[0] == "9/27 done epochs best last remaining <=".split()
    assert rows[1] == "search_0009 0/30 - - -".split()
    assert rows[2] == "search_0010 10/30 0.1000 0.9123 3:15".split()
    assert rows[6] == "search_0014 14/30 0.1400 0.9123 2:35".split()
    # The status has no last value of the trials of other processes.
    assert rows[7] == "search_0015 15/30 0.1500 pid 1015 -".split()
    assert rows[8] == "search_0016 16/30 0.1600 pid 1016 14:00".split()
    assert lines[9:] == [
        "status: 8 workers, 10 waiting",
        "best: conservative_small, val_char_accuracy 0.9912",
        "remaining: about 10:15 including 10 pending trials",
        "last ended: search_0008 max epochs, search_0007 pruned, search_0006 max epochs",
    ]


def test_bars_show_the_progress_without_colours(eight_workers):
    lines = shown(eight_workers)
    bar = lines[6][13 : lines[6].index("14/30") - 2]
    assert bar.count("━") / len(bar) == pytest.approx(14.5 / 30, abs=0.06)
    assert "━" not in lines[1]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("height", [12, 24, 60])
def test_live_view_fits_every_terminal(eight_workers, width, height):
    lines = shown(eight_workers, width, height)
    assert len(lines) <= min(height, 13)
    assert max(map(len, lines)) <= width
    assert words(lines)[2][:3] == ["search_0010" if width > 40 else "search_00…", "10/30", "0.1000"]
    assert "3:15" in lines[2]
    assert lines[2].index("10/30") - lines[2].index("━") >= 4
    if height == 12:
        assert lines[4] == "and 5 more running"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_khmer_names_fit_terminals_on_which_vowels_occupy_a_cell(width, make_row, make_status):
    names = [f"{KHMER}_{number}" for number in range(8)]
    rows = [make_row(number, "running", name, best_value=0.5) for number, name in enumerate(names)]
    progress = RunProgress()
    progress.status_polled(
        make_status(make_row(8, "completed", f"{KHMER}_8"), make_row(9, "failed", f"{KHMER}_9"), *rows)
    )
    lines = shown(progress, width)
    assert len(lines) == 13
    console = Console(width=width)
    for line in lines:
        assert (
            console.measure(line, options=console.options.update(max_width=999)).maximum + ambiguous_cells(line)
            <= width
        )
    # On terminals on which they occupy none, the figures are aligned.
    cells = {console.measure(line[: line.index("0/30")]).maximum for line in lines[1:9]}
    assert len(cells) == 1
    assert "val_char_accuracy 0.5000" in lines[10]


def test_long_names_leave_room_for_the_figures(config, make_metrics, make_signal):
    progress = RunProgress()
    for number, name in enumerate([KHMER, "b" * 64]):
        progress.trial_started(number, name, config)
        progress.epoch_ended(number, make_metrics(1), make_signal())
    lines = shown(progress)
    assert [line.split()[-4:] for line in lines[1:3]] == [["1/30", "0.9100", "0.9123", "4:50"]] * 2
    assert "b" * 19 + "…" in lines[2]
    assert lines[1].startswith(KHMER[:8])


def test_single_trial_is_shown_in_detail(config, make_row, make_status, make_metrics, make_signal):
    progress = RunProgress()
    old = make_row(0, "completed", "old", best_value=0.9912, epoch_seconds=7.94)
    progress.status_polled(make_status(old, make_row(1, "waiting", "new"), make_row(2, "waiting", "next")))
    progress.trial_started(1, "new", config)
    progress.batch(1, 0, 63)
    assert shown(progress)[3:] == [
        "first epoch in progress",
        "status: 1 worker, 1 waiting",
        "best: old, val_char_accuracy 0.9912",
        "remaining: at most 7:56 including 1 pending trial",
        "last ended: old early stopped",
    ]
    progress.epoch_ended(1, make_metrics(4), make_signal())
    lines = shown(progress)
    assert [line.split()[-2:] for line in lines[:3]] == [["1/3", "done"], ["4/30", "epochs"], ["0/63", "batches"]]
    assert lines[3:] == [
        "last epoch: char 0.9123  seq 0.7000  loss 0.4000  (training loss 0.5000)",
        "best epoch: 4, val_char_accuracy 0.9100  (patience used: 0 of 10)",
        "status: 1 worker, 1 waiting",
        "best: old, val_char_accuracy 0.9912",
        "remaining: at most 4:20 (this trial), 8:49 including 1 pending trial",
        "last ended: old early stopped",
    ]


def test_trials_keep_their_rows_while_one_of_two_workers_is_between_two_trials(
    config, make_row, make_status, make_record
):
    progress = RunProgress()
    progress.trial_started(0, "search_0000", config)
    progress.trial_started(1, "search_0001", config)
    progress.status_polled(make_status(make_row(0, "running"), make_row(1, "running"), make_row(2, "waiting")))
    progress.trial_ended(make_record("search_0001", 1))
    assert words(shown(progress))[0][-2:] == ["remaining", "<="]
    assert "status: 2 workers, 1 waiting" in shown(progress)


def test_single_search_trial_shows_its_sampled_settings_and_an_expected_time(
    make_row, make_status, make_record, make_metrics, make_signal
):
    sampled = TrainingConfig(model_name="ctc", batch_size=48, num_epochs=30, warmup_epochs=3)
    progress = RunProgress()
    progress.status_polled(make_status(make_row(0, "waiting"), unenqueued=1))
    progress.trial_started(0, "search_0000", sampled)
    assert shown(progress)[-1] == "remaining: unknown until enough epochs have been timed"
    progress.epoch_ended(0, make_metrics(1), make_signal())
    assert "sampled: ctc, batch 48, lr 0.001, steplr, up to 30 epochs, warmup_epochs 3" in shown(progress)
    assert shown(progress)[-1] == "remaining: at most 4:50 (this trial), about 9:50 including 1 pending trial"
    progress.trial_ended(make_record("search_0000"))
    progress.trial_started(1, "search_0001", replace(sampled, model_name="large"))
    assert shown(progress)[-2] == "remaining: about 3:20"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_all_sampled_settings_are_shown(width):
    sampled = TrainingConfig(
        model_name="ctc",
        loss_type="ctc",
        weight_decay=9.15e-6,
        augmentation=False,
        label_smoothing=0.25,
        warmup_epochs=3,
    )
    progress = RunProgress()
    progress.trial_started(0, "search_0000", sampled)
    lines = shown(progress, width)
    assert max(map(len, lines)) <= width
    view = " ".join(lines)
    for text in [
        "sampled: ctc, batch 32,",
        "up to 40 epochs,",
        "augmentation False,",
        "weight_decay 9.15e-06,",
        "label_smoothing 0.25",
        "loss_type ctc",
    ]:
        assert text in view


def test_redrawing_without_a_finished_epoch_does_not_iterate_over_the_trials(eight_workers, monkeypatch):
    before = shown(eight_workers)

    def has_ended(row):
        raise AssertionError(row.name)

    monkeypatch.setattr(StatusRow, "has_ended", property(has_ended))
    eight_workers.batch(10, 60, 64)
    lines = shown(eight_workers)
    assert lines[0] == before[0]
    assert lines[9:] == before[9:]
    assert lines[2] != before[2]


def test_view_is_empty_before_the_first_event():
    assert shown(RunProgress()) == [""]


def test_finished_study_shows_no_remaining_time(make_row, make_status):
    progress = RunProgress()
    ended = make_row(0, "completed", "a", best_value=0.9912), make_row(1, "failed", "b")
    progress.status_polled(make_status(*ended))
    assert words(shown(progress))[0] == ["trials", "2/2", "done"]
    assert shown(progress)[1:] == [
        "status: 1 failed",
        "best: a, val_char_accuracy 0.9912",
        "last ended: b FAILED (crashed), a early stopped",
    ]


def test_dataset_generation_has_a_bar():
    [line] = rendered(bars(80, ("generating images", 3000, 6000, "images")))
    assert words([line]) == ["generating images 3,000/6,000 images".split()]
    assert line.count("━") == (line.index("  3,000") - line.index("━")) // 2


def test_bar_is_empty_while_the_total_is_unknown():
    [line] = rendered(bars(80, ("epoch 1", 0, 0, "batches")))
    assert "━" not in line


def test_running_table_without_a_run_shows_the_processes(make_row):
    rows = [make_row(3, "running", epochs=10, epoch_seconds=3.0, best_value=0.5), make_row(4, "running", worker_pid=0)]
    assert words(rendered(running_table(rows, 80))) == [
        "running epochs best process remaining <=".split(),
        "search_0003 10/30 0.5000 1003 1:00".split(),
        "search_0004 0/30 - remote -".split(),
    ]
