"""The README says nothing that does not work: its commands are run, in order, on the documented presets."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from studies.storage.url import without_password
from tuner.cli.commands import COMMANDS
from tuner.cli.parser import parse

Shell = Callable[[list[str], Path], "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


BLOCKS = blocks("bash")
# Commands on a server that somebody has; the other one is a cluster's.
ON_A_SERVER, CLUSTER_JOB = blocks("sh")
LINES = [line for block in BLOCKS for line in block.splitlines()]
SCRIPTS = [command for command in LINES if command.startswith("bash scripts/")]
OTHERS = [command for command in LINES if command not in SCRIPTS and not command.startswith("source ")]


def test_the_two_commands_are_run_by_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    full_run = (ROOT / "tests" / "test_full_run.py").read_text(encoding="utf-8")
    assert SCRIPTS == ["bash scripts/run.sh", "bash scripts/test.sh"]
    assert "set -e" in ci
    assert re.findall(r"^bash .*", ci, flags=re.MULTILINE) == [
        "bash scripts/test.sh",
        "bash scripts/test.sh -m slow -n 0 tests/test_full_run.py",
        "bash scripts/test.sh -m slow --ignore tests/test_full_run.py",
    ]
    assert '"bash", str(ROOT / "scripts" / "run.sh")' in full_run


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).is_file()


DEVELOPMENT = README[README.index("## Development") :]


@pytest.mark.parametrize("path", re.findall(r"`((?:tuner|studies|search_spaces|scripts|tests)[\w/.]*)`", DEVELOPMENT))
def test_the_map_of_the_tree_is_the_tree(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_map_names_every_folder_of_the_packages() -> None:
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for package in ("tuner", "studies", "search_spaces")
        for path in (ROOT / package).glob("*/**/__init__.py" if package != "search_spaces" else "__init__.py")
    }
    assert [folder for folder in sorted(folders) if f"`{folder}`" not in DEVELOPMENT] == []


@pytest.mark.slow
def test_commands_work_as_printed(after_a_run: Path, shell: Shell) -> None:
    (after_a_run / "scripts").symlink_to(ROOT / "scripts")
    for command in OTHERS:
        done = shell(shlex.split(command), after_a_run)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("program", blocks("python"))
def test_programs_work_as_printed(program: str, after_a_run: Path, shell: Shell) -> None:
    done = shell(["python", "-c", program], after_a_run)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(list((after_a_run / "generated_data" / "test").iterdir()))


@pytest.mark.slow
def test_commands_work_as_printed_on_a_server(
    after_a_run: Path,
    shell: Shell,
    environment: dict[str, str],
    new_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.rmtree(after_a_run / "training_output")
    there = after_a_run / "there"
    shutil.copytree(after_a_run / "generated_data", there / "generated_data")
    export, *commands = [shlex.split(line, comments=True) for line in ON_A_SERVER.splitlines()]
    assert export[1].startswith("KHMER_TUNER_STORAGE=postgresql+psycopg://")
    # Without its password, which everybody has from elsewhere, as the README says.
    url = new_database()
    monkeypatch.setitem(environment, "PGPASSWORD", str(make_url(url).password))
    monkeypatch.setitem(environment, "KHMER_TUNER_STORAGE", without_password(url))
    with contextlib.ExitStack() as workers:
        for command in commands:
            if "worker" in command:
                workers.enter_context(working(command, there, environment))
                continue
            while "stop" in command and "owed:" in shell(["khmer-tuner", "status"], after_a_run).stdout:
                time.sleep(1)
            done = shell(command, after_a_run)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def working(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Let a worker work in a folder; in the end it must have been asked to stop, and have trained something."""
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stderr is not None
            while "waiting for new trials" not in next(worker.stderr):
                pass
            yield
            said = worker.communicate(timeout=120)[1]
            assert worker.returncode == 0, said
            assert "search_0001" in said
        finally:
            worker.kill()


def test_the_service_and_the_cluster_job_begin_workers() -> None:
    (unit,) = blocks("ini")
    started = re.findall(r"khmer-tuner (worker .*)", unit + CLUSTER_JOB)
    assert len(started) == 2
    for words in started:
        _, options = parse(words.split(), COMMANDS)
        assert options.metadata == "generated_data/metadata.yaml"
