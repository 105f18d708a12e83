"""Requests to all workers of a study, on any machine, to stop after the current epoch.

A request is a token in the study. A process reads the token when it starts, and stops once the token has changed. So a
request does not stop processes that start later.
"""

from __future__ import annotations

import uuid

import optuna

STOP = "stop"


def request_stop(study: optuna.Study) -> None:
    """Request that all current workers of a study stop after the current epoch.

    Args:
        study: The study from `load_study_for_changes`.
    """
    study.set_user_attr(STOP, uuid.uuid4().hex)


def stop_token(study: optuna.Study) -> str:
    """Return the token of the latest stop request; "" if no stop was requested."""
    return str(study.user_attrs.get(STOP, ""))
