"""Fixtures for tests of the whole program."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from studies import open_storage
from tuner.data.generation.dataset import generate_dataset

ROOT = Path(__file__).parents[1]

# The same examples in each run, without deadlines; all examples of a test share its fixtures.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("repeatable")

# The folder for pytest's temporary folders. Studies there do not wait for the disk at each commit and checkpoint.
MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 4 * 2**30
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_NEEDED:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

EPOCHS_OF_PRESETS = 5


# A shell's background jobs and their children ignore SIGINT; the tested programs must not.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Give slow tests a longer timeout than the `timeout` in pyproject.toml."""
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.timeout(2400))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape printed file names that are not valid text, since pytest-xdist cannot send them."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def _empty_working_directory(tmp_path_factory):
    """Change to an empty folder, since the checkout may contain a dataset, and image paths are relative."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("empty"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session")
def environment():
    """Return environment variables with which `khmer-tuner` is the command of this environment.

    Each command uses one thread, because other tests run in parallel.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def shell(environment):
    """Run a command in a folder, without standard input."""

    def run(command, folder):
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    return run


@pytest.fixture(scope="session")
def postgresql():
    """Start a real PostgreSQL server, a `harness.postgresql.PostgresServer`, for all tests that use this fixture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        server = importlib.import_module("harness.postgresql")
        with server.PostgresServer() as running:
            # libpq uses it for URLs without a password, such as those stored in an output folder.
            patch.setenv("PGPASSWORD", server.PASSWORD)
            yield running


@pytest.fixture(scope="session")
def _empty_database(postgresql):
    open_storage(postgresql.create_database("empty")).engine.dispose()
    return "empty"


@pytest.fixture
def new_database(postgresql, _empty_database):
    """Create a new database for studies on the server of all tests; return its URL with the password."""
    names = []

    def create():
        names.append(f"studies_{uuid.uuid4().hex}")
        url = postgresql.create_database(names[-1], template=_empty_database)
        return url

    yield create
    for name in names:
        postgresql.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def _trained_presets(shell, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets")
    (folder / "config").mkdir()
    for path in (ROOT / "search_spaces" / "config").glob("*.yaml"):  # found before those in the package
        text, changes = re.subn(r"\bnum_epochs: \d+", f"num_epochs: {EPOCHS_OF_PRESETS}", path.read_text("utf-8"))
        if changes:
            (folder / "config" / path.name).write_text(text, "utf-8")
    generate_dataset(folder / "generated_data", samples=20, test_samples=5)
    done = shell(["khmer-tuner", "run"], folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def trained_folder(_trained_presets, tmp_path):
    """Return a folder in which `khmer-tuner run` has trained the presets on 20 images.

    Configuration files in the folder shorten all trials; `test_full_run.py` trains the presets as they are.
    """
    folder = tmp_path / "trained_folder"
    shutil.copytree(_trained_presets, folder)
    return folder


@pytest.fixture
def disk(tmp_path):
    """Mount a small file system in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={32 * 2**20}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fill():
    """Fill a small file system except for `free_bytes`; return the file that fills it."""

    def write(disk, free_bytes):
        ballast = disk / "ballast"
        state = os.statvfs(disk)
        ballast.write_bytes(b"\0" * (state.f_bavail * state.f_frsize - free_bytes))
        return ballast

    return write


@pytest.fixture
def child():
    """Run `light_worker.py` in another process; processes that still run at the end are killed."""
    processes = []

    def run(*arguments, **variables):
        command = [sys.executable, str(ROOT / "tests" / "studies" / "light_worker.py"), *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()
