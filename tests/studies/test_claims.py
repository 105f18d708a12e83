from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces import TrainingConfig
from studies import (
    OutputFolder,
    TrialKind,
    TrialOutcome,
    WhyEnded,
    claim_next,
    final_state,
    load_study,
    read_record,
    record_outcome,
)
from studies.file_locks import holder_pid

Start = Callable[..., tuple[optuna.Study, OutputFolder]]
Presets = dict[str, TrainingConfig]


def test_waiting_trials_are_claimed_in_number_order_each_once(start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    claims = [claim_next(study, folder) for _ in range(4)]
    assert [claim.record.experiment_name if claim else None for claim in claims] == [*presets, None]
    assert [(claim.record.attempts, claim.adopted) for claim in claims if claim] == [(1, False)] * 3
    for claim in claims:
        if claim is not None:
            claim.release()


def test_what_was_let_go_is_adopted_first_under_its_number(start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    first, second = claim_next(study, folder), claim_next(study, folder)
    assert first is not None
    assert second is not None
    first.trial.report(0.5, step=1)
    for claim in (second, first):
        claim.release()
    # As another process would: from the folder's database, without this one's memory.
    again, folder = start(presets)
    for number in (0, 1):
        adopted = claim_next(again, folder)
        assert adopted is not None
        assert (adopted.record.number, adopted.adopted, adopted.record.attempts) == (number, True, 2)
    third = claim_next(again, folder)
    assert third is not None
    assert (third.record.number, third.adopted) == (2, False)
    assert again.get_trials()[0].intermediate_values == {1: 0.5}


def test_only_the_experiments_asked_for_are_claimed(start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    claim_waiting = claim_next(study, folder)
    assert claim_waiting is not None
    claim_waiting.release()
    claim = claim_next(study, folder, names=["high_rate"])
    assert claim is not None
    assert claim.record.experiment_name == "high_rate"
    assert claim_next(study, folder, names=["high_rate"]) is None
    claim.release()


def test_the_lease_is_held_until_the_end(start: Start, presets: Presets, outcome: TrialOutcome) -> None:
    study, folder = start(presets)
    with pytest.raises(RuntimeError, match="boom"):
        fail_inside(study, folder)
    assert holder_pid(folder.lease_path(0)) is None
    claim = claim_next(study, folder)
    assert claim is not None
    assert holder_pid(folder.lease_path(0)) is not None
    claim.finish(outcome, 0.9)
    assert holder_pid(folder.lease_path(0)) is None
    assert study.get_trials()[0].value == 0.9


def fail_inside(study: optuna.Study, folder: OutputFolder) -> None:
    claim = claim_next(study, folder)
    assert claim is not None
    with claim:
        raise RuntimeError("boom")


@pytest.mark.parametrize("why", list(WhyEnded))
@pytest.mark.parametrize("kind", list(TrialKind))
def test_optuna_is_told_what_the_end_means(why: WhyEnded, kind: TrialKind) -> None:
    expected = {
        WhyEnded.MAX_EPOCHS: TrialState.COMPLETE,
        WhyEnded.EARLY_STOPPED: TrialState.COMPLETE,
        WhyEnded.PRUNED: TrialState.PRUNED,
        WhyEnded.NONFINITE_LOSS: TrialState.PRUNED if kind is TrialKind.SEARCH else TrialState.FAIL,
    }
    assert final_state(kind, why) == expected.get(why, TrialState.FAIL)


@pytest.mark.parametrize("why", list(WhyEnded))
def test_every_end_is_recorded_as_it_was(why: WhyEnded, start: Start, presets: Presets, outcome: TrialOutcome) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    ended = replace(outcome, why_ended=why, error_type="Oops", error_message="it broke", converged_epoch=2)
    claim.trial.report(0.9, step=1)
    claim.finish(ended, 0.9)
    record = read_record(load_study(folder.path)[0].get_trials()[0])
    assert record.outcome == ended
    assert record.phase.value == ("completed" if ended.succeeded else "failed")


def test_a_completed_trial_needs_its_value(start: Start, presets: Presets, outcome: TrialOutcome) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    with claim, pytest.raises(ValueError, match="give its best value"):
        claim.finish(outcome)
    assert study.get_trials()[0].state == TrialState.RUNNING


def test_an_earlier_attempt_s_error_does_not_stick(start: Start, presets: Presets, outcome: TrialOutcome) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    record_outcome(claim.trial, replace(outcome, why_ended=WhyEnded.CRASHED, error_message="boom"))
    claim.release()
    assert read_record(study.get_trials()[0]).outcome is None
    again = claim_next(study, folder)
    assert again is not None
    again.finish(outcome, 0.9)
    assert read_record(study.get_trials()[0]).outcome == outcome


def test_trials_of_others_are_left_alone(start: Start, presets: Presets) -> None:
    study, folder = start()
    study.enqueue_trial({"x": 1.0})
    study.ask()
    study.enqueue_trial({"x": 2.0})
    assert claim_next(study, folder) is None
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING", "WAITING"]
