from __future__ import annotations

import pytest
from rich.cells import cell_len

from tuner.display.terminal import cut, printable, spare_cells


@pytest.mark.parametrize(("text", "cells"), [("small", 0), ("ខ្មែរ", 1), ("កោះ", 2), ("é", 0)])
def test_vowels_beside_their_consonant_take_a_cell_on_some_terminals(text, cells):
    assert spare_cells(text) == cells


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("search_0007", 11, "search_0007"),
        ("search_0007", 10, "search_00…"),
        ("ខ្មែរ", 4, "ខ្មែរ"),
        ("កកកកក", 3, "កក…"),
        # A consonant below another one goes with the sign that puts it there.
        ("កខ្មក", 3, "កខ…"),
        ("", 5, ""),
    ],
)
def test_what_is_too_long_ends_in_an_ellipsis(text, cells, shown):
    assert cut(text, cells) == shown


@pytest.mark.parametrize("cells", range(1, 40))
def test_what_is_cut_fits_also_where_vowels_take_a_cell(cells):
    shown = cut("គំរូមធ្យម_ការបណ្តុះបណ្តាល_ដែលមានល្បឿនលឿន", cells)
    assert cell_len(shown) + spare_cells(shown) <= cells
    assert len(shown) >= min(cells, 3) or cells < 4


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("រូបភាព ១.png", "រូបភាព ១.png"),
        ("a\nb\t\x1b[2Jc\x9b1A", r"a\nb\t\x1b[2Jc\x9b1A"),
        ("\udcff\u202egnp.exe", r"\udcff\u202egnp.exe"),
    ],
)
def test_what_would_change_the_screen_is_escaped(text, shown):
    assert printable(text) == shown
