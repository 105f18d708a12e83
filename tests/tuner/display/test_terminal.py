import pytest
from rich.cells import cell_len

from tuner.display.terminal import ambiguous_cells, printable, shown_path, truncate


@pytest.mark.parametrize(("text", "cells"), [("small", 0), ("ខ្មែរ", 1), ("កោះ", 2), ("é", 0)])
def test_ambiguous_cells_counts_spacing_combining_vowels(text, cells):
    assert ambiguous_cells(text) == cells


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("search_0007", 11, "search_0007"),
        ("search_0007", 10, "search_00…"),
        ("ខ្មែរ", 4, "ខ្មែរ"),
        ("កកកកក", 3, "កក…"),
        # A subscript consonant is cut together with its subscript sign.
        ("កខ្មក", 3, "កខ…"),
        ("", 5, ""),
    ],
)
def test_too_long_text_ends_in_an_ellipsis(text, cells, shown):
    assert truncate(text, cells) == shown


@pytest.mark.parametrize("cells", range(1, 40))
def test_cut_text_fits_terminals_on_which_vowels_occupy_a_cell(cells):
    shown = truncate("គំរូមធ្យម_ការបណ្តុះបណ្តាល_ដែលមានល្បឿនលឿន", cells)
    assert cell_len(shown) + ambiguous_cells(shown) <= cells
    assert len(shown) >= min(cells, 3) or cells < 4


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("រូបភាព ១.png", "រូបភាព ១.png"),
        ("a\nb\t\x1b[2Jc\x9b1A", r"a\nb\t\x1b[2Jc\x9b1A"),
        ("\udcff\u202egnp.exe", r"\udcff\u202egnp.exe"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == shown


def test_path_is_relative_inside_the_working_directory_and_complete_elsewhere(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert [shown_path(path) for path in ("out", here / "out", tmp_path)] == ["out", "out", str(tmp_path)]
    here.rmdir()  # the working directory is deleted
    assert [shown_path(path) for path in ("out", tmp_path)] == ["out", str(tmp_path)]
