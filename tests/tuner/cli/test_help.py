"""`khmer-tuner --help`: every command is listed once, under one of four headings."""

import re

import pytest

from tuner.__main__ import main
from tuner.cli.commands import COMMAND_GROUPS, COMMANDS


@pytest.fixture
def help_lines(monkeypatch, capsys, columns):
    """The help of the program on a terminal of this width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--help"]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [80])
def test_every_command_is_listed_under_one_heading(help_lines):
    listed = {}
    for line in help_lines[: help_lines.index("options:")]:
        if heading := re.fullmatch(r"(\w[\w ]*):", line):
            listed[heading[1]] = []
        elif command := re.match(r"  ([\w-]+)  +\w", line):
            listed[[*listed][-1]].append(command[1])
    assert list(listed) == ["run", "watch", "use the result", "data"]
    assert listed == {heading: [command.name for command in group] for heading, group in COMMAND_GROUPS.items()}
    names = [name for group in listed.values() for name in group]
    assert sorted(names) == sorted(command.name for command in COMMANDS) == sorted(set(names))


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_command_list_has_the_width_of_the_terminal(columns, help_lines):
    listed = help_lines[help_lines.index("run:") : help_lines.index("options:")]
    assert max(map(len, listed)) < columns
    assert (len(listed) == len(COMMANDS) + 2 * len(COMMAND_GROUPS)) == (columns > 60)
