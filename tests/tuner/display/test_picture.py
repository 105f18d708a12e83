"""What a terminal of 80 columns shows while trials run."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from search_spaces import TrainingConfig
from tuner.display.picture import picture
from tuner.display.progress import RunProgress


def shown(progress: RunProgress, height: int = 25) -> list[str]:
    console = Console(file=io.StringIO(), width=80, height=height, record=True)
    console.print(picture(progress, height))
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.fixture
def eight_workers(config, make_record, make_metrics, make_signal):
    """Eight running search trials, one of them fresh, some ended, some waiting."""
    progress = RunProgress()
    todo = {"conservative_small": config} | {f"search_{number:04d}": None for number in range(1, 27)}
    progress.run_started(todo, [make_record("conservative_small")])
    for number in range(1, 9):
        name = f"search_{number:04d}"
        progress.trial_started(number, name, config)
        progress.trial_ended(make_record(name, number, "pruned" if number % 2 else "max_epochs"))
    for number in range(9, 17):
        progress.trial_started(number, f"search_{number:04d}", config)
        if number > 9:
            progress.epoch_ended(number, make_metrics(number), make_signal(best=number / 100, epoch=number))
            progress.batch(number, 32, 64)
    return progress


def test_eight_running_trials_are_a_row_each(eight_workers):
    lines = shown(eight_workers)
    assert len(lines) == 12
    assert max(map(len, lines)) <= 80
    words = [line.replace("━", " ").replace("╸", " ").split() for line in lines]
    assert words[0] == "9/27 done epochs best now left at most".split()
    assert words[1] == "search_0009 0/30 - - -".split()
    assert words[2] == "search_0010 10/30 0.1000 0.9123 3:15".split()
    assert words[8] == "search_0016 16/30 0.1600 0.9123 2:15".split()
    assert lines[9:] == [
        "best  conservative_small, val_char_accuracy 0.9912",
        "left  about 9:05 with the 10 waiting",
        "last  search_0008 all epochs, search_0007 pruned, search_0006 all epochs",
    ]


def test_a_low_terminal_shows_as_many_rows_as_fit(eight_workers):
    lines = shown(eight_workers, height=12)
    assert len(lines) <= 12
    assert [line.split()[0] for line in lines[1:5]] == ["search_0009", "search_0010", "search_0011", "search_0012"]
    assert lines[5] == "and 4 more running"


def test_long_names_leave_room_for_the_figures(config, make_metrics, make_signal):
    progress = RunProgress()
    for number, name in enumerate(["ឈ្មោះ" * 8, "b" * 64]):
        progress.trial_started(number, name, config)
        progress.epoch_ended(number, make_metrics(1), make_signal())
    lines = shown(progress)
    assert [line.split()[-4:] for line in lines[1:3]] == [["1/30", "0.9100", "0.9123", "4:50"]] * 2
    assert "b" * 19 + "…" in lines[2]


def test_a_single_trial_is_shown_in_detail(config, make_record, make_metrics, make_signal):
    progress = RunProgress()
    progress.run_started({"old": config, "new": config, "next": config}, [make_record("old")])
    progress.trial_started(1, "new", config)
    progress.batch(1, 0, 63)
    assert shown(progress)[3:] == [
        "the first epoch is on its way",
        "ahead old 0.9912",
        "left  at most 7:56 with the 1 waiting",
    ]
    progress.epoch_ended(1, make_metrics(4), make_signal())
    lines = shown(progress)
    assert [line.split()[-2:] for line in lines[:3]] == [["1/3", "done"], ["4/30", "epochs"], ["0/63", "batches"]]
    assert lines[3:] == [
        "now   char 0.9123  seq 0.7000  loss 0.4000  (training loss 0.5000)",
        "best  val_char_accuracy 0.9100 in epoch 4  (0 of 10 epochs without gain)",
        "ahead old 0.9912",
        "left  at most 4:20, 9:20 with the 1 waiting",
    ]


def test_a_single_search_trial_shows_its_draw_and_promises_nothing(make_record, make_metrics, make_signal):
    drawn = TrainingConfig(model_name="ctc", batch_size=48, num_epochs=30, warmup_epochs=3)
    progress = RunProgress()
    progress.run_started({"search_0000": None, "search_0001": None}, [])
    progress.trial_started(0, "search_0000", drawn)
    assert shown(progress)[-1] == "left  known when an epoch has been timed"
    progress.epoch_ended(0, make_metrics(1), make_signal())
    assert "drawn ctc, batch 48, lr 0.001, steplr, up to 30 epochs, warmup_epochs 3" in shown(progress)
    assert shown(progress)[-1] == "left  at most 4:50, the others are not timed yet"
    progress.trial_ended(make_record("search_0000"))
    progress.trial_started(1, "search_0001", replace(drawn, model_name="large"))
    assert shown(progress)[-1] == "left  about 3:20"


def test_nothing_is_shown_before_anything_is_known():
    assert shown(RunProgress()) == [""]
