"""What a command and its worker processes send each other: one JSON line a message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter

from search_spaces import TrainingConfig
from tuner.session.run_options import TrialFilter

Message = TypeVar("Message")


@dataclass(frozen=True)
class WorkerOrders:
    """Train a study's pending trials.

    Attributes:
        output_dir: The study's output folder.
        storage: Its storage URL.
        device: Where all trials train; None for the device of each configuration.
        metadata: The dataset's metadata file.
        experiments: Experiments whose work-related settings are newer than those of the study.
        trial_filter: Which trials.
        seconds: Time until the running trial stops after its epoch; None for never.
        until_targets: Whether no further trial is started once one has met the study's targets.
        stop_token: The latest request to stop before the command started: a worker that starts late obeys a later one.
        threads: PyTorch's threads.
    """

    output_dir: str
    storage: str
    device: str | None
    metadata: str
    experiments: Mapping[str, TrainingConfig]
    trial_filter: TrialFilter
    seconds: float | None
    until_targets: bool
    stop_token: str
    threads: int


@dataclass(frozen=True)
class ProbeOrders:
    """Take training steps to measure the throughput; answered by `ProbeReady`.

    Attributes:
        config: What is trained.
        threads: PyTorch's threads.
    """

    config: TrainingConfig
    threads: int


@dataclass(frozen=True)
class ProbeReady:
    """The first steps are done.

    Attributes:
        seconds_per_step: How long a step takes.
    """

    seconds_per_step: float


@dataclass(frozen=True)
class ProbeWindow:
    """Measure for a while; answered by `ProbeRate`. The process then trains on until the next line arrives.

    Attributes:
        threads: PyTorch's threads.
        start: On `time.monotonic`'s clock, which all processes of a machine share.
        end: On the same clock.
    """

    threads: int
    start: float
    end: float


@dataclass(frozen=True)
class ProbeRate:
    """What was measured.

    Attributes:
        images_per_s: Images trained a second.
        device_bytes: GPU memory in use by this process; 0 on the CPU.
        device_free_bytes: GPU memory that is free; 0 on the CPU.
    """

    images_per_s: float
    device_bytes: int
    device_free_bytes: int


def to_line(message: object) -> str:
    """Return a message as a line of JSON, without its end."""
    return TypeAdapter(type(message)).dump_json(message).decode()


def from_line(kind: type[Message], line: str | bytes) -> Message:
    """Return the message of a line.

    Raises:
        pydantic.ValidationError: It is no message of this kind.
    """
    return TypeAdapter(kind).validate_json(line)


def read_orders(line: bytes) -> WorkerOrders | ProbeOrders:
    """Return the orders of a worker process's first line.

    Raises:
        pydantic.ValidationError: They are no orders.
    """
    orders: WorkerOrders | ProbeOrders = TypeAdapter(WorkerOrders | ProbeOrders).validate_json(line)
    return orders
