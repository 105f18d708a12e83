from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studies import TrialOutcome, WhyEnded
from tuner.display.lines import failure

FAILED = TrialOutcome(
    why_ended=WhyEnded.FAILED,
    training_time_s=0.0,
    best_val_char_accuracy=0.0,
    best_val_seq_accuracy=0.0,
    final_train_loss=None,
    total_epochs=0,
    best_epoch=None,
)


@given(message=st.text(max_size=30), kind=st.sampled_from(["", "OSError"]))
@example(message=" \n", kind="")
@example(message="\x1b[2J", kind="OSError")
def test_any_error_is_shown_as_one_printable_line(message, kind):
    shown = failure(replace(FAILED, error_type=kind, error_message=message))
    assert shown
    assert shown.isprintable()
    assert shown.startswith(kind)


@pytest.mark.parametrize(
    ("message", "shown"), [("first\nsecond", "OSError: first"), ("", "OSError: failed"), ("\n\n", "OSError: failed")]
)
def test_failure_shows_the_first_line_of_the_error_or_the_reason(message, shown):
    assert failure(replace(FAILED, error_type="OSError", error_message=message)) == shown
