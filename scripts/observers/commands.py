"""Commands of the program, each in a new interpreter."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

_LONGEST_LIFE_S = 300.0


def words(*command: str) -> list[str]:
    """Return the words that give a command of the program."""
    return [sys.executable, "-P", "-m", "tuner", *command]


def give(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Give a command in a folder, and wait until it has ended; one that hangs is killed, and says so."""
    try:
        return subprocess.run(
            words(*command), cwd=folder, capture_output=True, text=True, process_group=0, timeout=_LONGEST_LIFE_S
        )
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(error.cmd, -signal.SIGKILL, "", f"hung for {_LONGEST_LIFE_S:.0f} s")


def problem_of(done: subprocess.CompletedProcess[str]) -> str:
    """Say what is wrong with how a command that only looks has ended; nothing if all is well."""
    said = done.stderr.strip()
    is_well = done.returncode == 0 and "lock" not in said.casefold() and "Traceback" not in said
    return "" if is_well else f"exit {done.returncode}: {said}"
