"""Writing to standard output: JSON for programs, lines and tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

STANDARD_OUTPUT = "-"  # as the file of an option


def print_json(data: object) -> None:
    """Print plain data as JSON."""
    print(json.dumps(data, ensure_ascii=False, indent=2))


def print_lines(lines: Iterable[RenderableType], *, wrap_words: bool = False) -> None:
    """Print tables, and lines that a terminal wraps anywhere (as paths need it) or between words."""
    from tuner.display.terminal import console_on

    console = console_on(sys.stdout)
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, str) and not (wrap_words and console.is_terminal))
