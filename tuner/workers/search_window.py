"""The waiting of a worker whose pending search trials are held back until an earlier trial has finished."""

from __future__ import annotations

import math
import time

from studies import HeldBack
from tuner.display.study_lines import study_command
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.trial_selection import held_back, may_start, trials_to_start

_SECONDS_BETWEEN_CLAIMS = 0.5
# A worker that is blocked stops waiting after this time.
_SECONDS_BLOCKED = 5.0


class SearchWindow:
    """The waiting of a worker whose pending search trials are all held back until an earlier trial has finished."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew, after the worker has claimed a trial."""
        self._is_noted, self._blocked_since = False, math.inf

    def wait(self, session: Session, trial_filter: TrialFilter, stop_conditions: StopConditions) -> bool:
        """Wait for a moment after a failed claim; return whether to try to claim a trial again."""
        if not trial_filter.search or not may_start(session, stop_conditions):
            return False
        held = held_back(session, trial_filter)
        if held is None and not trials_to_start(session, trial_filter):
            return False
        # Without `held`, the awaited trial has finished since the failed claim.
        is_blocked = held is not None and held.is_blocked
        self._blocked_since = min(self._blocked_since, time.monotonic()) if is_blocked else math.inf
        if time.monotonic() - self._blocked_since > _SECONDS_BLOCKED:
            return False
        if held is not None and not self._is_noted:
            session.context.display.note(held.text)
            self._is_noted = True
        time.sleep(_SECONDS_BETWEEN_CLAIMS)
        return True


def held_back_text(session: Session, held: HeldBack) -> str:
    """Describe for which trial a search trial waits, and how to train it if no running worker will."""
    if not held.is_blocked:
        return held.text
    command = study_command("resume", session.context.folder.path)
    return f"{held.text}, which no running worker will train; run `{command}` to train it"
