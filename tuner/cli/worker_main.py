"""A worker process of another command: orders on standard input, events on standard output, errors on standard error.

It stops, its trial ready to be gone on with, when its standard input closes: its parent has stopped, or died. One that
is ordered to measure how fast training goes writes answers in place of events.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from tuner.cli.errors import SUCCESS, report_error
from tuner.signals import StopRequested, raise_if_requested, stop_on_signals


def main() -> int:
    """Work as ordered; return the exit code."""
    place: argparse.Namespace | None = None
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the parent reads, whatever this machine's language is
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        with stop_on_signals():
            threading.Thread(target=_listen, args=(lines,), daemon=True).start()
            orders = json.loads(lines.get())
            if "measure" in orders:
                _measure(orders, lines)
            place = argparse.Namespace(output_dir=orders["output_dir"], storage=orders["storage"], debug=True)
            _work(orders)
            return SUCCESS
    except StopRequested as stop:
        return stop.exit_code
    except Exception as error:
        return report_error(error, place)


def _work(orders: dict[str, Any]) -> None:
    import torch

    from search_spaces import TrainingConfig
    from tuner.cli.display_factory import logged_as_notes
    from tuner.display import Display
    from tuner.display.events import EventWriter
    from tuner.session.run_options import StopConditions, TrialFilter
    from tuner.session.session import Session
    from tuner.workers.loop import work_here

    torch.set_num_threads(orders["threads"])
    display = EventWriter(sys.stdout)
    scope = TrialFilter(None if orders["only"] is None else frozenset(orders["only"]), orders["search"])
    deadline = None if orders["seconds"] is None else time.monotonic() + orders["seconds"]
    with logged_as_notes(display, debug=False):
        session = Session.reopen(
            Path(orders["output_dir"]),
            display=Display(),  # the parent has told already what there is to tell
            storage=orders["storage"],
            device=orders["device"],
            metadata=orders["metadata"],
            experiments={name: TrainingConfig(**config) for name, config in orders["experiments"].items()},
            token=orders["stop_token"],
        )
        session = replace(session, context=replace(session.context, display=display))
        work_here(session, scope, StopConditions(deadline, orders["until_targets"]))


def _measure(orders: dict[str, Any], lines: queue.SimpleQueue[bytes]) -> NoReturn:
    """Take training steps whenever told to, and answer how fast they went; it ends with the parent's wish."""
    import torch

    from search_spaces import TrainingConfig
    from tuner.training.throughput import TrainingSteps

    torch.set_num_threads(orders["threads"])
    steps = TrainingSteps(TrainingConfig(**orders["measure"]))
    steps.take()  # the first one is slower
    _answer(seconds_per_step=steps.seconds_per_step())
    while True:
        raise_if_requested()
        order = json.loads(lines.get())
        torch.set_num_threads(order["threads"])
        rate = steps.images_per_s(order["begin"], order["end"])
        device_bytes, device_free_bytes = steps.device_bytes()
        _answer(images_per_s=rate, device_bytes=device_bytes, device_free_bytes=device_free_bytes)
        while lines.empty():  # the others are still being measured
            raise_if_requested()
            steps.take()
        lines.get()


def _answer(**figures: float) -> None:
    print(json.dumps(figures), flush=True)


def _listen(lines: queue.SimpleQueue[bytes]) -> None:
    """Hand on the parent's orders, and stop this process when there will be no more."""
    # Not through sys.stdin: its lock would be held when the interpreter ends.
    rest = b""
    while chunk := os.read(sys.stdin.fileno(), 2**16):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            lines.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
