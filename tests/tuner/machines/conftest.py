"""Machines that share nothing but a network: each has its own link, name and files, and none sees another's files.

A machine is made of Linux namespaces that live as long as a process which holds them, and that process lives as long as
its standard input is open: whatever becomes of the tests, nothing of their machines is left.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import yaml
from optuna.trial import FrozenTrial, TrialState

from studies import read_record
from studies.storage.open import open_storage_for_reading

Words = str | Path | int

ROOT = Path(__file__).parents[3]
TOOLS = ("ip", "unshare", "nsenter", "setpriv", "mount", "hostname")
# For trials of networks among machines (RFC 2544): nobody's own network has these addresses.
ADDRESSES = ipaddress.ip_network("198.18.0.0/15")
POLL_S = 0.02
# Nothing here takes a tenth of it on a machine that is not busy.
PATIENCE_S = 300.0
TIMES = ("epoch_seconds", "memory_mb", "cpu_percent")
# Its own folder, where it is, and nothing else of the folder that those of all machines are in.
HOLD = """
hostname "$1" && ip link set lo up &&
mount --bind "$2" "$3" && mount -t tmpfs tmpfs "$(dirname "$2")" && mkdir "$2" && mount --bind "$3" "$2" &&
echo ready && exec cat
"""
HOLD_A_NETWORK = "ip link set lo up && ip link add lan type bridge && ip link set lan up && echo ready && exec cat"


class Namespaces:
    """Namespaces of some kinds, for as long as nobody closes them and this process lives."""

    def __init__(self, kinds: tuple[str, ...], script: str, *words: str | Path) -> None:
        command = ["unshare", *(f"--{kind}" for kind in kinds), "sh", "-c", script, "sh", *map(str, words)]
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        self.pid = self._holder.pid
        if self._holder.stdout.readline() != "ready\n":
            reason = self._holder.stderr.read().strip()
            self.close()
            pytest.skip(f"no machines can be made here: {reason}")
        self.enter = ["nsenter", f"--target={self.pid}", *(f"--{kind}" for kind in kinds), "--"]

    def ip(self, *words: str | int) -> None:
        """Change the network that they hold."""
        ip(*words, within=self.enter)

    def close(self) -> None:
        self._holder.communicate()


def ip(*words: str | int, within: list[str] | None = None) -> str:
    done = subprocess.run([*(within or []), "ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


class Job:
    """A command that runs on a machine; what it writes goes to a file."""

    def __init__(self, command: list[str], environment: Mapping[str, str], output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
            )

    @property
    def said(self) -> str:
        """All that it has written."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str, *, after: str = "") -> None:
        """Wait until it has written a text, after another one."""

        def has_come() -> bool:
            said = self.said
            begin = said.rfind(after) if after else 0
            return begin >= 0 and text in said[begin:]

        self.wait_until(has_come)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true that it brings about."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() >= deadline or self.process.poll() not in (None, 0):
                pytest.fail(f"waited in vain ({self.process.poll()}):\n{self.said}")
            time.sleep(POLL_S)

    def end(self, code: int) -> str:
        """Wait until it ends, as it should; return what it has written."""
        try:
            ended = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"does not end:\n{self.said}")
        assert ended == code, self.said
        return self.said

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it as the kernel does for want of memory."""
        self.process.kill()
        self.process.wait()


class Machine:
    """A computer of its own, as far as its processes can tell.

    Attributes:
        name: What its processes take it for.
        folder: Its files, that no other machine sees; the working directory of its commands.
    """

    def __init__(self, name: str, folder: Path, aside: Path, network: Network) -> None:
        folder.mkdir(parents=True)
        aside.mkdir()
        self.name = name
        self.folder = folder
        self._network = network
        self._outputs = aside.parent / "outputs"
        self._outputs.mkdir(exist_ok=True)
        self._jobs: list[Job] = []
        self._namespaces = Namespaces(("net", "uts", "mount"), HOLD, name, folder, aside)
        self._port = network.plug(self._namespaces)

    def start(self, *words: Words) -> Job:
        """Start a khmer-tuner command."""
        program = Path(sys.executable).with_name("khmer-tuner")
        # Its death goes with that of the tests. The folder is entered anew: it is another one in there.
        command = ["setpriv", "--pdeathsig=KILL", "sh", "-c", 'cd "$0" && exec "$@"', str(self.folder), str(program)]
        output = self._outputs / f"{self.name}_{len(self._jobs)}.txt"
        job = Job([*self._namespaces.enter, *command, *map(str, words)], self._network.environment(), output)
        self._jobs.append(job)
        return job

    def do(self, *words: Words, code: int = 0) -> str:
        """Do a khmer-tuner command; return what it writes."""
        return self.start(*words).end(code)

    def ask(self, *words: Words) -> Any:
        """Return what a khmer-tuner command answers as JSON."""
        said = self.do(*words, "--json")
        return json.loads(said[said.index("{") :])

    def cut_off(self) -> None:
        """Pull its cable: nobody is told, messages are just lost."""
        self._network.switch.ip("link", "set", self._port, "down")

    def connect(self) -> None:
        """Plug its cable in again."""
        self._network.switch.ip("link", "set", self._port, "up")

    def close(self) -> None:
        for job in self._jobs:
            if job.process.poll() is None:
                job.kill()
        self._namespaces.close()


class Network:
    """Machines, a switch between them and the server's link to it.

    Attributes:
        folder: All that the machines' processes read and write is in it.
        switch: What the machines' cables are plugged into.
        storage: URL of the study's database, as the machines know it.
    """

    def __init__(self, folder: Path, server: Any, database: str) -> None:
        self.folder = folder
        self._machines: dict[str, Machine] = {}
        self.switch = Namespaces(("net",), HOLD_A_NETWORK)
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

    def environment(self) -> dict[str, str]:
        """Return the environment of the machines' processes."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return mine | {"KHMER_TUNER_STORAGE": self.storage, "OMP_NUM_THREADS": "1"}

    def machine(self, name: str) -> Machine:
        """Return the machine of this name, a new one if there is none yet."""
        if name not in self._machines:
            folders = self.folder / "machines" / name, self.folder / f"aside_{name}"
            self._machines[name] = Machine(name, *folders, self)
        return self._machines[name]

    def trials(self, url: str = "") -> list[FrozenTrial]:
        """Return the trials of the study, as the server has them or another database."""
        storage = open_storage_for_reading(url or self.storage)
        try:
            return optuna.load_study(study_name="khmer-ocr", storage=storage).get_trials()
        finally:
            storage.engine.dispose()

    @staticmethod
    def machines_of(trial: FrozenTrial) -> list[str]:
        """Return which machines have begun a trial, in turn."""
        return [attempt.worker.partition(":")[0] for attempt in read_record(trial).attempts]

    def passwords_found(self) -> list[Path]:
        """Return which of the machines' files, and of what their commands wrote, tell the server's password."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path for path in files if self._password.encode() in path.read_bytes()]

    def plug(self, namespaces: Namespaces) -> str:
        """Connect a new machine; return the switch's port."""
        port, address = f"port{namespaces.pid}", next(self._addresses)
        self.switch.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespaces.pid)
        namespaces.ip("address", "add", address, "dev", "eth0")
        namespaces.ip("link", "set", "eth0", "up")
        self.switch.ip("link", "set", port, "master", "lan", "up")
        return port

    def close(self) -> None:
        for machine in self._machines.values():
            machine.close()
        with contextlib.suppress(OSError):
            ip("link", "delete", self._link)
        self.switch.close()


def _free_addresses() -> Iterator[ipaddress.IPv4Interface]:
    """Yield addresses of a network that this machine does not use yet."""
    taken = {str(address["local"]) for link in json.loads(ip("-json", "address")) for address in link["addr_info"]}
    networks = list(ADDRESSES.subnets(new_prefix=24))
    first = os.getpid() % len(networks)
    network = next(one for one in networks[first:] + networks[:first] if str(one[1]) not in taken)
    return (ipaddress.IPv4Interface(f"{address}/{network.prefixlen}") for address in network.hosts())


def _admit(server: Any, network: ipaddress.IPv4Network) -> None:
    """Let a server, which listens on all addresses, take connections from a network, with the password."""
    rule = f"host all all {network} scram-sha-256"
    server.execute(f"COPY (SELECT '{rule}') TO PROGRAM 'cat >> pg_hba.conf'")
    server.execute("SELECT pg_reload_conf()")


@dataclass(frozen=True)
class Ended:
    """All that is left of a trial, but for what is another each time."""

    name: str
    state: TrialState
    value: float | None
    params: dict[str, Any]
    reports: dict[int, float]
    epochs: list[dict[str, Any]]

    @classmethod
    def of(cls, trial: FrozenTrial, folder: Path) -> Ended:
        name = read_record(trial).experiment_name
        epochs = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        compared = [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in epochs]
        return cls(name, trial.state, trial.value, trial.params, trial.intermediate_values, compared)


@pytest.fixture(scope="session")
def ended() -> Callable[[FrozenTrial, Path], Ended]:
    """Return all that a trial has left in the study and in an output folder, but for what is another each time."""
    return Ended.of


@pytest.fixture
def make_network(tmp_path: Path) -> Iterator[Callable[[Any, str], Network]]:
    """Connect machines to be made with a server, on which they use a database."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or sys.platform != "linux":
        pytest.skip(f"no machines can be made here without {', '.join(missing) or 'Linux'}")
    with contextlib.ExitStack() as made:

        def make(server: Any, database: str) -> Network:
            network = Network(tmp_path / "machines of a network", server, database)
            made.callback(network.close)
            return network

        yield make


@pytest.fixture
def network(make_network: Callable[[Any, str], Network], postgresql: Any, new_database: Callable[[], str]) -> Network:
    """Connect machines to be made with the server of all tests, and let them use a new database."""
    return make_network(postgresql, new_database().rpartition("/")[2])


@pytest.fixture(scope="session")
def give_data(tiny_dataset: Path) -> Callable[[Machine], Path]:
    """Give a machine the dataset, where no other one has it; return the metadata file."""

    def give(machine: Machine) -> Path:
        copy = machine.folder / f"data of {machine.name}"
        shutil.copytree(tiny_dataset.parent, copy, ignore=shutil.ignore_patterns("*.npy", ".*"))
        return copy / tiny_dataset.name

    return give


@pytest.fixture(scope="session")
def give_work(tiny_models: Path, give_data: Callable[[Machine], Path]) -> Callable[..., Path]:
    """Give a machine all that a run needs; return the experiments file, with these names and training settings."""

    def give(machine: Machine, experiments: Mapping[str, Mapping[str, Any]]) -> Path:
        data = give_data(machine)
        shutil.copy(tiny_models, machine.folder / "models.yaml")
        path = machine.folder / "experiments.yaml"
        path.write_text(yaml.safe_dump({"experiments": _experiments(experiments, data)}, sort_keys=False))
        return path

    return give


def _experiments(experiments: Mapping[str, Mapping[str, Any]], data: Path) -> dict[str, Any]:
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
