from __future__ import annotations

import time

import pytest

from studies import TrialKind, TrialPhase, TrialRecord
from tuner.session.run_options import Limits, Scope


def record(kind: TrialKind, name: str) -> TrialRecord:
    return TrialRecord(0, kind, TrialPhase.WAITING, name, {}, "", (), None)


@pytest.mark.parametrize(
    ("scope", "held"),
    [
        (Scope(), {"one", "two", "search_0002"}),
        (Scope(search=False), {"one", "two"}),
        (Scope(frozenset({"one"})), {"one", "search_0002"}),
        (Scope(frozenset({"one", "other"}), search=False), {"one"}),
        (Scope(frozenset()), {"search_0002"}),
    ],
)
def test_a_scope_holds_presets_by_name_and_search_trials_together(scope: Scope, held: set[str]) -> None:
    records = [
        record(TrialKind.PRESET, "one"),
        record(TrialKind.PRESET, "two"),
        record(TrialKind.SEARCH, "search_0002"),
    ]
    assert {item.experiment_name for item in records if scope.holds(item)} == held


@pytest.mark.parametrize(
    ("scope", "grows"),
    [
        (Scope(), True),
        (Scope(frozenset({"one"})), True),
        (Scope(search=False), True),
        (Scope(frozenset({"one"}), search=False), False),
    ],
)
def test_only_a_scope_of_named_experiments_cannot_grow(scope: Scope, grows: bool) -> None:
    assert scope.may_grow == grows


def test_time_is_up_at_the_deadline_and_never_without_one() -> None:
    assert not Limits().time_is_up
    assert not Limits(deadline=time.monotonic() + 1000).time_is_up
    assert Limits(deadline=time.monotonic()).time_is_up
