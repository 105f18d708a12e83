"""Standard output of the commands: JSON for programs, lines and tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

STANDARD_OUTPUT = "-"  # the file name that selects standard output


def print_json(data: object) -> None:
    """Print plain data as JSON, with null for numbers that are not finite."""
    finite = json.loads(json.dumps(data), parse_constant=lambda name: None)
    print_text(json.dumps(finite, ensure_ascii=False, indent=2) + "\n")


def print_text(text: str) -> None:
    """Print a text unchanged, but escape its control characters on a terminal."""
    if sys.stdout.isatty():
        from tuner.display.terminal import printable

        text = printable(text.replace("\r\n", "\n"), kept="\n")
    with _flushed():
        sys.stdout.write(text)


def print_lines(lines: Iterable[RenderableType], *, wrap_words: bool = False) -> None:
    """Print lines and tables.

    On a terminal, `wrap_words` breaks long lines between words. Otherwise the terminal wraps them, so a path can be
    copied as a whole.
    """
    from tuner.display.terminal import console_on

    console = console_on(sys.stdout)
    with _flushed():
        for line in lines:
            console.print(line, soft_wrap=isinstance(line, str) and not (wrap_words and console.is_terminal))


@contextmanager
def _flushed() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python's flush at exit fails too
        if isinstance(error, BrokenPipeError):
            raise
        from search_spaces import ConfigurationError

        raise ConfigurationError(f"standard output: {error.strerror}; free disk space or redirect output") from error
