"""Requests to all workers of a study, on any machine, to stop after the current epoch.

A request is a token in the study. A process stores the token that it found at its start and stops once the token
changes, so an earlier request does not stop processes that start later.
"""

from __future__ import annotations

import uuid

import optuna

_STOP = "stop"


def request_stop(study: optuna.Study) -> None:
    """Request that all current workers of a study stop after the current epoch.

    Args:
        study: From `load_study_for_changes`.
    """
    study.set_user_attr(_STOP, uuid.uuid4().hex)


def stop_token(study: optuna.Study) -> str:
    """Return the token of the latest stop request; "" if there was none."""
    return str(study.user_attrs.get(_STOP, ""))
