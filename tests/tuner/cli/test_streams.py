"""Closed, full and narrow standard streams, control sequences in text, and SIGINT during imports."""

import io
import json
import queue
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.table import Table

from studies import latest_records, load_study
from tuner.cli.output import print_json, print_lines, print_text
from tuner.display.displays import LiveDisplay, ProgressDisplay
from tuner.display.tables import bars
from tuner.display.terminal import console_on
from tuner.session.run_options import StopConditions, TrialFilter
from tuner.workers.orders import WorkerOrders
from tuner.workers.process import WorkerProcess

HOSTILE = "Kh\x1b[2Jmer\x9b1A"
SHOWN = r"Kh\x1b[2Jmer\x9b1A"
# Runs the command line and sends its own process a SIGINT when a module is imported.
INTERRUPTED = """
import os, signal, sys
module = sys.argv.pop(1)
class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Sender())
from tuner.__main__ import main
sys.exit(main())
"""


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal with colours."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def shell(arguments, redirection, folder):
    """Run a command in a shell with redirected streams."""
    line = shlex.join(map(str, [sys.executable, "-P", "-m", "tuner", *arguments]))
    return subprocess.run(f"{line} {redirection}", shell=True, capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize("module", ["argparse", "tuner.cli.commands", "tuner.signals", "optuna"])
def test_interrupt_during_imports_prints_no_traceback(module, run_study, working_dir):
    command = [sys.executable, "-c", INTERRUPTED, module, "status", "--output-dir", run_study.folder]
    done = subprocess.run(command, capture_output=True, text=True, cwd=working_dir)
    assert done.stdout == ""
    assert done.stderr in ("", "stopped\n")
    assert done.returncode in (130, -signal.SIGINT)


def test_library_does_not_change_signal_handlers(cli, run_study):
    before = signal.getsignal(signal.SIGINT)
    cli.ok("status", "--output-dir", run_study.folder)
    assert signal.getsignal(signal.SIGINT) is before
    code = "import signal, tuner; tuner.TrainingConfig; assert signal.getsignal(2) is signal.default_int_handler"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_worker_interrupted_during_startup_exits_with_130(working_dir):
    url, wanted = "sqlite:///out/study.db", (TrialFilter(), StopConditions())
    orders = WorkerOrders("out", "study", url, "", None, "metadata.yaml", {}, *wanted, threads=1)
    worker = WorkerProcess(orders, queue.SimpleQueue())
    worker.process.send_signal(signal.SIGINT)  # during the start of the interpreter
    assert worker.process.wait() == 130
    worker.close()
    assert worker.stderr_text == ""
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(
    ("redirection", "code"), [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), (">&- 2>/dev/full", 0), (">/dev/full", 2)]
)
def test_closed_or_full_streams_do_not_break_a_command(redirection, code, run_study, working_dir):
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    done = shell(["status", "--output-dir", run_study.folder], redirection, working_dir)
    assert done.returncode == code
    assert bool(done.stdout) == (redirection == "2>&-")
    # The message must not blame the study's disk.
    assert done.stderr.startswith("error: standard output: No space left on device; " if code else "")
    assert done.stderr.count("\n") == (1 if code else 0)
    assert str(run_study.folder) not in done.stderr


def test_run_without_standard_streams_trains(write_config, working_dir):
    run = ["run", "--config", write_config({"a": {}}), "--output-dir", "out", "--results-file", "results.json"]
    assert shell(run, "<&- >&- 2>&-", working_dir).returncode == 0
    assert [entry["status"] for entry in json.loads((working_dir / "results.json").read_text())["all_results"]] == [
        "completed"
    ]
    study, folder = load_study(working_dir / "out")
    assert len(latest_records(study)) == 1
    # No file got the descriptor of a closed stream, so no file contains printed text.
    printed = [path for path in folder.path.rglob("*") if path.is_file() and b"1 of 1 experiments" in path.read_bytes()]
    assert printed == []


def test_evaluate_escapes_the_font_names_of_a_dataset(cli, run_study, tiny_dataset):
    metadata = yaml.safe_load(tiny_dataset.read_text(encoding="utf-8"))
    for sample in metadata["test"]["samples"]:
        sample["font"] = HOSTILE
        sample["image_path"] = str(tiny_dataset.parent.parent / sample["image_path"])
    Path("metadata.yaml").write_text(yaml.safe_dump(metadata, allow_unicode=True), encoding="utf-8")
    shown = cli.ok("evaluate", "--metadata", "metadata.yaml", "--output-dir", run_study.folder)
    assert "\x1b" not in shown.out
    assert SHOWN in shown.out
    assert "០" in shown.out


def test_terminal_output_is_escaped_and_coloured(terminal, monkeypatch):
    table = Table("ខ្មែរ", header_style="bold")
    table.add_row(HOSTILE)
    monkeypatch.setattr(sys, "stdout", terminal)  # not in the fixture, because pytest replaces sys.stdout after it
    print_lines([table, f"one {HOSTILE}\ntwo"])
    print_text(f"a,{HOSTILE}\r\nខ្មែរ\r\n")
    print_json({HOSTILE: "ខ្មែរ"})
    shown = terminal.getvalue()
    assert "\x1b[1m" in shown
    assert "\x1b[2J" not in shown
    assert "\x9b" not in shown
    assert "\r" not in shown
    assert shown.count(r"\x9b1A") == 4
    assert f"one {SHOWN}\ntwo\na,{SHOWN}\nខ្មែរ\n" in shown


def test_text_for_a_file_or_pipe_is_written_unchanged(capfd):
    print_text(HOSTILE)
    print_json([HOSTILE])
    out, _ = capfd.readouterr()
    assert out.startswith(HOSTILE)
    assert json.loads(out.removeprefix(HOSTILE)) == [HOSTILE]


def test_notes_and_progress_bars_are_escaped(terminal):
    live, lines = LiveDisplay(terminal, None), io.StringIO()
    for display in (live, ProgressDisplay(lines, None)):
        display.note(f"{HOSTILE}\nខ្មែរ")
        display.close()
    assert lines.getvalue() == f"{SHOWN}\nខ្មែរ\n"
    console_on(terminal).print(bars(200, (HOSTILE, 1, 2, "epochs")))
    assert terminal.getvalue().count(SHOWN) == 2
    assert "\x1b[2J" not in terminal.getvalue()


def test_file_name_in_a_message_is_escaped(cli, run_study, working_dir):
    folder = working_dir / HOSTILE
    folder.mkdir()
    message = cli("export", "--output-dir", run_study.folder, "--results-file", folder / "x.json").err
    assert message.endswith(f"{SHOWN}/x.json\n") or "found the character" in message
    assert "\x1b" not in message


@pytest.mark.parametrize("columns", ["1", "0", "-5", "abc", "", "²", "39", "1000000", "9" * 5000])
def test_tables_are_readable_with_any_terminal_variables(columns, cli, run_study, monkeypatch):
    for name in ("COLUMNS", "LINES"):
        monkeypatch.setenv(name, columns)
    shown = cli.ok("status", "--output-dir", run_study.folder)
    assert any(line.startswith("    1 ខ្មែរ") and "completed" in line for line in shown.out.splitlines())
    monkeypatch.setenv("COLUMNS", "100")
    assert console_on(io.StringIO()).width == 100
