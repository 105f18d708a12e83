"""What a command and its worker processes send each other: a line of JSON for each message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter

from search_spaces import TrainingConfig
from tuner.session.run_options import StopConditions, TrialFilter

Message = TypeVar("Message")
LEFT_PENDING = 75  # exit code of a worker if errors have left trials pending


@dataclass(frozen=True)
class WorkerOrders:
    """Train pending trials of a study.

    Attributes:
        output_dir: The study's output folder.
        storage: Its storage URL.
        stop_token: The latest request to stop before the command started: a worker that starts late obeys a later one.
        device: Where all trials train; None for the device of each configuration.
        metadata: The dataset's metadata file.
        experiments: Experiments whose work-related settings are newer than those of the study.
        trial_filter: Which trials.
        stop_conditions: What ends the work early; all processes of a machine have the same clock.
        threads: PyTorch's threads.
    """

    output_dir: str
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
    """Take training steps of a configuration, to measure the throughput; answered by `ProbeReady`."""

    config: TrainingConfig
    threads: int


@dataclass(frozen=True)
class ProbeReady:
    """The answer to `ProbeOrders` after the first steps."""

    seconds_per_step: float


@dataclass(frozen=True)
class ProbeWindow:
    """Measure from `start` to `end` on the clock of `time.monotonic`, then train on until the next line arrives."""

    threads: int
    start: float
    end: float


@dataclass(frozen=True)
class ProbeRate:
    """The answer to `ProbeWindow`: images a second, and the GPU memory that is used and free (0 on the CPU)."""

    images_per_s: float
    device_bytes: int
    device_free_bytes: int


def to_line(message: object) -> str:
    """Return a message as a line of JSON, without its end."""
    # Not pydantic's own JSON, which refuses paths with bytes that are no UTF-8.
    return json.dumps(TypeAdapter(type(message)).dump_python(message), default=list)


def from_line(kind: type[Message], line: str | bytes) -> Message:
    """Return the message of a line.

    Raises:
        ValueError: It is no message of this kind.
    """
    return TypeAdapter(kind).validate_python(json.loads(line))


def read_orders(line: bytes) -> WorkerOrders | ProbeOrders:
    """Return the orders of a worker process, which are its first line.

    Raises:
        ValueError: They are no orders.
    """
    orders: WorkerOrders | ProbeOrders = TypeAdapter(WorkerOrders | ProbeOrders).validate_python(json.loads(line))
    return orders
