"""Wait until a search trial that is held back may start."""

from __future__ import annotations

import math
import time

from studies import HeldBack
from tuner.display.lines import study_command
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.session.session import Session
from tuner.session.status_poller import StatusPoller
from tuner.session.trial_selection import held_back, may_start, trials_to_start

_SECONDS_BETWEEN_POLLS = 0.5
# A takeover of a trial takes at most 15 s, after a restart of the server; a new process takes some seconds to start.
_SECONDS_UNTIL_BLOCKED = 20.0


def wait_until_startable(
    session: Session, trial_filter: TrialFilter, stop_conditions: StopConditions, poller: StatusPoller | None
) -> bool:
    """Wait after a failed claim, while the pending search trials are held back; return whether to claim again.

    Args:
        session: The opened study.
        trial_filter: The trials that the caller trains.
        stop_conditions: When to stop waiting.
        poller: Updates the display; None if another process does.
    """
    has_waited, is_noted, blocked_since = False, False, math.inf
    while trial_filter.search and may_start(session, stop_conditions):
        held = held_back(session, trial_filter)
        is_startable = bool(trials_to_start(session, trial_filter))
        blocked_since = min(blocked_since, time.monotonic()) if held is not None and held.is_blocked else math.inf
        is_blocked = time.monotonic() - blocked_since > _SECONDS_UNTIL_BLOCKED
        if has_waited and is_startable:
            return True
        if not is_startable and (held is None or is_blocked):
            return False
        if not is_noted and not is_startable and held is not None and not held.is_blocked:
            session.context.display.note(held_back_text(session, held))
            is_noted = True
        has_waited = True
        time.sleep(_SECONDS_BETWEEN_POLLS)
        if poller is not None:
            poller.poll_if_due()
    return False


def held_back_text(session: Session, held: HeldBack) -> str:
    """Describe for which trial a search trial waits, and how to train it if no running worker will."""
    text = f"{held.name} waits until {held.awaited} has finished"
    command = study_command("resume", session.context.folder.path)
    return f"{text}, which no running worker will train; run `{command}` to train it" if held.is_blocked else text
