from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError

from search_spaces import load_experiments
from studies import RowState, StudyStatus
from tuner.display import Display
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.session.status_poller import StatusPoller

WriteConfig = Callable[..., Path]


class Seen(Display):
    """Keeps what it is told of the study."""

    def __init__(self) -> None:
        self.studies: list[StudyStatus] = []

    def status_polled(self, status: StudyStatus) -> None:
        self.studies.append(status)


@pytest.fixture
def session(write_config: WriteConfig, in_tmp: Path) -> Session:
    return Session.open(RunRequest.from_file(load_experiments(write_config({"one": {}, "two": {}}))), Seen())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The feed's clock: it stands still unless somebody moves `now`, in seconds."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("tuner.session.status_poller.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def seen(session: Session) -> list[StudyStatus]:
    display = session.context.display
    assert isinstance(display, Seen)
    return display.studies


@pytest.mark.parametrize("error", [OSError(116, "Stale file handle"), ValueError("no JSON")])
def test_a_look_that_fails_keeps_nobody_from_working(
    error: Exception, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("tuner.session.status_poller.look_at_study", fail)
    StatusPoller(session, every_s=5).tell()
    assert seen(session) == []


def test_after_a_trial_the_study_is_looked_at_unless_that_takes_long(session: Session, clock: Any) -> None:
    feed = StatusPoller(session, every_s=5)
    feed.tell()
    feed.poll_after_trial()
    assert len(seen(session)) == 2
    feed._took = 1.0
    feed.poll_after_trial()
    assert len(seen(session)) == 2
    clock.now += 5
    feed.poll_after_trial()
    assert len(seen(session)) == 3


def test_the_display_is_told_how_the_study_stands(session: Session) -> None:
    StatusPoller(session, every_s=5).tell()
    (status,) = seen(session)
    assert {row.name: row.state for row in status.rows} == {"one": RowState.WAITING, "two": RowState.WAITING}


def test_the_study_is_looked_at_every_few_seconds_and_not_more_often(session: Session, clock: Any) -> None:
    feed = StatusPoller(session, every_s=5)
    for clock.now in (1000.0, 1001.0, 1004.9, 1005.0, 1009.0, 1020.0):
        feed.poll_if_due()
    assert len(seen(session)) == 3
    clock.now = 1021.0
    feed.tell()  # what was asked for is not put off
    assert len(seen(session)) == 4


def test_looks_that_take_long_are_far_between(session: Session, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def slow(*arguments: object) -> None:
        looks.append(clock.now)
        clock.now += 0.5

    monkeypatch.setattr("tuner.session.status_poller.look_at_study", slow)
    monkeypatch.setattr(Seen, "status_polled", lambda self, status: None)
    feed = StatusPoller(session, every_s=5)
    while clock.now < 2000:
        feed.poll_if_due()
        clock.now += 0.25
    # At most one per cent of the time.
    assert len(looks) * 0.5 <= 0.01 * 1000 + 0.5
    assert len(looks) > 10


def test_a_look_that_waited_for_long_does_not_put_off_the_next_for_hours(
    session: Session, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(*arguments: object) -> None:
        clock.now += 300
        raise StorageInternalError("database is locked")

    monkeypatch.setattr("tuner.session.status_poller.look_at_study", wait)
    feed = StatusPoller(session, every_s=5)
    feed.tell()
    clock.now += 60
    assert feed.is_due


def test_a_database_that_cannot_be_read_just_now_stops_nobody(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*arguments: object) -> None:
        raise StorageInternalError("database is locked")

    feed = StatusPoller(session, every_s=5)
    with monkeypatch.context() as patch:
        patch.setattr("tuner.session.status_poller.look_at_study", locked)
        feed.tell()
    assert seen(session) == []
    assert not feed.is_due
    feed.tell()
    assert len(seen(session)) == 1
