"""What tests of the whole program begin with."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from studies import open_storage
from tuner.data.generation import generate_dataset

ROOT = Path(__file__).parents[1]

# The same examples every time, however busy the machine; what a fixture makes is shared by a test's examples.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("repeatable")

Child = Callable[..., "subprocess.Popen[str]"]
Shell = Callable[[list[str], Path], "subprocess.CompletedProcess[str]"]

# What a shell runs in the background ignores Ctrl-C, and so does all that it starts; what is tested is to heed it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time than `timeout` in pyproject.toml gives to all."""
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.timeout(2400))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test printed pass on to the process that tells of it, also names of files that are no text."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty working directory: the checkout may hold a dataset of its own, and image paths are relative."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment in which `khmer-tuner` is this one."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="session")
def shell(environment: dict[str, str]) -> Shell:
    """Run a command in a folder, with nobody at the keyboard."""

    def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    return run


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    """A real PostgreSQL server, a `harness.postgresql.PostgresServer`, from the first test that asks for it on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        server = importlib.import_module("harness.postgresql")
        with server.PostgresServer() as running:
            # For URLs without it, as an output folder keeps them; to libpq, PostgreSQL's own client library.
            patch.setenv("PGPASSWORD", server.PASSWORD)
            yield running


@pytest.fixture(scope="session")
def _database_without_a_study(postgresql: Any) -> str:
    open_storage(postgresql.create_database("empty")).engine.dispose()
    return "empty"


@pytest.fixture
def new_database(postgresql: Any, _database_without_a_study: str) -> Iterator[Callable[[], str]]:
    """Create one more database for studies, on the server of all tests; return its URL with the password."""
    names: list[str] = []

    def create() -> str:
        names.append(f"studies_{uuid.uuid4().hex}")
        url: str = postgresql.create_database(names[-1], template=_database_without_a_study)
        return url

    yield create
    for name in names:
        postgresql.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def _run_of_the_presets(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("presets")
    generate_dataset(folder / "generated_data", samples=40, test_samples=10)
    done = shell(["khmer-tuner", "run"], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def after_a_run(_run_of_the_presets: Path, tmp_path: Path) -> Path:
    """A folder in which `khmer-tuner run` has trained the presets, on so few images that it takes a minute."""
    folder = tmp_path / "after_a_run"
    shutil.copytree(_run_of_the_presets, folder)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={32 * 2**20}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fill() -> Callable[[Path, int], Path]:
    """Fill a small disk but for so many bytes; return the file that does."""

    def write(disk: Path, free_bytes: int) -> Path:
        ballast = disk / "ballast"
        state = os.statvfs(disk)
        ballast.write_bytes(b"\0" * (state.f_bavail * state.f_frsize - free_bytes))
        return ballast

    return write


@pytest.fixture
def child() -> Iterator[Child]:
    """Run `light_worker.py` in another process; whatever still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: object, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "tests" / "studies" / "light_worker.py"), *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()
