"""Messages between a command and its worker processes, one line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter

from search_spaces import TrainingConfig
from tuner.session.run_options import StopConditions, TrialFilter

Message = TypeVar("Message")
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


@dataclass(frozen=True)
class ProbeOrders:
    """The order to a measurement process to start training with a configuration; answered by `ProbeReady`."""

    config: TrainingConfig
    threads: int


@dataclass(frozen=True)
class ProbeReady:
    """The answer to `ProbeOrders` after the first training steps."""

    seconds_per_step: float


@dataclass(frozen=True)
class ProbeWindow:
    """The order to measure from `start` to `end` (`time.monotonic`), then to train until the next message arrives."""

    threads: int
    start: float
    end: float


@dataclass(frozen=True)
class ProbeRate:
    """The answer to `ProbeWindow`: images per second, and used and free GPU memory in bytes; 0 for a CPU."""

    images_per_s: float
    device_bytes: int
    device_free_bytes: int


def to_line(message: object) -> str:
    """Format a message as one line of JSON, without the newline."""
    # Not pydantic's own JSON, which rejects paths that are not valid UTF-8.
    return json.dumps(TypeAdapter(type(message)).dump_python(message), default=list)


def from_line(kind: type[Message], line: str | bytes) -> Message:
    """Parse a line as a message of the class `kind`.

    Raises:
        ValueError: The line is not a message of this class.
    """
    return TypeAdapter(kind).validate_python(json.loads(line))


def read_orders(line: bytes) -> WorkerOrders | ProbeOrders:
    """Parse the orders to a worker process, which are the first line of its standard input.

    Raises:
        ValueError: The line contains no orders.
    """
    orders: WorkerOrders | ProbeOrders = TypeAdapter(WorkerOrders | ProbeOrders).validate_python(json.loads(line))
    return orders
