"""Writing to standard output: JSON for programs, lines and tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

STANDARD_OUTPUT = "-"  # as the file of an option


def print_json(data: object) -> None:
    """Print plain data as JSON; numbers that are not finite become null."""
    finite = json.loads(json.dumps(data), parse_constant=lambda name: None)
    print_text(json.dumps(finite, ensure_ascii=False, indent=2) + "\n")


def print_text(text: str) -> None:
    """Print a text unchanged; on a terminal, its control characters are escaped."""
    if sys.stdout.isatty():
        from tuner.display.terminal import printable

        text = printable(text.replace("\r\n", "\n"), kept="\n")
    with _printed_at_once():
        sys.stdout.write(text)


def print_lines(lines: Iterable[RenderableType], *, wrap_words: bool = False) -> None:
    """Print tables, and lines that a terminal wraps anywhere (as paths need it) or between words."""
    from tuner.display.terminal import console_on

    console = console_on(sys.stdout)
    with _printed_at_once():
        for line in lines:
            console.print(line, soft_wrap=isinstance(line, str) and not (wrap_words and console.is_terminal))


@contextmanager
def _printed_at_once() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's flush at exit fails, too
        if isinstance(error, BrokenPipeError):
            raise
        from search_spaces import ConfigurationError

        raise ConfigurationError(f"standard output: {error.strerror}; free space there, or redirect it") from error
