"""Workers as tasks of a Ray cluster: Ray chooses their nodes, and restarts them elsewhere when a node is lost.

A task starts a worker process on its node and sends the process's output to an actor on the head node, from which the
parent takes it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import queue
import re
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from search_spaces import ConfigurationError, ExperimentFailedError
from search_spaces.diagnostics.wording import counted
from studies import sqlite_path
from tuner.signals import raise_if_requested
from tuner.workers.base import NODE_LOST, Lines, Worker, end_workers
from tuner.workers.orders import WorkerOrders
from tuner.workers.process import WorkerProcess

_POLL_S = 1.0
_INTERRUPT_S = 0.2  # `ray.cancel` interrupts a task between two calls, so no call takes longer
_SECONDS_TO_STOP = 7.0  # of a worker process, so that the task ends before the parent kills it
_SECONDS_TO_ANSWER, _SECONDS_TO_CONNECT = 5.0, 60.0
_SECONDS_BETWEEN_NODE_CHECKS = 5.0
_FAILED, _STOPPED = 1, 128 + signal.SIGTERM
# A resource that only the head node has. The actor is there, because a cluster ends with its head node.
_HEAD = "node:__internal_head__"


class RayCluster:
    """A connection to a Ray cluster, which starts workers as tasks; a context manager that disconnects.

    Attributes:
        cpus: The number of CPUs that Ray reserves for each worker; None until it is chosen.
        gpus: The number of GPUs that Ray reserves for each worker; several workers share a GPU if it is below 1.
    """

    def __init__(self, address: str, *, cpus: int | None, gpus: float) -> None:
        """Connect to the cluster at an address of `ray.init`, for example ``auto`` or ``HOST:PORT``.

        Raises:
            ConfigurationError: There is no cluster at this address, or it has other versions of Ray or Python.
        """
        self.cpus, self.gpus = cpus, gpus
        self._numbers = itertools.count()
        self._workers: dict[int, RayWorker] = {}
        self._events: Any = None
        self._next_poll = self._next_node_check = 0.0
        errors: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        handler = signal.getsignal(signal.SIGTERM)
        try:
            if address == "local":  # the kernel kills the cluster when the thread that started it ends
                _connect(address, errors)
            else:  # Ray never gives up if the server at this address is not a Ray server
                threading.Thread(target=_connect, args=(address, errors), name="Ray connection", daemon=True).start()
            error = errors.get(timeout=_SECONDS_TO_CONNECT)
        except queue.Empty:
            error = TimeoutError(f"no answer within {_SECONDS_TO_CONNECT:.0f} s")
        finally:
            signal.signal(signal.SIGTERM, handler)  # Ray replaces Python's handler or the kernel's
        if error is not None:
            raise ConfigurationError(
                f"--ray: no connection to a Ray cluster at {address!r} ({_reason(error)}); use the HOST:PORT of a "
                "cluster, 'auto' on one of its nodes, or 'local' to start a cluster on this machine"
            ) from error

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        ray.shutdown()

    def check_storage(self, url: str) -> None:
        """Check that the workers can use a study's storage.

        Raises:
            ConfigurationError: It is a SQLite file, and the cluster has nodes on other machines.
        """
        hosts = [node["NodeManagerHostname"] for node in _nodes()]
        if sqlite_path(url) is not None and hosts != [socket.gethostname()]:
            raise ConfigurationError(
                "--ray: the study is stored in SQLite, which works on this machine only, but the cluster has "
                f"{counted(len(hosts), 'node')} ({', '.join(sorted(set(hosts)))}); use a PostgreSQL storage (--storage)"
            )

    @property
    def capacity(self) -> int:
        """The number of workers that the nodes can run at the same time."""
        return sum(self._capacity(node["Resources"]) for node in _nodes())

    @property
    def has_gpus(self) -> bool:
        """Whether a node has a GPU."""
        return any(node["Resources"].get("GPU") for node in _nodes())

    def _capacity(self, resources: Mapping[str, float]) -> int:
        capacity, gpus = resources.get("CPU", 0.0) // (self.cpus or 1), resources.get("GPU", 0.0)
        if self.gpus:  # a worker with a fraction of a GPU uses a single GPU
            capacity = min(capacity, gpus * int(1 / self.gpus) if self.gpus < 1 else gpus // self.gpus)
        return int(capacity)

    def start(self, orders: WorkerOrders, lines: Lines, *, failed_starts: int = 0) -> RayWorker:
        """Start a worker as a task, which waits until a node has free resources; see `RayWorker`."""
        import ray

        if self._events is None:
            options = {"resources": {_HEAD: 0.001}, "max_restarts": -1, "enable_task_events": False}
            self._events = ray.remote(Events).options(num_cpus=0, **options).remote()
        options = {"name": "khmer-tuner worker", "num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": -1}
        orders, number = replace(orders, metadata=os.path.abspath(orders.metadata)), next(self._numbers)
        task = ray.remote(run_worker).options(**options).remote(number, orders, self._events)
        self._workers[number] = worker = RayWorker(task, lines, failed_starts)
        return worker

    def poll(self) -> None:
        """Put the output of all tasks into the queues of their workers, and report lost nodes, every second.

        Raises:
            ExperimentFailedError: The connection to the cluster is lost, or the head node cannot run the actor.
        """
        if self._workers and time.monotonic() >= self._next_poll:
            try:
                self._poll()
            except KeyboardInterrupt:
                raise_if_requested()  # Ray replaces the exception of a stop signal
                raise
            except Exception as error:
                raise ExperimentFailedError(
                    f"--ray: the connection to the cluster failed ({_reason(error)}); check that the head node is "
                    "running and has 'khmer-ocr-tuner[ray]' installed, then run the command again"
                ) from error
            self._next_poll = time.monotonic() + _POLL_S

    def _poll(self) -> None:
        import ray

        tasks = [worker.task for worker in self._workers.values()]
        ended = set(ray.wait(tasks, num_returns=len(tasks), timeout=0)[0])
        # A task that has returned has sent all its output.
        for number, node, text in ray.get(self._events.drain.remote(), timeout=_SECONDS_TO_CONNECT):
            if number in self._workers:  # a task on a node that was thought lost may still send
                self._workers[number].receive(node, text)
        for number, worker in list(self._workers.items()):
            if worker.task in ended:
                self._workers.pop(number).forward(None)
        if time.monotonic() >= self._next_node_check:
            self._next_node_check = time.monotonic() + _SECONDS_BETWEEN_NODE_CHECKS
            nodes = {node["NodeID"] for node in _nodes()}
            for worker in self._workers.values():
                worker.check_node(nodes)


class RayWorker(Worker):
    """A worker that runs in a Ray task."""

    def __init__(self, task: Any, lines: Lines, failed_starts: int) -> None:
        """Represent a task; `lines` receives each line of its worker process, and None when the task has ended."""
        super().__init__(failed_starts)
        self.task = task
        self._lines = lines
        self._node = ""  # on which the task runs; "" while it waits for one
        self._has_run = False

    def receive(self, node: str, text: str) -> None:
        """Handle an event of the task: a line, or its start, with the id of the node and its host name as `text`."""
        if not node:
            self.forward(text)
            return
        if self._has_run:
            self.check_node(())  # Ray has restarted the task before the loss of its node was noticed
            self.forward(json.dumps({"event": "note", "text": f"Ray has restarted a lost worker on {text}"}))
        self._node, self._has_run = node, True

    def check_node(self, nodes: Collection[str]) -> None:
        """Report the loss of the worker's node if it is not one of `nodes`."""
        if self._node and self._node not in nodes:
            self._node = ""
            self.forward(NODE_LOST)

    def forward(self, line: str | None) -> None:
        """Add a line, or the end of the task, to the queue of the parent."""
        self._lines.put((self, line))

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the task has ended; see `Worker.wait`."""
        import ray

        try:
            code, self.errors = ray.get(self.task, timeout=timeout_s)
            return int(code)
        except ray.exceptions.GetTimeoutError as error:
            raise TimeoutError from error
        except ray.exceptions.TaskCancelledError:
            return _STOPPED
        except Exception as error:  # for example, the package is missing on a node
            self.errors = [*str(error).splitlines(), f"error: a Ray task failed: {_reason(error, last=True)}"]
            return _FAILED

    def request_stop(self) -> None:
        """Interrupt the task, which stops its worker process; a task that waits for a node is removed."""
        self._cancel(force=False)

    def kill(self) -> None:
        """Kill the task."""
        self._cancel(force=True)

    def _cancel(self, *, force: bool) -> None:
        import ray

        with contextlib.suppress(Exception):  # the connection is lost, so Ray ends the task
            ray.cancel(self.task, force=force)

    def close(self) -> None:
        """Do nothing, because Ray frees the resources of the task."""


class Events:
    """The actor that passes the output of the tasks to the parent."""

    def __init__(self) -> None:
        self._events: list[tuple[int, str, str]] = []

    def put(self, events: list[tuple[int, str, str]]) -> None:
        """Add events: the number of a task, and the arguments of `RayWorker.receive`."""
        self._events += events

    def drain(self) -> list[tuple[int, str, str]]:
        """Return and remove all events."""
        events, self._events = self._events, []
        return events


def run_worker(number: int, orders: WorkerOrders, events: Any) -> tuple[int, list[str]]:
    """Run a worker process and forward its output; this is the function of the Ray task.

    Args:
        number: The number of the task.
        orders: The orders to the process.
        events: The actor `Events`.

    Returns:
        The exit code and standard error of the process.
    """
    import ray

    # `ray.cancel` interrupts the task through this handler, which is missing if Ray was started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unsent = [(number, ray.get_runtime_context().get_node_id(), socket.gethostname())]
    lines: Lines = queue.SimpleQueue()
    process = WorkerProcess(orders, lines)
    try:
        while True:
            # The call is not awaited, because Ray gives the CPUs of a task that waits to other tasks.
            events.put.remote(unsent)
            unsent = []
            deadline = time.monotonic() + _POLL_S
            while time.monotonic() < deadline or not unsent:
                with contextlib.suppress(queue.Empty):
                    _, line = lines.get(timeout=_INTERRUPT_S)
                    if line is None:
                        ray.get(events.put.remote(unsent))  # after all earlier calls
                        return process.wait(), process.errors
                    unsent.append((number, "", line))
    finally:
        end_workers([process], _SECONDS_TO_STOP)


def _connect(address: str, errors: queue.SimpleQueue[Exception | None]) -> None:
    import ray

    try:
        if endpoint := re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d{1,5})", address):
            socket.create_connection((endpoint[1], int(endpoint[2])), _SECONDS_TO_ANSWER).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        errors.put(None)
    except Exception as error:
        errors.put(error)


def _reason(error: Exception, *, last: bool = False) -> str:
    """Return an error's message, or its last line, as one short line."""
    text = str(error).strip() or type(error).__name__
    return textwrap.shorten(text.splitlines()[-1] if last else text, 200).rstrip(".:")


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
