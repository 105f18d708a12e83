from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary

from tuner.training.event_file import EventFile

Fill = Callable[[Path, int], Path]


def point(value: float) -> Summary:
    return Summary(value=[Summary.Value(tag="loss", simple_value=value)])


def points(folder: Path) -> list[tuple[int, float]]:
    """The curve as TensorBoard shows it."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


def test_what_was_added_is_there_at_once(tmp_path: Path) -> None:
    file = EventFile(tmp_path, None)
    for step in range(3):
        file.add(step, summary=point(step))
        assert points(tmp_path) == [(done, done) for done in range(step + 1)]
    file.close()


def test_a_later_file_drops_what_older_ones_hold_from_its_step_on(tmp_path: Path) -> None:
    for purge_step, steps in ((None, range(4)), (2, range(2, 6)), (3, range(3, 4))):
        file = EventFile(tmp_path, purge_step)
        for step in steps:
            file.add(step, summary=point(step))
        file.close()
    assert points(tmp_path) == [(step, step) for step in range(4)]


def test_what_could_not_be_written_is_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "tensorboard"
    folder.write_text("in the way")
    file = EventFile(folder, None)
    file.add(1, summary=point(0.5))
    assert "cannot be written now" in caplog.text
    folder.unlink()
    file.add(2, summary=point(0.25))
    file.close()
    assert points(folder) == [(1, 0.5), (2, 0.25)]


def test_a_full_disk_is_an_error(disk: Path, fill: Fill) -> None:
    file = EventFile(disk / "tensorboard", None)
    ballast = fill(disk, 0)
    with pytest.raises(OSError, match="No space left"):
        file.add(1, summary=Summary(value=[Summary.Value(tag="x" * 2**16, simple_value=0)]))
    ballast.unlink()
    file.add(2, summary=point(0.5))
    file.close()
    assert points(disk / "tensorboard") == [(2, 0.5)]
