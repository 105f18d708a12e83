"""Messages between a command and its worker processes, one line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter

from search_spaces import TrainingConfig
from tuner.session.run_options import StopConditions, TrialFilter

TRIALS_PENDING = 75  # exit code of a worker if trials stay pending after errors


@dataclass(frozen=True)
class WorkerOrders:
    """The order to a worker process to train the pending trials of a study.

    Attributes:
        output_dir: The study's output folder.
        study: The study's name.
        storage: The study's storage URL.
        stop_token: The latest stop request before the command started; the worker stops on a later request.
        device: The device for all trials; None for the device in each trial's configuration.
        metadata: The dataset's metadata file.
        experiments: The command's experiments, keyed by name. Settings that cannot change results, such as
            ``log_every_n_steps``, are taken from here, all other settings from the study.
        trial_filter: The trials to train.
        stop_conditions: When to stop early; the deadline's clock, `time.monotonic`, is common to a machine's processes.
        threads: The number of PyTorch threads.
    """

    output_dir: str
    study: str
    storage: str
    stop_token: str
    device: str | None
    metadata: str
    experiments: Mapping[str, TrainingConfig]
    trial_filter: TrialFilter
    stop_conditions: StopConditions
    threads: int


def to_line(message: object) -> str:
    """Format a message as one line of JSON, without the newline."""
    # Not pydantic's own JSON, which rejects paths that are not valid UTF-8.
    return json.dumps(TypeAdapter(type(message)).dump_python(message), default=list)


def read_orders(line: bytes) -> WorkerOrders:
    """Parse the orders to a worker process, which are the first line of its standard input.

    Raises:
        ValueError: The line contains no orders.
    """
    return TypeAdapter(WorkerOrders).validate_python(json.loads(line))
