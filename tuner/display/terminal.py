"""Where text goes: terminals, files and pipes."""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TextIO, cast

from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType, Segment
from rich.table import Table

_SUBSCRIPT_SIGN = "\N{KHMER SIGN COENG}"  # shows as a stray mark when the consonant after it is cut off


class ForgivingStream:
    """A stream that falls silent when it can no longer be written to: a training outlives its terminal."""

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream."""
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        """Write, if there still is somewhere to write to."""
        if not self._broken:
            try:
                self._stream.write(text)
            except (OSError, ValueError):  # ValueError: it was closed
                self._broken = True
        return len(text)

    def flush(self) -> None:
        """Flush, if there still is something to flush."""
        if not self._broken:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._broken = True

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the stream's file descriptor."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """The stream's encoding."""
        return self._stream.encoding


def forgiving(stream: TextIO) -> TextIO:
    """Return a stream whose failures nobody hears of."""
    return cast(TextIO, ForgivingStream(stream))


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can redraw lines."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def console_on(stream: TextIO) -> Console:
    """Return a console: colours on a terminal only (and not if ``NO_COLOR`` is set), words as they are."""
    return _Console(file=stream, force_terminal=is_terminal(stream), highlight=False, markup=False, emoji=False)


def plain_table(*headers: str, right: tuple[int, ...] = ()) -> Table:
    """Return a table without lines; columns listed in `right` are aligned there."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for position, header in enumerate(headers):
        table.add_column(header, justify="right" if position in right else "left", overflow="fold")
    return table


def spare_cells(text: str) -> int:
    """Return how many cells a text takes on some terminals beyond those that it takes on others.

    Vowels that stand beside their consonant, as Khmer has them, take a cell of their own on some and none on others.
    """
    return sum(unicodedata.category(character) == "Mc" for character in text)


def cut(text: str, cells: int) -> str:
    """Return a text, or its beginning and an ellipsis, that takes at most so many cells anywhere."""
    if cell_len(text) + spare_cells(text) <= cells:
        return text
    taken = list(accumulate(cell_len(character) + spare_cells(character) for character in text))
    kept = text[: bisect_left(taken, cells)].rstrip(_SUBSCRIPT_SIGN)
    return f"{kept}\N{HORIZONTAL ELLIPSIS}"


@contextmanager
def drawn_at_once(console: Console) -> Iterator[None]:
    """Send what is drawn meanwhile in one piece, and let a terminal that can show it in one step: nothing flickers."""
    with console:
        console.control(_BEGIN_STEP)
        try:
            yield
        finally:
            console.control(_END_STEP)


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path as people want to read it: relative if it is below the working directory."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def printable(text: str) -> str:
    """Return a text as one line that a terminal shows and does not obey: what cannot be printed is escaped.

    A file's or folder's name may hold line breaks, control sequences and what is not UTF-8.
    """
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


class _Raw(Control):
    """A control sequence that Rich does not know."""

    def __init__(self, sequence: str) -> None:
        super().__init__()
        # Rich sends the text of a control segment as it is, and asks only whether it is one.
        self.segment = Segment(sequence, None, [(ControlType.BELL,)])


# Synchronized output, DEC private mode 2026; terminals that do not have it ignore this.
_BEGIN_STEP, _END_STEP = _Raw("\x1b[?2026h"), _Raw("\x1b[?2026l")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that Rich calls this for; Rich itself would end the program
