"""The main program of a worker process, which another command (the parent) starts.

The parent writes orders to the process's standard input and reads events from its standard output.
Standard input closes when the parent exits or is killed; the worker then interrupts its trial and exits.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import os
import queue
import signal
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from tuner.cli.errors import SUCCESS, report_error
from tuner.signals import StopRequested, stop_on_signals

if TYPE_CHECKING:
    from tuner.workers.orders import WorkerOrders


def main() -> int:
    """Train trials as ordered on standard input; return the exit code."""
    study_options: argparse.Namespace | None = None
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the parent reads UTF-8 in any locale
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        with stop_on_signals():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
            from tuner.workers.orders import read_orders

            orders = read_orders(lines.get())
            study_options = argparse.Namespace(output_dir=orders.output_dir, storage=orders.storage, debug=True)
            return _work(orders)
    except StopRequested as stop:
        return stop.exit_code
    except Exception as error:
        return report_error(error, study_options)


def _work(orders: WorkerOrders) -> int:
    import torch

    from tuner.cli.display_factory import log_warnings_as_notes
    from tuner.display.events import Display, EventWriter
    from tuner.session.session import Session
    from tuner.session.study_setup import ExistingStudy
    from tuner.workers.loop import work_here
    from tuner.workers.orders import TRIALS_PENDING

    torch.set_num_threads(orders.threads)
    display = EventWriter(sys.stdout)
    with log_warnings_as_notes(display, debug=False):
        existing = ExistingStudy.load(orders.output_dir, storage=orders.storage, name=orders.study)
        session = Session.reopen(
            replace(existing, stop_token=orders.stop_token),
            Display(),  # the parent has already shown the notes
            device=orders.device,
            metadata=orders.metadata,
            experiments=orders.experiments,
        )
        session = replace(session, context=replace(session.context, display=display))
        work_here(session, orders.trial_filter, orders.stop_conditions)
    return TRIALS_PENDING if orders.trial_filter.skipped else SUCCESS


def _read_lines(lines: queue.SimpleQueue[bytes]) -> None:
    """Put each line from standard input into the queue; stop this process when standard input closes."""
    # Reading through sys.stdin would hold the lock of sys.stdin when the interpreter exits.
    rest = b""
    while chunk := os.read(sys.stdin.fileno(), 2**16):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            lines.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    atexit.register(gc.freeze)  # as in `tuner.__main__`
    sys.exit(main())
