"""One clean form of every text: encoding damage repaired, Unicode NFC, no control characters, plain white space.

What a text needs is found before it is touched: a few searches for bytes and one look at its characters beyond ASCII
tell, at some 150 MB a second, which steps could change it; the others are left out. Cleaning ends when no step changes
the text any more, so it is idempotent.

Encoding damage (mojibake) is repaired by ftfy (Speer 2019, "ftfy", doi:10.5281/zenodo.2591652), line by line. Nothing
else that ftfy offers is used: entities as "&lt;" stay, since in programs and their documents they are meant, and those
of pages were decoded at extraction; curly quotes, ligatures and wide letters are no damage.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from typing import NamedTuple

import ftfy
import numpy as np
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES

from groundup.corpus.gutenberg import strip_gutenberg
from groundup.corpus.text import mend_surrogates, normalise

LONGEST_MARKS = 255  # combining marks in a row; normalising takes time by the square of their number
_ROUNDS = 64  # more than any text needs

_ENCODING_ONLY = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    fix_surrogates=False,
    remove_control_chars=False,
    normalization=None,
    explain=False,
)
_MOJIBAKE = re.compile(BADNESS_RE.pattern, re.VERBOSE | re.MULTILINE)  # ftfy's own test, for many lines at once
_AROUND = 8  # code units before and after a character within which any match that holds it lies

# What a character beyond ASCII may call for.
_BESIDE, _ALONE = 1, 2  # found in mojibake and little elsewhere: beside another such character, or wherever it stands
_MARK = 4  # combining mark
_UNSTABLE = 8  # may not stand so in NFC
_STRAY = 16  # `normalise` removes it or makes it a newline
_STRAYS = "[\x80-\x9f\u2028\u2029\ufdd0-\ufdef\ufeff\ufff9-\ufffc\ufffe\uffff]"
_SURROGATE = 32  # half of a character beyond U+FFFF
_SIGNS = (
    "bad", "upper_accented", "start_punctuation", "end_punctuation", "currency", "numeric", "law", "box",
)  # fmt: skip

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_UNWANTED = bytes(code for code in range(32) if code not in b"\t\n") + b"\x7f"
_TERMINAL = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b\n]*(?:\x07|\x1b\\\\)|[@-Z\\\\^_])")  # ECMA-48
_FIXED_SPACES = "\xa0\u2007\u202f"
_BLANK_LINES = re.compile("\n\n\n\n+")
_EDGES = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + "\u200b\u2060\ufeff"


class Cleaned(NamedTuple):
    """A clean text, and what was done for it, each named once.

    Edits are "encoding" (mojibake, surrogates, characters not in NFC), "controls" (control characters, terminal
    escapes, byte order marks), "white_space" (line ends, blanks at line ends and edges, fixed spaces, more than two
    blank lines) and "gutenberg" (headers and licences of Project Gutenberg).
    """

    text: str
    edits: tuple[str, ...]


def clean(text: str) -> Cleaned:
    """The text in its one clean form; pure and idempotent.

    Tabs and indentation stay, for programs, and so do up to two blank lines in a row.
    """
    edits: dict[str, None] = {}
    for _ in range(_ROUNDS):
        for edit, changed, again in _changes(text):
            if changed != text:
                edits[edit] = None
                text = changed
                if again:
                    break
        else:
            break
    return Cleaned(text, tuple(edits))


def _changes(text: str) -> Iterator[tuple[str, str, bool]]:
    """The edits that a text may call for, each with the text after it, which may be the same as before.

    The third value says that after this edit all tests are to be made again. Otherwise what follows takes it into
    account, and it can't call for what came before: plain white space brings no two characters together.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError:
        yield "encoding", mend_surrogates(text), True
        return
    flags, places = 0, np.empty(0, np.int64)
    if len(data) != len(text):
        found = look_beyond_ascii(text)
        flags, places = found.flags, suspects(found)
        if has_long_marks(found):
            yield "controls", _with_short_marks(text), True
        if len(places) and may_be_mojibake(found, places):  # while fixed spaces, which may be part of it, still stand
            yield "encoding", repair_encoding(text, found, places), True
    if b"\r" in data or has_loose_space(text, data):
        text = plain_spaces(text)
        data = text.encode()
        yield "white_space", text, len(places) > 0
    if len(data.translate(None, _UNWANTED)) != len(data):
        yield "controls", _without_controls(text), True
    if flags & _STRAY:
        yield "controls", normalise(text), True
    if flags & _UNSTABLE:
        yield "encoding", unicodedata.normalize("NFC", text), True
    if b"GUTENBERG" in data or b"Gutenberg" in data:
        yield "gutenberg", strip_gutenberg(text), True


def has_loose_space(text: str, data: bytes) -> bool:
    """Whether `plain_spaces` would change a text without carriage returns, `data` in UTF-8."""
    return (
        b" \n" in data
        or (b"\t" in data and b"\t\n" in data)
        or b"\n\n\n\n" in data
        or text[:1] in _EDGES
        or text[-1:] in _EDGES
        or any(space in text for space in _FIXED_SPACES)
    )


def plain_spaces(text: str) -> str:
    """One kind of newline and of space, no blanks at line ends and edges, and one blank line for more than two."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    for space in _FIXED_SPACES:
        text = text.replace(space, " ")
    text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    return _BLANK_LINES.sub("\n\n", text).strip(_EDGES)


def _without_controls(text: str) -> str:
    """The text without ASCII's control characters and terminal escapes; those of C1 may be mojibake, and stay."""
    return _CONTROLS.sub("", _TERMINAL.sub("", text.replace("\v", "\n").replace("\f", "\n")))


class Beyond(NamedTuple):
    """What stands beyond ASCII in a text: m code units of UTF-16, and k of them that may call for an edit.

    Args:
        units: uint16 [m + 1], the text in UTF-16 and a zero.
        places: int64 [k], where those k stand.
        kinds: uint8 [k], of each the kinds (`_BESIDE`, `_ALONE`, `_MARK`, `_UNSTABLE`, `_STRAY`, `_SURROGATE`).
        flags: all kinds that occur.
    """

    units: np.ndarray
    places: np.ndarray
    kinds: np.ndarray
    flags: int


def look_beyond_ascii(text: str) -> Beyond:
    """Find the characters of a text, which has no lone surrogates, that may call for an edit."""
    units = np.frombuffer(text.encode("utf-16-le") + b"\0\0", "<u2")
    places = np.flatnonzero(units >= 0x80)
    kinds = _kinds_of_units()[units[places]]
    of_interest = np.flatnonzero(kinds)
    kinds = kinds[of_interest]
    return Beyond(units, places[of_interest], kinds, int(np.bitwise_or.reduce(kinds, initial=0)))


def suspects(found: Beyond) -> np.ndarray:
    """int64 [s]: where characters stand without which ftfy takes no line for mojibake.

    What it takes for mojibake holds a C1 control, an "Œ", "œ", "Â" or "Ã", or one of some 200 signs and capitals beside
    another character beyond ASCII. Ordinary text has few of these.
    """
    if not found.flags & (_BESIDE | _ALONE):
        return found.places[:0]
    units, places = found.units, found.places
    beside = (units[places - 1] >= 0x80) | (units[places + 1] >= 0x80)
    suspicious = (found.kinds & _ALONE > 0) | ((found.kinds & _BESIDE > 0) & beside)
    return np.asarray(places[suspicious])


def may_be_mojibake(found: Beyond, places: np.ndarray) -> bool:
    """False only for a text in which ftfy would change no line: its own, slow test of what stands around `places`."""
    if len(places) * 2 * _AROUND > len(found.units):
        around = found.units.tobytes()
    else:
        pieces = [found.units[max(0, place - _AROUND) : place + _AROUND].tobytes() for place in places.tolist()]
        around = b"\n\0".join(pieces)
    return _MOJIBAKE.search(around.decode("utf-16-le", "ignore")) is not None


def repair_encoding(text: str, found: Beyond, places: np.ndarray) -> str:
    """The text with mojibake decoded as it should have been, by ftfy; `places` are its `suspects`."""
    lines = text.split("\n")
    ends = np.flatnonzero(found.units == ord("\n"))
    for number in np.unique(np.searchsorted(ends, places)).tolist():
        end = "\n" if number < len(ends) else ""
        lines[number] = ftfy.fix_text(lines[number] + end, _ENCODING_ONLY).removesuffix(end)
    return "\n".join(lines)


def has_long_marks(found: Beyond) -> bool:
    """False only for a text without more combining marks in a row than `LONGEST_MARKS`."""
    places = found.places[found.kinds & (_MARK | _SURROGATE) > 0]
    return bool((places[LONGEST_MARKS:] - places[:-LONGEST_MARKS] == LONGEST_MARKS).any())


def _with_short_marks(text: str) -> str:
    """The text with at most `LONGEST_MARKS` combining marks in a row."""
    runs = (
        (marks, "".join(run)) for marks, run in groupby(text, lambda character: unicodedata.combining(character) > 0)
    )
    return "".join(run[:LONGEST_MARKS] if marks else run for marks, run in runs)


@cache
def _kinds_of_units() -> np.ndarray:
    """uint8 [0x10000]: the kinds of each code unit of UTF-16.

    A character is stable in NFC, whatever stands before it, if it is no combining mark, is its own normal form and is
    the second part of no other (UAX #15, the property NFC_Quick_Check). Of characters beyond U+FFFF that isn't asked.
    """
    kinds = np.zeros(0x10000, np.uint8)
    kinds[0xD800:0xE000] = _SURROGATE | _UNSTABLE
    characters = "".join(map(chr, (*range(0x80, 0x3400), *range(0xA000, 0xAC00), *range(0xE000, 0x10000))))
    signs = "".join(MOJIBAKE_CATEGORIES[name] for name in _SIGNS)
    for kind, pattern in (_BESIDE, f"[{signs}°ØÙЂ]"), (_ALONE, "[\x80-\x9fŒœÂÃ]"), (_STRAY, _STRAYS):
        for character in re.findall(pattern, characters):
            kinds[ord(character)] |= kind
    for character in characters:
        if unicodedata.combining(character):
            kinds[ord(character)] |= _MARK | _UNSTABLE
        if not unicodedata.is_normalized("NFC", character):
            kinds[ord(character)] |= _UNSTABLE
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            kinds[int(parts[1], 16)] |= _UNSTABLE
    kinds[0x1161:0x1176] |= _UNSTABLE  # Hangul's vowels and finals, which compose by rule
    kinds[0x11A8:0x11C3] |= _UNSTABLE
    return kinds
