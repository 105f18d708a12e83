"""Any text is shown within the width of a terminal, without control sequences taking effect."""

from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from tuner.display.terminal import ambiguous_cells, printable, truncate

TEXT = st.text(max_size=40) | st.text("កខគ្មាោេ៌a\N{COMBINING ACUTE ACCENT}字", max_size=40)


@given(text=TEXT)
@example("\x1b]0;title\x07\r\n\u202e\udcff")
def test_printable_text_is_one_line_without_control_characters(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
    # Idempotent, since several functions escape the same message.
    assert printable(shown) == shown
    shown.encode()


@given(text=TEXT.map(printable), cells=st.integers(1, 40))
def test_cut_text_fits_and_ends_in_an_ellipsis(text, cells):
    shown = truncate(text, cells)
    assert cell_len(shown) + ambiguous_cells(shown) <= cells
    if shown != text:
        assert shown.endswith("…")
        assert text.startswith(shown[:-1])
