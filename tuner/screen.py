"""Where text goes: terminals, files and pipes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO, cast

from rich.console import Console
from rich.table import Table


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


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path as people want to read it: relative if it is below the working directory."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that Rich calls this for; Rich itself would end the program
