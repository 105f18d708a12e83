"""The examples in the help of each command work as printed."""

import contextlib
import re
import shlex
import signal
import subprocess
import urllib.request
from http import HTTPStatus

import pytest

from tuner.cli.commands import COMMANDS

INTERRUPTED = 130


def examples(command):
    """Return the example commands in the help of a command."""
    return [line.strip() for line in command.examples.splitlines() if line.startswith("  khmer-tuner ")]


@contextlib.contextmanager
def serving(line, folder, environment):
    """Run a server command; yield its first line, then check that SIGINT ends it."""
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
def test_every_command_has_an_example_of_itself(command):
    assert examples(command)
    assert all(line.split()[1] == command.name for line in examples(command))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_examples_work_as_printed(command, trained_folder, shell, environment, tmp_path):
    for line in examples(command):
        if command.name == "dashboard":
            with serving(line, trained_folder, environment) as first_line:
                address = re.search(r"http://\S+", first_line)
                assert address is not None, first_line
                with urllib.request.urlopen(address[0], timeout=30) as response:
                    assert response.status == HTTPStatus.OK
        else:
            if command.name == "import":
                export = shell(
                    shlex.split("khmer-tuner export --format study --results-file study.jsonl"), trained_folder
                )
                assert export.returncode == 0, export.stderr
            # `data` generates a dataset, so it needs a folder without one.
            done = shell(shlex.split(line), tmp_path if command.name == "data" else trained_folder)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
