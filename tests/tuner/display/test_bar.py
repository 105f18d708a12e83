from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tuner.display.bar import Bar


def drawn(bar: Bar, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=stream, width=10)
    console.print(bar)
    stream.seek(0)
    return stream.read().rstrip("\n")


@pytest.mark.parametrize(
    ("done", "total", "heavy"),
    [(0, 4, 0), (1, 4, 2), (2, 4, 5), (3.99, 4, 9), (4, 4, 10), (5, 4, 10), (0, 0, 0), (3, 0, 0)],
)
def test_it_is_heavy_as_far_as_something_is_done(done, total, heavy):
    assert drawn(Bar(done, total)) == "━" * heavy + "─" * (10 - heavy)


def test_it_can_be_drawn_where_there_are_no_lines():
    assert drawn(Bar(3, 10), "ascii") == "###-------"


@pytest.mark.parametrize(("done", "colours"), [(0, ["90"]), (1, ["36", "90"]), (2, ["32"])])
def test_on_a_terminal_it_has_colours(done, colours):
    stream = io.StringIO()
    Console(file=stream, width=10, force_terminal=True, color_system="standard").print(Bar(done, 2))
    assert re.findall(r"\x1b\[(\d+)m[━─]", stream.getvalue()) == colours
