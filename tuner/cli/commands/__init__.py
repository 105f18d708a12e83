"""The commands of ``khmer-tuner``, one module each, and the groups in which ``--help`` lists them."""

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
    export_model,
    import_,
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

# Keyed by the heading under which `khmer-tuner --help` lists them.
COMMAND_GROUPS: dict[str, tuple[Command[Any], ...]] = {
    "run": tuple(module.COMMAND for module in (run, search, resume, worker, enqueue, stop)),
    "watch": tuple(module.COMMAND for module in (status, show, report, dashboard)),
    "use the result": tuple(
        module.COMMAND for module in (best, confirm, predict, evaluate, export, import_, export_model, clean)
    ),
    "data": tuple(module.COMMAND for module in (data, validate)),
}
COMMANDS = tuple(command for group in COMMAND_GROUPS.values() for command in group)
