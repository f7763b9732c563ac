"""Every string in the book can be read: glyphs or visible codes."""

import typst
from hypothesis import given
from hypothesis import strategies as st

from groundup.book.text import _PRINTABLE, excerpt, printable, token_text, visible, visible_everywhere


def test_ranges_are_sorted_and_apart():
    assert all(first <= last for first, last in _PRINTABLE)
    assert all(before[1] < after[0] for before, after in zip(_PRINTABLE, _PRINTABLE[1:], strict=False))


def test_every_printable_character_has_a_glyph_in_the_bundled_fonts():
    # PDF/A forbids missing glyphs, so typst refuses to write one.
    every = [chr(code) for first, last in _PRINTABLE for code in range(first, last + 1)]
    text = " ".join(f"\\u{{{ord(character):x}}}" for character in every)
    for fonts in ('("Libertinus Serif", "DejaVu Sans Mono")', '("DejaVu Sans Mono", "Libertinus Serif")'):
        source = f'#set document(title: "x")\n#set text(font: {fonts}, fallback: false)\n#"{text}"'
        pdf = typst.compile(source.encode(), format="pdf", pdf_standards="a-2b", ignore_system_fonts=True)
        assert pdf.startswith(b"%PDF")


def test_missing_glyphs_are_shown_by_their_codes():
    assert visible("a\tb\r\nc") == "a    b\nc"
    assert visible("日🙂") == "⟨U+65E5⟩⟨U+1F642⟩"
    assert visible("zero\u200bwidth \u202e") == "zero⟨U+200B⟩width ⟨U+202E⟩"
    assert visible("\x00\x1b") == "⟨U+0000⟩⟨U+001B⟩"
    assert visible("Größe, Привет, ñ, “quoted” – …, \ufffd") == "Größe, Привет, ñ, “quoted” – …, \ufffd"


@given(st.text())
def test_visible_text_is_printable_and_stays(text):
    shown = visible(text)
    assert all(character == "\n" or printable(character) for character in shown)
    assert visible(shown) == shown


def test_values_inside_structures():
    assert visible_everywhere({"a": ["🙂", 1, None], "b": ("x", {"c": "日"})}) == {
        "a": ["⟨U+1F642⟩", 1, None],
        "b": ["x", {"c": "⟨U+65E5⟩"}],
    }


def test_tokens_and_excerpts():
    assert token_text(b" the\n") == "␣the↵"
    assert token_text(b"\xe2\x82") == "\\xe2\\x82"
    assert excerpt("one two three", 9) == ("one two", True)
    assert excerpt("short", 9) == ("short", False)
    assert excerpt("o" * 20, 5) == ("ooooo", True)
