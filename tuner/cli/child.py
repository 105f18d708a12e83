"""A worker process of another command: orders on standard input, events on standard output, errors on standard error.

It stops, its trial ready to be gone on with, when its standard input closes: its parent has stopped, or died.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.cli.errors import DONE, report_error
from tuner.signals import StopRequested, stop_on_signals


def main() -> int:
    """Work as ordered; return the exit code."""
    place: argparse.Namespace | None = None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the parent reads, whatever this machine's language is
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        with stop_on_signals():
            orders = json.loads(sys.stdin.readline() or "null")
            if orders is None:  # the parent has died already
                return DONE
            place = argparse.Namespace(output_dir=orders["output_dir"], storage=orders["storage"], debug=True)
            threading.Thread(target=_stop_with_parent, daemon=True).start()
            _work(orders)
            return DONE
    except StopRequested as stop:
        return stop.exit_code
    except Exception as error:
        return report_error(error, place)


def _work(orders: dict[str, Any]) -> None:
    import torch

    from search_spaces import TrainingConfig
    from tuner.cli.displays import logged_as_notes
    from tuner.display import Display
    from tuner.display.events import EventWriter
    from tuner.scope import Limits, Scope
    from tuner.session import Session
    from tuner.work import work_here

    torch.set_num_threads(orders["threads"])
    display = EventWriter(sys.stdout)
    scope = Scope(None if orders["only"] is None else frozenset(orders["only"]), orders["search"])
    deadline = None if orders["seconds"] is None else time.monotonic() + orders["seconds"]
    with logged_as_notes(display, debug=False):
        session = Session.reopen(
            Path(orders["output_dir"]),
            display=Display(),  # the parent has told already what there is to tell
            storage=orders["storage"],
            device=orders["device"],
            experiments={name: TrainingConfig(**config) for name, config in orders["experiments"].items()},
            token=orders["stop_token"],
        )
        session = replace(session, workplace=replace(session.workplace, display=display))
        work_here(session, scope, Limits(deadline, orders["until_targets"]))


def _stop_with_parent() -> None:
    # Not through sys.stdin: its lock would be held when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
