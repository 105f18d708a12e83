"""Simulated machines that share only a network: each has its own network link, host name and files.

A machine consists of Linux namespaces, which exist as long as a process in them. That process exits when its standard
input closes, so no machine outlives the tests.
"""

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import yaml
from optuna.trial import TrialState

from studies import read_record
from studies.storage.open import open_storage_for_reading

TOOLS = ("ip", "unshare", "nsenter", "setpriv", "mount", "hostname")
# Reserved for benchmarks of network devices (RFC 2544), so no real network uses them.
ADDRESSES = ipaddress.ip_network("198.18.0.0/15")
POLL_S = 0.02
# Ten times what any step needs on an idle machine.
PATIENCE_S = 300.0
TIMES = ("epoch_seconds", "memory_mb", "cpu_percent")
# Mounts a machine's folder at its path and hides the folders of the other machines.
HOLD_MACHINE = """
hostname "$1" && ip link set lo up &&
mount --bind "$2" "$3" && mount -t tmpfs tmpfs "$(dirname "$2")" && mkdir "$2" && mount --bind "$3" "$2" &&
echo ready && exec cat
"""
HOLD_NETWORK = "ip link set lo up && ip link add lan type bridge && ip link set lan up && echo ready && exec cat"


class Namespaces:
    """Linux namespaces that exist until they are closed or this process exits."""

    def __init__(self, kinds, script, *arguments):
        command = ["unshare", *(f"--{kind}" for kind in kinds), "sh", "-c", script, "sh", *map(str, arguments)]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        self.pid = self._holder.pid
        if self._holder.stdout.readline() != "ready\n":
            reason = self._holder.stderr.read().strip()
            self.close()
            pytest.skip(f"no machines can be created here: {reason}")
        self.enter = ["nsenter", f"--target={self.pid}", *(f"--{kind}" for kind in kinds), "--"]

    def ip(self, *arguments):
        """Change the network of these namespaces."""
        ip(*arguments, within=self.enter)

    def close(self):
        self._holder.communicate()


def ip(*arguments, within=None):
    done = subprocess.run([*(within or []), "ip", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


class Job:
    """A running command on a machine; its output goes to a file."""

    def __init__(self, command, environment, output):
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
            )

    @property
    def text(self):
        """The whole output so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text, *, after=""):
        """Wait until the output contains a text, after another text."""

        def is_printed():
            output = self.text
            start = output.rfind(after) if after else 0
            return start >= 0 and text in output[start:]

        self.wait_until(is_printed)

    def wait_until(self, condition):
        """Wait until a condition is true; fail if the command fails first."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() >= deadline or self.process.poll() not in (None, 0):
                pytest.fail(f"the condition never held (exit code {self.process.poll()}):\n{self.text}")
            time.sleep(POLL_S)

    def end(self, code):
        """Wait until the command exits with a code; return its output."""
        try:
            exit_code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"does not exit:\n{self.text}")
        assert exit_code == code, self.text
        return self.text

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """Kill the command, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()


class Machine:
    """A simulated machine with its own host name, network address and files.

    Attributes:
        name: The host name.
        folder: The files of the machine, invisible to the others; the working directory of its commands.
    """

    def __init__(self, name, folder, mount_point, network):
        folder.mkdir(parents=True)
        mount_point.mkdir()
        self.name = name
        self.folder = folder
        self._network = network
        self._outputs = mount_point.parent / "outputs"
        self._outputs.mkdir(exist_ok=True)
        self._jobs = []
        self._namespaces = Namespaces(("net", "uts", "mount"), HOLD_MACHINE, name, folder, mount_point)
        self._port = network.plug(self._namespaces)

    def start(self, *arguments):
        """Start a khmer-tuner command."""
        program = Path(sys.executable).with_name("khmer-tuner")
        # The command is killed with the tests. The folder is entered again, since it is mounted inside the namespace.
        command = ["setpriv", "--pdeathsig=KILL", "sh", "-c", 'cd "$0" && exec "$@"', str(self.folder), str(program)]
        output = self._outputs / f"{self.name}_{len(self._jobs)}.txt"
        job = Job([*self._namespaces.enter, *command, *map(str, arguments)], self._network.environment(), output)
        self._jobs.append(job)
        return job

    def run(self, *arguments, code=0):
        """Run a khmer-tuner command; return its output."""
        return self.start(*arguments).end(code)

    def run_json(self, *arguments):
        """Run a khmer-tuner command; return its JSON output."""
        output = self.run(*arguments, "--json")
        return json.loads(output[output.index("{") :])

    def disconnect(self):
        """Disconnect the machine: packets are lost without an error."""
        self._network.switch.ip("link", "set", self._port, "down")

    def connect(self):
        """Connect the machine again."""
        self._network.switch.ip("link", "set", self._port, "up")

    def close(self):
        for job in self._jobs:
            if job.process.poll() is None:
                job.kill()
        self._namespaces.close()


class Network:
    """Machines, a switch between them, and the server's link to the switch.

    Attributes:
        folder: Contains all files of the machines and their outputs.
        switch: The namespace of the switch.
        storage: The storage URL, as seen by the machines.
    """

    def __init__(self, folder, server, database):
        self.folder = folder
        self._machines = {}
        self.switch = Namespaces(("net",), HOLD_NETWORK)
        self._link = f"khmer{os.getpid()}"
        self._addresses = _free_addresses()
        try:
            ip("link", "add", self._link, "type", "veth", "peer", "name", "server", "netns", self.switch.pid)
        except OSError as error:
            self.switch.close()
            pytest.skip(f"no machines can be connected here: {error}")
        host = next(self._addresses)
        ip("address", "add", host, "dev", self._link)
        ip("link", "set", self._link, "up")
        self.switch.ip("link", "set", "server", "master", "lan", "up")
        _admit(server, host.network)
        self.storage = server.url(database, host=str(host.ip))
        self._password = str(sqlalchemy.make_url(self.storage).password)

    def environment(self):
        """Return the environment of the machines' processes."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return inherited | {"KHMER_TUNER_STORAGE": self.storage, "OMP_NUM_THREADS": "1"}

    def machine(self, name):
        """Return the machine with a name; create the machine if it does not exist."""
        if name not in self._machines:
            folders = self.folder / "machines" / name, self.folder / f"mount_{name}"
            self._machines[name] = Machine(name, *folders, self)
        return self._machines[name]

    def trials(self, url=""):
        """Return the trials of the study on the server or in another database."""
        storage = open_storage_for_reading(url or self.storage)
        try:
            return optuna.load_study(study_name="khmer-ocr", storage=storage).get_trials()
        finally:
            storage.engine.dispose()

    @staticmethod
    def machines_of(trial):
        """Return the machines that started or resumed a trial, in order."""
        return [attempt.worker.partition(":")[0] for attempt in read_record(trial).attempts]

    def passwords_found(self):
        """Return the files and outputs of the machines that contain the server's password."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path for path in files if self._password.encode() in path.read_bytes()]

    def plug(self, namespaces):
        """Connect a new machine; return the switch's port."""
        port, address = f"port{namespaces.pid}", next(self._addresses)
        self.switch.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespaces.pid)
        namespaces.ip("address", "add", address, "dev", "eth0")
        namespaces.ip("link", "set", "eth0", "up")
        self.switch.ip("link", "set", port, "master", "lan", "up")
        return port

    def close(self):
        for machine in self._machines.values():
            machine.close()
        with contextlib.suppress(OSError):
            ip("link", "delete", self._link)
        self.switch.close()


def _free_addresses():
    """Return the addresses of a network that this machine does not use yet."""
    taken = {str(address["local"]) for link in json.loads(ip("-json", "address")) for address in link["addr_info"]}
    networks = list(ADDRESSES.subnets(new_prefix=24))
    first = os.getpid() % len(networks)
    network = next(one for one in networks[first:] + networks[:first] if str(one[1]) not in taken)
    return (ipaddress.IPv4Interface(f"{address}/{network.prefixlen}") for address in network.hosts())


def _admit(server, network):
    """Let a server accept connections from a network, with its password."""
    rule = f"host all all {network} scram-sha-256"
    server.execute(f"COPY (SELECT '{rule}') TO PROGRAM 'cat >> pg_hba.conf'")
    server.execute("SELECT pg_reload_conf()")


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial in the study and in its folder, without values that vary from run to run."""

    name: str
    state: TrialState
    value: float | None
    params: dict[str, Any]
    reports: dict[int, float]
    epochs: list[dict[str, Any]]

    @classmethod
    def of(cls, trial, folder):
        name = read_record(trial).experiment_name
        epochs = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        compared = [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in epochs]
        return cls(name, trial.state, trial.value, trial.params, trial.intermediate_values, compared)


@pytest.fixture(scope="session")
def result_of():
    """Return the reproducible result of a trial in the study and in an output folder."""
    return TrialResult.of


@pytest.fixture
def make_network(tmp_path):
    """Create a network of machines with a server, on which they use a database."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or sys.platform != "linux":
        pytest.skip(f"no machines can be created here without {', '.join(missing) or 'Linux'}")
    with contextlib.ExitStack() as networks:

        def make(server, database):
            network = Network(tmp_path / "machines of a network", server, database)
            networks.callback(network.close)
            return network

        yield make


@pytest.fixture
def network(make_network, postgresql, new_database):
    """Create a network of machines with the server of all tests and a new database."""
    return make_network(postgresql, new_database().rpartition("/")[2])


@pytest.fixture(scope="session")
def copy_data(tiny_dataset):
    """Copy the dataset to a machine, in a folder with its name; return the metadata file."""

    def copy(machine):
        folder = machine.folder / f"data of {machine.name}"
        shutil.copytree(tiny_dataset.parent, folder, ignore=shutil.ignore_patterns("*.npy", ".*"))
        return folder / tiny_dataset.name

    return copy


@pytest.fixture(scope="session")
def copy_inputs(tiny_models, copy_data):
    """Copy all inputs of a run to a machine; return the experiments file with these names and training settings."""

    def copy(machine, experiments):
        data = copy_data(machine)
        shutil.copy(tiny_models, machine.folder / "models.yaml")
        path = machine.folder / "experiments.yaml"
        path.write_text(yaml.safe_dump({"experiments": _experiments(experiments, data)}, sort_keys=False))
        return path

    return copy


def _experiments(experiments, data):
    shared = {"device": "cpu", "batch_size": 8, "num_epochs": 2, "use_tensorboard": False}
    return {
        name: {
            "model": {"name": "tiny", "config_path": "models.yaml"},
            "data": {"metadata_path": str(data)},
            "training": shared | dict(training),
            "early_stopping": {"patience": 1000},
        }
        for name, training in experiments.items()
    }
