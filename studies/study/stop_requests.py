"""Asking all processes that work on a study, wherever they run, to stop after their epoch.

A request is a token in the study. A process remembers the token that it found when it began, and stops once it finds
another one, so that an old request stops nobody who begins later.
"""

from __future__ import annotations

import uuid

import optuna

_STOP = "stop"


def request_stop(study: optuna.Study) -> None:
    """Ask all processes that work on a study now to stop after their epoch.

    Args:
        study: From `load_study_for_changes`.
    """
    study.set_user_attr(_STOP, uuid.uuid4().hex)


def stop_token(study: optuna.Study) -> str:
    """Return the token of the latest request; "" if there was none."""
    return str(study.user_attrs.get(_STOP, ""))
