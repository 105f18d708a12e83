"""Workers as tasks of a Ray cluster: Ray chooses their nodes, and restarts them elsewhere when a node is lost.

A task starts a worker process on its node and forwards the process's events through an actor on the head node.
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
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from search_spaces import ConfigurationError
from search_spaces.diagnostics.plural import counted, listed
from studies import sqlite_path
from tuner.workers.base import NODE_LOST, Lines, Worker, end_workers
from tuner.workers.orders import WorkerOrders
from tuner.workers.process import WorkerProcess

_POLL_S = 0.5
_INTERRUPT_S = 0.2  # `ray.cancel` interrupts a task between two calls, so no call takes longer
_SECONDS_TO_ANSWER, _SECONDS_TO_CONNECT = 5.0, 60.0
_SECONDS_BETWEEN_NODE_CHECKS = 5.0
_FAILED, _STOPPED = 1, 128 + signal.SIGTERM
# A resource that only the head node has. The actor is there, because no cluster outlives its head node.
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
        self._forwarder: threading.Thread | None = None
        self._is_closed = False
        # In a thread, because Ray tries for ever to connect to a server of another kind.
        errors: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        threading.Thread(target=_connect, args=(address, errors), name="Ray connection", daemon=True).start()
        try:
            error = errors.get(timeout=_SECONDS_TO_CONNECT)
        except queue.Empty:
            error = TimeoutError(f"no answer within {_SECONDS_TO_CONNECT:.0f} s")
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # Ray has installed a native handler
        if error is not None:
            reason = re.split(r"\. |\n", str(error).strip())[0].rstrip(".:")
            raise ConfigurationError(
                f"--ray: no connection to a Ray cluster at {address!r} ({reason}); use the HOST:PORT of a cluster, "
                "'auto' on one of its nodes, or 'local' to start a cluster on this machine"
            ) from error

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        self._is_closed = True
        if self._forwarder is not None:  # it would connect again
            self._forwarder.join()
        ray.shutdown()

    def check_storage(self, url: str) -> None:
        """Check that the workers can use a study's storage.

        Raises:
            ConfigurationError: It is a SQLite file, and the cluster has nodes on other machines.
        """
        hosts = [node["NodeManagerHostname"] for node in _nodes()]
        if sqlite_path(url) is not None and hosts != [socket.gethostname()]:
            raise ConfigurationError(
                f"--ray: the study is stored in SQLite, which works on one machine at a time, but the cluster has "
                f"{counted(len(hosts), 'node')} ({listed(sorted(set(hosts)), 3)}); use a PostgreSQL storage (--storage)"
            )

    @property
    def room(self) -> int:
        """The number of workers that the nodes can run at the same time."""
        return sum(self._room(node["Resources"]) for node in _nodes())

    def _room(self, resources: Mapping[str, float]) -> int:
        room, gpus = resources.get("CPU", 0.0) // (self.cpus or 1), resources.get("GPU", 0.0)
        if self.gpus:  # a worker with a fraction of a GPU uses a single GPU
            room = min(room, gpus * int(1 / self.gpus) if self.gpus < 1 else gpus // self.gpus)
        return int(room)

    def start(self, orders: WorkerOrders, lines: Lines, *, failed_starts: int = 0) -> RayWorker:
        """Start a worker as a task, which waits until a node has room; see `Launch`."""
        import ray

        if self._forwarder is None:
            self._events = (
                ray.remote(Events).options(num_cpus=0, resources={_HEAD: 0.001}, enable_task_events=False).remote()
            )
            self._forwarder = threading.Thread(target=self._forward, name="Ray events", daemon=True)
            self._forwarder.start()
        options = {"name": "khmer-tuner worker", "num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": -1}
        orders, number = replace(orders, metadata=os.path.abspath(orders.metadata)), next(self._numbers)
        task = ray.remote(run_worker).options(**options).remote(number, orders, self._events)
        self._workers[number] = worker = RayWorker(task, lines, failed_starts)
        return worker

    def _forward(self) -> None:
        """Forward the events of all tasks to the queues of their workers, and check that their nodes exist."""
        import ray

        next_check = 0.0
        while not self._is_closed:
            time.sleep(_POLL_S)
            workers = dict(self._workers)
            ended = [number for number, worker in workers.items() if worker.has_ended]
            # A task that has ended has sent all its events.
            for number, node, text in ray.get(self._events.take.remote()):
                if number in workers:  # it is not if a node that was thought lost still sends events
                    workers[number].receive(node, text)
            for number in ended:
                self._workers.pop(number).forward(None)
            if time.monotonic() >= next_check:
                next_check = time.monotonic() + _SECONDS_BETWEEN_NODE_CHECKS
                nodes = {node["NodeID"] for node in _nodes()}
                for worker in workers.values():
                    worker.check_node(nodes)


class RayWorker(Worker):
    """A worker that runs in a Ray task."""

    def __init__(self, task: Any, lines: Lines, failed_starts: int) -> None:
        """Follow a task; `lines` receives each line of its worker process, and None when the task has ended."""
        super().__init__(failed_starts)
        self._task = task
        self._lines = lines
        self._node = ""  # on which the task runs; "" while it waits for one
        self._has_run = False

    @property
    def has_ended(self) -> bool:
        """Whether the task has ended."""
        import ray

        return bool(ray.wait([self._task], timeout=0)[0])

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
            code, self.pid, self.errors = ray.get(self._task, timeout=timeout_s)
            return int(code)
        except ray.exceptions.GetTimeoutError as error:
            raise TimeoutError from error
        except ray.exceptions.TaskCancelledError:
            return _STOPPED
        except (ray.exceptions.RayError, RuntimeError) as error:
            lines = str(error).strip().splitlines()
            self.errors = [*lines, f"error: a Ray task failed: {lines[-1].strip() if lines else type(error).__name__}"]
            return _FAILED

    def request_stop(self) -> None:
        """Interrupt the task, which stops its worker process; a task that waits for a node is removed."""
        import ray

        ray.cancel(self._task)

    def kill(self) -> None:
        """Kill the task."""
        import ray

        ray.cancel(self._task, force=True)

    def close(self) -> None:
        """Do nothing, because Ray frees the resources of the task."""


class Events:
    """The actor that passes the output of the tasks to the parent."""

    def __init__(self) -> None:
        self._events: list[tuple[int, str, str]] = []

    def put(self, events: list[tuple[int, str, str]]) -> None:
        """Add events: the number of a task, and the arguments of `RayWorker.receive`."""
        self._events += events

    def take(self) -> list[tuple[int, str, str]]:
        """Return and remove all events."""
        events, self._events = self._events, []
        return events


def run_worker(number: int, orders: WorkerOrders, events: Any) -> tuple[int, int, list[str]]:
    """Run a worker process and forward its output; this is the function of the Ray task.

    Args:
        number: The number of the task.
        orders: The orders to the process.
        events: The actor `Events`.

    Returns:
        The exit code, process id and standard error of the process.
    """
    import ray

    # `ray.cancel` interrupts the task through this handler, which is missing if Ray was started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unsent = [(number, ray.get_runtime_context().get_node_id(), socket.gethostname())]
    lines: Lines = queue.SimpleQueue()
    process = WorkerProcess(orders, lines)
    try:
        while True:
            # The call is not awaited, because Ray lends the CPUs of a task that waits to other tasks.
            events.put.remote(unsent)
            unsent = []
            deadline = time.monotonic() + _POLL_S
            while time.monotonic() < deadline or not unsent:
                with contextlib.suppress(queue.Empty):
                    _, line = lines.get(timeout=_INTERRUPT_S)
                    if line is None:
                        ray.get(events.put.remote(unsent))  # after all earlier calls
                        return process.wait(), process.pid, process.errors
                    unsent.append((number, "", line))
    finally:
        end_workers([process])


def _connect(address: str, errors: queue.SimpleQueue[Exception | None]) -> None:
    import ray

    try:
        if endpoint := re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d{1,5})", address):
            socket.create_connection((endpoint[1], int(endpoint[2])), _SECONDS_TO_ANSWER).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        errors.put(None)
    except Exception as error:
        errors.put(error)


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
