from types import SimpleNamespace

import pytest
from optuna.exceptions import StorageInternalError

from search_spaces import load_experiments
from studies import RowState
from tuner.display.events import Display
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.session.status_poller import StatusPoller


class RecordingDisplay(Display):
    """Records the received statuses."""

    def __init__(self):
        self.statuses = []

    def status_polled(self, status):
        self.statuses.append(status)


@pytest.fixture
def session(write_config, in_tmp):
    return Session.open(
        RunRequest.from_file(load_experiments(write_config({"one": {}, "two": {}}))), RecordingDisplay()
    )


@pytest.fixture
def clock(monkeypatch):
    """Return the poller's clock, which shows `now` in seconds until a test changes it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("tuner.session.status_poller.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def polled(session):
    display = session.context.display
    assert isinstance(display, RecordingDisplay)
    return display.statuses


@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), ValueError("no JSON")])
def test_failed_poll_is_ignored(error, session, monkeypatch):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("tuner.session.status_poller.read_status", fail)
    StatusPoller(session, every_s=5).poll()
    assert polled(session) == []


def test_study_is_polled_after_a_trial_unless_polls_are_slow(session, clock):
    poller = StatusPoller(session, every_s=5)
    poller.poll()
    poller.poll_after_trial()
    assert len(polled(session)) == 2
    poller._took = 1.0
    poller.poll_after_trial()
    assert len(polled(session)) == 2
    clock.now += 5
    poller.poll_after_trial()
    assert len(polled(session)) == 3


def test_display_receives_the_status(session):
    StatusPoller(session, every_s=5).poll()
    (status,) = polled(session)
    assert {row.name: row.state for row in status.rows} == {"one": RowState.WAITING, "two": RowState.WAITING}


def test_study_is_polled_once_per_interval(session, clock):
    poller = StatusPoller(session, every_s=5)
    for clock.now in (1000.0, 1001.0, 1004.9, 1005.0, 1009.0, 1020.0):
        poller.poll_if_due()
    assert len(polled(session)) == 3
    clock.now = 1021.0
    poller.poll()  # an explicit poll is not delayed
    assert len(polled(session)) == 4


def test_slow_polls_are_rare(session, clock, monkeypatch):
    polls = []

    def slow(*arguments):
        polls.append(clock.now)
        clock.now += 0.5

    monkeypatch.setattr("tuner.session.status_poller.read_status", slow)
    monkeypatch.setattr(RecordingDisplay, "status_polled", lambda self, status: None)
    poller = StatusPoller(session, every_s=5)
    while clock.now < 2000:
        poller.poll_if_due()
        clock.now += 0.25
    # At most 1 % of the time.
    assert len(polls) * 0.5 <= 0.01 * 1000 + 0.5
    assert len(polls) > 10


def test_poll_that_waited_for_a_lock_delays_the_next_by_at_most_a_minute(session, clock, monkeypatch):
    def wait(*arguments):
        clock.now += 300
        raise StorageInternalError("database is locked")

    monkeypatch.setattr("tuner.session.status_poller.read_status", wait)
    poller = StatusPoller(session, every_s=5)
    poller.poll()
    clock.now += 60
    assert poller.is_due


def test_poll_after_a_failed_poll_is_shown(session, monkeypatch):
    def locked(*arguments):
        raise StorageInternalError("database is locked")

    poller = StatusPoller(session, every_s=5)
    with monkeypatch.context() as patch:
        patch.setattr("tuner.session.status_poller.read_status", locked)
        poller.poll()
    assert polled(session) == []
    assert not poller.is_due
    poller.poll()
    assert len(polled(session)) == 1
