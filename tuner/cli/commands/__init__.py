"""The commands of ``khmer-tuner``, one module each; a new command joins the list."""

from __future__ import annotations

from tuner.cli.commands import (
    best,
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

COMMANDS = (
    run.COMMAND,
    search.COMMAND,
    resume.COMMAND,
    worker.COMMAND,
    enqueue.COMMAND,
    stop.COMMAND,
    data.COMMAND,
    validate.COMMAND,
    status.COMMAND,
    show.COMMAND,
    export.COMMAND,
    report.COMMAND,
    dashboard.COMMAND,
    best.COMMAND,
    confirm.COMMAND,
    predict.COMMAND,
    evaluate.COMMAND,
)
