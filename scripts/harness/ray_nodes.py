"""A real Ray cluster of several nodes on this machine, in a process of its own, which reads commands from its input."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.processes import environment
from harness.run import HarnessError

_SECONDS_TO_STOP = 60.0


class RayNodes:
    """A running Ray cluster; a context manager that stops it.

    The head node has number 0 and cannot be removed.

    Attributes:
        address: The address for ``khmer-tuner worker --ray``.
        dashboard: The URL of the dashboard, if it is started.
        folder: Contains all files of Ray, for example its logs.
    """

    def __init__(self, nodes: int, *, cpus: int, gpus: int = 0, dashboard: bool = False) -> None:
        """Start a cluster with a number of nodes, each with the same numbers of CPUs and GPUs.

        The GPUs are only declared, so that tests of their reservation need none.

        Raises:
            HarnessError: The cluster does not start.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="ray_"))  # Ray's sockets need a short path
        arguments = [str(self.folder), str(nodes), str(cpus), str(gpus), str(int(dashboard))]
        # Without the variables that contain the password of the database.
        variables = {name: value for name, value in environment().items() if not name.startswith(("PG", "KHMER_"))}
        with (self.folder / "output.txt").open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, __file__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=variables | {"RAY_USAGE_STATS_ENABLED": "0"},
            )
        try:
            self.address, self.dashboard = self._answer()
        except BaseException:
            self.close()
            raise

    def add(self) -> None:
        """Add a node."""
        self._send("add")

    def remove(self, number: int) -> None:
        """Remove a node as in a power failure: its processes are killed."""
        self._send(f"remove {number}")

    def __enter__(self) -> RayNodes:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the cluster and remove its files."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self, command: str) -> None:
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        self._answer()

    def _answer(self) -> list[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("answer: "):  # Ray prints other lines
                answer: list[str] = json.loads(line.removeprefix("answer: "))
                return answer
        raise HarnessError(f"the Ray cluster failed: {(self.folder / 'output.txt').read_text()[-2000:]}")


def _serve(folder: str, nodes: int, cpus: int, gpus: int, dashboard: int) -> None:
    from ray.cluster_utils import Cluster

    resources = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": 100 * 2**20}
    with socket.create_server(("127.0.0.1", 0)) as free:
        head = {"temp_dir": folder, "include_dashboard": bool(dashboard), "dashboard_port": free.getsockname()[1]}
    cluster = Cluster(initialize_head=True, head_node_args=head | resources)
    started = [cluster.head_node, *(cluster.add_node(**resources) for _ in range(nodes - 1))]
    _reply(cluster.address, f"http://{cluster.webui_url}")
    for line in sys.stdin:
        match line.split():
            case ["add"]:
                started.append(cluster.add_node(**resources))
            case ["remove", number]:
                cluster.remove_node(started[int(number)], allow_graceful=False)
        _reply()
    cluster.shutdown()


def _reply(*values: str) -> None:
    print(f"answer: {json.dumps(values)}", flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], *map(int, sys.argv[2:]))
