"""Bad input of the installed program in a separate process, without a terminal and in the C locale."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["rnu"], "there is no command 'rnu'; did you mean 'run'?"),
        (["run", "--config", "nope.yaml"], "configuration file not found: nope.yaml"),
        (["run", "--config", "ខ្មែរ.yaml"], "configuration file not found: \\udce1\\udc9e\\udc81"),
        (["run", "--config", "\udcff.yaml"], "configuration file not found: \\udcff.yaml"),
        (
            ["validate", "wrong.yaml"],
            "wrong.yaml:1: experiments.a.training.lr: unknown key; did you mean 'learning_rate'?",
        ),
        (["run", "--storage", "sqlite://"], "an in-memory database is lost when the program ends"),
        (["predict", "x.png"], "there is no such folder"),
    ],
)
def test_bad_input_in_a_process(argv, expected, working_dir):
    (working_dir / "wrong.yaml").write_text("experiments: {a: {training: {lr: 0.1}}}")
    command = [sys.executable, "-m", "tuner", *argv]
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, env=environment, stdin=subprocess.DEVNULL)
    text = done.stderr.decode("ascii")
    assert done.returncode == 2
    assert done.stdout == b""
    assert expected in text
    assert text.startswith("error: ")
    assert "Traceback" not in text
    assert [path.name for path in working_dir.iterdir()] == ["wrong.yaml"]


def test_debug_shows_the_traceback(cli):
    assert "Traceback" in cli("status", "--output-dir", "nope", "--debug").err
