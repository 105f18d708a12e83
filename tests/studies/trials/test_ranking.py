from dataclasses import dataclass, replace

import pytest

from studies import TrialKind, TrialPhase, TrialRecord, WhyEnded
from studies.trials.results import best_records, by_accuracy, by_value


@dataclass(frozen=True)
class Valued:
    number: int
    value: float | None


@pytest.mark.parametrize(("maximize", "numbers"), [(True, [2, 0, 3, 1]), (False, [1, 0, 3, 2])])
def test_by_value_sorts_ties_by_number_and_omits_unknown_values(maximize, numbers):
    trials = [Valued(number, value) for number, value in enumerate((0.5, 0.25, 0.75, 0.5, None))]
    assert [trial.number for trial in by_value(trials, lambda trial: trial.value, maximize=maximize)] == numbers


def test_by_accuracy_includes_pruned_trials_and_best_records_does_not(outcome):
    ends = [(0.5, 0.5), (0.9, 0.1), (0.9, 0.2), (0.9, 0.2), (1.0, 1.0), (1.0, 1.0)]
    whys = [WhyEnded.MAX_EPOCHS] * 4 + [WhyEnded.PRUNED, WhyEnded.FAILED]
    records = [
        TrialRecord(
            number=number,
            kind=TrialKind.SEARCH,
            phase=TrialPhase.FAILED if why is WhyEnded.FAILED else TrialPhase.COMPLETED,
            experiment_name=f"search_{number:04d}",
            config={},
            config_digest="",
            attempts=(),
            outcome=replace(outcome, best_val_char_accuracy=char, best_val_seq_accuracy=seq, why_ended=why),
        )
        for number, ((char, seq), why) in enumerate(zip(ends, whys, strict=True))
    ]
    assert [record.number for record in by_accuracy(records)] == [4, 2, 3, 1, 0]
    assert [record.number for record in best_records(records)] == [2, 3, 1, 0]
