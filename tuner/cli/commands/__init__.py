"""The commands of ``khmer-tuner``, one module each; a new command joins the list."""

from __future__ import annotations

from typing import Any

from tuner.cli.commands import (
    best,
    clean,
    confirm,
    dashboard,
    data,
    enqueue,
    evaluate,
    export,
    predict,
    report,
    resume,
    run,
    search,
    show,
    status,
    stop,
    validate,
    worker,
)
from tuner.cli.options import Command

_TRAINING = (run, search, resume, worker, enqueue, stop)
_STUDY = (data, validate, status, show, export, report, dashboard, best, confirm, predict, evaluate, clean)

COMMANDS: tuple[Command[Any], ...] = tuple(module.COMMAND for module in (*_TRAINING, *_STUDY))
