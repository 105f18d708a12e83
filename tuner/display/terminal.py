"""Output streams (terminals, files, pipes) and text formatting for them."""

from __future__ import annotations

import os
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO, cast

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_SUBSCRIPT_SIGN = "\N{KHMER SIGN COENG}"  # shows as a stray mark without the consonant that follows it
_SIZES = {"COLUMNS": "[4-9][0-9]|[1-9][0-9]{2,3}", "LINES": "[1-9][0-9]{0,3}"}  # tables need at least 40 columns


class _BestEffortStream:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, action: Callable[[], object]) -> None:
        if not self._broken:
            try:
                action()
            except (OSError, ValueError):  # ValueError: the stream is closed
                self._broken = True


def ignoring_write_errors(stream: TextIO) -> TextIO:
    """Return a stream that ignores write errors, so that training continues after a terminal, pipe or disk failed."""
    return cast(TextIO, _BestEffortStream(stream))


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can redraw lines."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def console_on(stream: TextIO) -> Console:
    """Return a console without markup or emoji; it uses colours only on a terminal and without ``NO_COLOR``."""
    environ = {name: value for name, value in os.environ.items() if re.fullmatch(_SIZES.get(name, "(?s:.*)"), value)}
    return _Console(
        file=stream, force_terminal=is_terminal(stream), highlight=False, markup=False, emoji=False, _environ=environ
    )


def plain_table(*headers: str, right: tuple[int, ...] = ()) -> Table:
    """Return a table without borders; the columns with the indices `right` are right-aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for position, header in enumerate(headers):
        table.add_column(header, justify="right" if position in right else "left", overflow="fold")
    return table


def ambiguous_cells(text: str) -> int:
    """Return the number of cells by which the width of a text may differ between terminals.

    Some terminals give Khmer's spacing combining vowels a cell each, others none.
    """
    return sum(unicodedata.category(character) == "Mc" for character in text)


def truncate(text: str, cells: int) -> str:
    """Truncate a text to at most `cells` cells on any terminal; a truncated text ends in an ellipsis."""
    if cell_len(text) + ambiguous_cells(text) <= cells:
        return text
    taken = list(accumulate(cell_len(character) + ambiguous_cells(character) for character in text))
    kept = text[: bisect_left(taken, cells)].rstrip(_SUBSCRIPT_SIGN)
    return f"{kept}\N{HORIZONTAL ELLIPSIS}"


@contextmanager
def synchronized_output(console: Console) -> Iterator[None]:
    """Collect the console's output inside the ``with`` block and write it at once, which prevents flickering.

    Terminals without synchronized output (DEC private mode 2026) ignore the control sequences.
    """
    console.file.write("\x1b[?2026h")
    try:
        with console:
            yield
    finally:
        console.file.write("\x1b[?2026l")
        console.file.flush()


def shown_path(path: str | os.PathLike[str]) -> str:
    """Format a path for a message: relative if it is inside the working directory, otherwise absolute."""
    try:
        absolute, here = Path(os.path.abspath(path)), Path.cwd()
    except FileNotFoundError:  # the working directory was deleted
        return str(path)
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def printable(text: str, *, kept: str = "") -> str:
    """Escape all unprintable characters of a text, including line breaks, except those in `kept`.

    Names of files and folders may contain line breaks, control sequences and bytes that are not UTF-8.
    """
    return "".join(char if char.isprintable() or char in kept else ascii(char)[1:-1] for char in text)


class _Console(Console):
    def render_str(self, text: str, **style: Any) -> Text:  # Rich calls it for every text, also in tables
        return super().render_str(printable(text, kept="\n"), **style)

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that is being handled; Rich itself would exit the process
