"""The README says nothing that does not work: its commands are run, in order, on the documented presets."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Shell = Callable[[list[str], Path], "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
SCRIPTS = [command for command in COMMANDS if command.startswith("bash scripts/")]
OTHERS = [command for command in COMMANDS if command not in SCRIPTS and not command.startswith("source ")]


def test_the_two_commands_are_run_by_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    full_run = (ROOT / "tests" / "test_full_run.py").read_text(encoding="utf-8")
    assert SCRIPTS == ["bash scripts/run.sh", "bash scripts/test.sh"]
    assert "\nbash scripts/test.sh\n" in ci
    assert "\nbash scripts/test.sh -m slow\n" in ci
    assert '"bash", str(ROOT / "scripts" / "run.sh")' in full_run


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).is_file()


@pytest.mark.parametrize("name", re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE))
def test_the_folder_map_is_the_tree(name: str) -> None:
    assert (ROOT / name).is_dir()


@pytest.mark.slow
def test_commands_work_as_printed(after_a_run: Path, shell: Shell) -> None:
    (after_a_run / "scripts").symlink_to(ROOT / "scripts")
    for command in OTHERS:
        done = shell(shlex.split(command), after_a_run)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
