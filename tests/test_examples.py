"""The examples that every command's help shows work as they are printed."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path

import pytest

from tuner.cli.command import Command
from tuner.cli.main import COMMANDS
from tuner.data.generation import generate_dataset

ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
INTERRUPTED = 130

Finished = subprocess.CompletedProcess[str]


def examples(command: Command) -> list[str]:
    """The lines of a command's help that are to be typed."""
    return [line.strip() for line in command.examples.splitlines() if line.startswith("  khmer-tuner ")]


def run(line: str, folder: Path, environment: Mapping[str, str] = ENVIRONMENT) -> Finished:
    return subprocess.run(
        shlex.split(line), cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def after_a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the documented presets were trained, on so few images that it takes a minute."""
    folder = tmp_path_factory.mktemp("examples")
    generate_dataset(folder / "generated_data", samples=40, test_samples=10)
    done = run("khmer-tuner run", folder)
    assert done.returncode == 0, done.stderr
    return folder


@contextlib.contextmanager
def serving(line: str, folder: Path) -> Iterator[str]:
    """Let a command serve; yield what it prints first, and see it end when it is interrupted."""
    process = subprocess.Popen(
        shlex.split(line), cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == INTERRUPTED
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_an_example_of_itself(command: Command) -> None:
    assert examples(command)
    assert all(line.startswith(f"khmer-tuner {command.name}") for line in examples(command))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_examples_work_as_printed(command: Command, after_a_run: Path, tmp_path: Path) -> None:
    for line in examples(command):
        if command.name == "dashboard":
            with serving(line, after_a_run) as told:
                address = re.search(r"http://\S+", told)
                assert address is not None, told
                with urllib.request.urlopen(address[0], timeout=30) as answer:
                    assert answer.status == HTTPStatus.OK
        else:
            # A dataset is drawn where there is none.
            done = run(line, tmp_path if command.name == "data" else after_a_run)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
