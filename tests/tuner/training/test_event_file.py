import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary

from tuner.training.event_file import EventFile


def point(value, tag="loss"):
    return Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def points(folder, tag="loss"):
    """Return the curve that TensorBoard shows."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_added_events_are_readable_immediately(tmp_path):
    file = EventFile(tmp_path)
    for step in range(3):
        file.add(step, point(step))
        assert points(tmp_path) == [(done, done) for done in range(step + 1)]
    file.close()


@pytest.mark.parametrize("first_repeated", [2, 3, 4])
def test_later_file_replaces_each_curve_from_its_first_step(first_repeated, tmp_path):
    """Two curves with different step axes, like those of epochs and training steps, written alternately."""
    for first, last in ((0, 4), (first_repeated, 6)):
        file = EventFile(tmp_path)
        for epoch in range(first, last):
            for step in (2 * epoch, 2 * epoch + 1):
                file.add(step, point(step, "step"))
            file.add(epoch, point(epoch))
        file.close()
    assert points(tmp_path) == [(epoch, epoch) for epoch in range(6)]
    assert points(tmp_path, "step") == [(step, step) for step in range(12)]


def test_unwritten_events_are_written_with_the_next_one(tmp_path, caplog):
    folder = tmp_path / "tensorboard"
    folder.write_text("in the way")
    file = EventFile(folder)
    file.add(1, point(0.5))
    assert "cannot be written (" in caplog.text
    folder.unlink()
    file.add(2, point(0.25))
    file.close()
    assert points(folder) == [(1, 0.5), (2, 0.25)]


def test_full_disk_raises_an_error(disk, fill):
    file = EventFile(disk / "tensorboard")
    ballast = fill(disk, 0)
    with pytest.raises(OSError, match="No space left"):
        file.add(1, Summary(value=[Summary.Value(tag="x" * 2**16, simple_value=0)]))
    ballast.unlink()
    file.add(2, point(0.5))
    file.close()
    assert points(disk / "tensorboard") == [(2, 0.5)]
