"""Events that a worker process writes and its parent replays."""

import json
import math
from dataclasses import fields, replace

import pytest

from search_spaces import TrainingConfig
from studies.trials.record import Attempt, StartedAfter
from tuner.display.displays import ProgressDisplay
from tuner.display.events import Display, EventWriter, replay
from tuner.signals import StopRequested


class Listener(Display):
    """Records the calls it receives."""

    def __init__(self):
        self.received = []


def _recorder(event):
    return lambda self, *args, **kwargs: self.received.append((event, args, kwargs))


EVENTS = sorted(name for name in vars(EventWriter) if not name.startswith("_"))
for name in EVENTS:
    setattr(Listener, name, _recorder(name))


@pytest.fixture
def calls(config, make_record, make_metrics, make_signal):
    """A call of every event, with arguments that are difficult to represent in JSON."""
    unusual = replace(config, experiment_name="ខ្មែរ", optimizer_betas=[0.85, 0.9999], learning_rate=0.1 + 0.2)
    ended = make_record("ខ្មែរ", 3, of=unusual, converged_epoch=7)
    failed = make_record("search_0004", 4, "failed", error_type="OSError", error_message="no\nfile \udce9.png\u2028")
    waiting = replace(
        ended,
        outcome=None,
        attempts=(Attempt("2026-01-02T03:04:05", "host:1", 3, StartedAfter.CRASH),),
    )
    worst = replace(make_metrics(2), train_loss=math.inf, val_loss=-math.inf, learning_rate=math.nan)
    signal = make_signal(best=0.1 + 0.2)
    signal.update(5, 0.2)
    fresh = type(signal)("min", 0.5, 3)
    return [
        ("note", ("ខ្មែរ: “quoted”\nand more",), {}),
        ("trial_started", (3, "ខ្មែរ", unusual), {"resumed": True}),
        ("batch", (3, 0, 63), {}),
        ("epoch_ended", (3, make_metrics(1), signal), {}),
        ("epoch_ended", (3, worst, fresh), {}),
        ("trial_ended", (ended,), {}),
        ("trial_ended", (failed,), {}),
        ("trial_ended", (waiting,), {}),
        ("trial_interrupted", (3,), {}),
    ]


def test_every_event_is_replayed_unchanged(calls, stream):
    writer, listener = EventWriter(stream), Listener()
    for event, args, kwargs in calls:
        getattr(writer, event)(*args, **kwargs)
    for line in stream.getvalue().split("\n")[:-1]:  # not splitlines: it also breaks at other separators
        replay(line, listener)
    assert {event for event, _, _ in calls} == set(EVENTS)
    for received, sent in zip(listener.received, calls, strict=True):
        assert repr(received) == repr(sent)  # as text, since NaN is not equal to itself


def test_each_event_is_one_ascii_line(stream):
    EventWriter(stream).note("ខ\nand more")
    assert stream.getvalue() == '{"event": "note", "text": "\\u1781\\nand more"}\n'


def test_every_field_of_a_record_is_written(make_record, stream):
    record = make_record("a")
    EventWriter(stream).trial_ended(record)
    assert json.loads(stream.getvalue())["record"].keys() == {field.name for field in fields(record)}


def test_name_that_is_not_utf8_can_be_written(tmp_path):
    with (tmp_path / "events").open("w", encoding="utf-8") as stream:
        EventWriter(stream).note("\udce9.png")
        EventWriter(stream).note("more")
    listener = Listener()
    for line in (tmp_path / "events").read_text(encoding="utf-8").splitlines():
        replay(line, listener)
    assert [args for _, args, _ in listener.received] == [("\udce9.png",), ("more",)]


def test_batches_are_written_a_few_times_a_second_and_at_the_end(monkeypatch, stream):
    clock = iter(number / 100 for number in range(10_000))
    monkeypatch.setattr("tuner.display.events.time.monotonic", lambda: next(clock))
    writer = EventWriter(stream)
    for step in range(101):  # one second
        writer.batch(0, step, 100)
    written = [json.loads(line)["done"] for line in stream.lines]
    assert written[0] == 0
    assert written[-1] == 100
    assert 5 <= len(written) <= 7


def test_swallowed_stop_request_is_raised_at_the_next_batch(monkeypatch, stream):
    monkeypatch.setattr("tuner.signals._requested", StopRequested(15))
    with pytest.raises(StopRequested):
        EventWriter(stream).batch(0, 1, 2)


def test_exit_of_the_parent_does_not_fail_the_trial(monkeypatch, stream):
    def write(text):
        raise BrokenPipeError

    monkeypatch.setattr(stream, "write", write)
    EventWriter(stream).note("text")


def test_events_of_the_parent_are_not_written(stream, make_status):
    EventWriter(stream).status_polled(make_status())
    EventWriter(stream).close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Warning: something printed this",
        "[1]",
        '{"event": "batch", "num',
        '{"event": "note"}',
        '{"event": "status_polled", "status": {}}',
        '{"event": "close"}',
        '{"event": "trial_ended", "record": {"number": 1}}',
    ],
)
def test_line_that_is_not_an_event_is_refused(line):
    with pytest.raises(ValueError, match=r"."):
        replay(line, Listener())


def test_display_shows_replayed_events_like_direct_ones(calls, stream, terminal):
    direct = ProgressDisplay(terminal, None)
    writer = EventWriter(stream)
    for event, args, kwargs in calls:
        getattr(direct, event)(*args, **kwargs)
        getattr(writer, event)(*args, **kwargs)
    shown = terminal.getvalue()
    terminal.seek(0)
    terminal.truncate()
    replayed = ProgressDisplay(terminal, None)
    for line in stream.getvalue().split("\n")[:-1]:
        replay(line, replayed)
    assert terminal.getvalue() == shown


def test_replayed_settings_keep_their_types(stream):
    EventWriter(stream).trial_started(0, "a", TrainingConfig(), resumed=False)
    listener = Listener()
    replay(stream.getvalue(), listener)
    config = listener.received[0][1][2]
    assert {item.name: type(getattr(config, item.name)) for item in fields(config)} == {
        item.name: type(getattr(TrainingConfig(), item.name)) for item in fields(config)
    }
