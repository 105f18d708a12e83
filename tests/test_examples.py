"""The examples that every command's help shows work as they are printed."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from tuner.cli.commands import COMMANDS
from tuner.cli.options import Command

Shell = Callable[[list[str], Path], "subprocess.CompletedProcess[str]"]

INTERRUPTED = 130


def examples(command: Command) -> list[str]:
    """The lines of a command's help that are to be typed."""
    return [line.strip() for line in command.examples.splitlines() if line.startswith("  khmer-tuner ")]


@contextlib.contextmanager
def serving(line: str, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Let a command serve; yield what it prints first, and see it end when it is interrupted."""
    process = subprocess.Popen(
        shlex.split(line), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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
    assert all(line.split()[1] == command.name for line in examples(command))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_examples_work_as_printed(
    command: Command, after_a_run: Path, shell: Shell, environment: dict[str, str], tmp_path: Path
) -> None:
    for line in examples(command):
        if command.name == "dashboard":
            with serving(line, after_a_run, environment) as told:
                address = re.search(r"http://\S+", told)
                assert address is not None, told
                with urllib.request.urlopen(address[0], timeout=30) as answer:
                    assert answer.status == HTTPStatus.OK
        else:
            # A dataset is drawn where there is none.
            done = shell(shlex.split(line), tmp_path if command.name == "data" else after_a_run)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
