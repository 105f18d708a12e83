"""The summary of a run."""

from pathlib import Path

import pytest

from search_spaces import Targets
from tuner.display.summary import print_summary
from tuner.display.terminal import console_on

PRESETS = ("conservative_small", "baseline_optimized", "high_learning_rate")


@pytest.fixture
def lines_of(stream, make_summary):
    def lines(*records, **known):
        print_summary(console_on(stream), make_summary(*records, **known))
        return [line.rstrip() for line in stream.lines]

    return lines


@pytest.fixture
def search_of(make_record):
    """Make search trials numbered after the presets; every tenth failed, every third of the others was pruned."""

    def trials(count):
        for number in range(3, 3 + count):
            why = "failed" if number % 10 == 0 else "pruned" if number % 3 == 0 else "max_epochs"
            yield make_record(f"search_{number:04d}", number, why, best_val_char_accuracy=number / 1000)

    return trials


def first_words(lines):
    return [line.split()[0] for line in lines if line]


def test_summary_fits_80_columns_and_shows_met_and_missed_targets(lines_of, make_record):
    targets = Targets(character_accuracy=0.85, sequence_accuracy=0.7, training_time_per_epoch=30, convergence_epochs=15)
    broken = make_record(
        "high_learning_rate",
        1,
        "out_of_memory",
        error_type="RuntimeError",
        error_message="DefaultCPUAllocator: can't allocate memory\nand more",
    )
    lines = lines_of(make_record("conservative_small"), broken, targets=targets, leader="b")
    assert max(len(line) for line in lines if "failed: " not in line) <= 80
    words = [line.split() for line in lines]
    assert "conservative_small completed early stopped 25/30 0.9912 0.6789 7.9 -".split() in words
    assert "conservative_small 0.9912 met 0.6789 MISSED 7.9 met never MISSED".split() in words
    at = lines.index("high_learning_rate failed: RuntimeError: DefaultCPUAllocator: can't allocate memory")
    assert lines[at + 1] == "  log: out/high_learning_rate/logs/training.log"
    assert "by the monitored metric val_loss, b is better" in lines
    assert lines[-5:] == [
        "results      results.json",
        "study        out/study.db",
        "experiments  out/conservative_small",
        "             out/high_learning_rate",
        "curves       tensorboard --logdir out",
    ]


def test_summary_omits_targets_leader_and_pending_trials_if_there_are_none(lines_of, make_record):
    text = "\n".join(lines_of(make_record("a")))
    assert "targets" not in text
    assert "monitored metric" not in text
    assert "pending" not in text
    assert "search" not in text


FEW_IMAGES = (
    "the best trial stopped early, far below the targets: 400 training images may be too few "
    "(`khmer-tuner data` generates more)"
)


@pytest.mark.parametrize(
    ("char", "seq", "why", "shown"),
    [
        (0.6, 0.6, "early_stopped", True),
        (0.84, 0.2, "early_stopped", True),
        (0.84, 0.6, "early_stopped", False),
        (0.6, 0.6, "max_epochs", False),
    ],
)
def test_early_stop_far_below_the_targets_is_noted_with_the_number_of_images(
    char, seq, why, shown, lines_of, make_record
):
    worse = make_record("worse", 1, best_val_char_accuracy=0.1)
    best = make_record("best", 0, why, best_val_char_accuracy=char, best_val_seq_accuracy=seq)
    targets = Targets(character_accuracy=0.85, sequence_accuracy=0.7)
    assert (FEW_IMAGES in lines_of(best, worse, targets=targets, training_images=400)) is shown


def test_without_targets_the_number_of_images_is_not_noted(lines_of, make_record):
    assert FEW_IMAGES not in lines_of(make_record("best", best_val_char_accuracy=0.1), training_images=400)


def test_large_search_shows_the_ten_best_and_ten_failed_trials(lines_of, make_record, search_of):
    presets = [make_record(name, number) for number, name in enumerate(PRESETS)]
    lines = lines_of(*presets, *search_of(200), targets=Targets(character_accuracy=0.2))
    assert max(map(len, lines)) <= 80
    table = lines[: lines.index("180 more search trials: `khmer-tuner status --all --output-dir out` shows them")]
    best = [number for number in range(202, 190, -1) if number % 10]
    shown = [*best[:10], *range(10, 110, 10)]
    assert first_words(table)[2:] == [*PRESETS, *(f"search_{number:04d}" for number in shown)]
    assert "search_0201 pruned pruned 25/30 0.2010 0.6789 7.9 -".split() in map(str.split, table)
    targets = lines[len(table) + 2 : len(table) + 7]
    assert first_words(targets) == ["targets", *PRESETS, "search_0202"]
    assert targets[-1].split()[1:] == ["0.2020", "met"]


def test_folders_of_search_trials_share_one_line(lines_of, make_record, search_of):
    lines = lines_of(make_record("a"), *search_of(24))
    assert lines[-4:-1] == ["study        out/study.db", "experiments  out/a", "             out/search_NNNN"]


def test_small_search_shows_all_trials(lines_of, search_of):
    lines = lines_of(*search_of(6))
    assert first_words(lines)[2:8] == [f"search_{number:04d}" for number in (8, 7, 6, 5, 4, 3)]
    assert "more search trial" not in "\n".join(lines)


def test_failed_search_trials_share_one_log_line(lines_of, make_record):
    records = [make_record(f"search_{number:04d}", number, "failed", error_message="boom") for number in (1, 2)]
    lines = lines_of(*records)
    at = lines.index("search_0001 failed: boom")
    assert lines[at + 1 : at + 3] == ["search_0002 failed: boom", "  log: out/search_NNNN/logs/training.log"]


@pytest.mark.parametrize(
    ("folder", "pending", "line"),
    [
        ("training_output", 12, "12 trials are pending; continue with: khmer-tuner resume"),
        ("out", 1, "1 trial is pending; continue with: khmer-tuner resume --output-dir out"),
        ("my out", 2, "2 trials are pending; continue with: khmer-tuner resume --output-dir 'my out'"),
    ],
)
def test_pending_trials_are_shown_with_the_command_that_trains_them(folder, pending, line, lines_of, make_record):
    lines = lines_of(make_record("a"), output_dir=Path.cwd() / folder, pending=pending)
    assert lines[-1] == line
