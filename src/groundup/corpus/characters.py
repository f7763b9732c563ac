"""The characters of a batch of texts: its UTF-8 bytes in one buffer, and of each byte what kind of character it is.

Words, lines and the measures of the filters all start from here, so that every text is looked at byte by byte only once
and by numpy alone.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa

# Kinds of characters. Those below `_PUNCTUATION` stand in words, the others between them.
SPACE = 0
MARK = 1  # combining marks, format and control characters, and what Unicode does not know
LOWER = 2  # letters of lower case or of none
UPPER = 3
DIGIT = 4  # numerals of any script
ALONE = 5  # letters of scripts that write no spaces between words: each is a word
CLINGING = 6  # marks of these scripts, which stay with their letter
_PUNCTUATION = 7
PLAIN = 7  # ( ) [ ] { } ; _ # & and the like
STAR = 8
COMMA = 9
RELATION = 10  # : < >
EQUALS = 11
SLASH = 12
HYPHEN = 13  # - and ~, which stay at the edge of a word
DASH = 14
QUOTE = 15
APOSTROPHE = 16
DOT = 17
ELLIPSIS = 18
TERMINAL = 19  # ends a sentence: ! ? and their kin in other scripts
UNIT = 20  # % and currency signs
PLUS = 21
CARET = 22
ICON = 23  # pictures and other symbols that are no part of a word
OTHER = 24  # \ | @ and mathematical signs: part of the word they stand in
KINDS = 25

IN_WORD = (np.arange(KINDS) > SPACE) & (np.arange(KINDS) < _PUNCTUATION)
ALPHABETIC = np.isin(np.arange(KINDS), (LOWER, UPPER, ALONE))

_ASCII = {
    SPACE: "\t\n\v\f\r\x1c\x1d\x1e\x1f ",
    PLAIN: "()[]{};_#&`",
    STAR: "*",
    COMMA: ",",
    RELATION: ":<>",
    EQUALS: "=",
    SLASH: "/",
    HYPHEN: "-~",
    QUOTE: '"',
    APOSTROPHE: "'",
    DOT: ".",
    TERMINAL: "!?",
    UNIT: "%$",
    PLUS: "+",
    CARET: "^",
    OTHER: "\\|@",
}
# Characters with Unicode's property Sentence_Terminal in the scripts that are written today; the ASCII ones are above.
_TERMINAL = (
    "\u203c\u203d\u2047\u2048\u2049\u2e2e\u3002\ufe52\ufe56\ufe57\uff01\uff0e\uff1f\uff61"  # Latin, Chinese, Japanese
    "\u0589\u061d\u061e\u061f\u06d4\u0700\u0701\u0702\u07f9\u0964\u0965\u104a\u104b"  # Armenian to Burmese
    "\u1362\u1367\u1368\u166e\u17d4\u17d5\u1803\u1809\u1944\u1945\u1c3b\u1c3c\u1c7e\u1c7f"  # Ethiopic to Ol Chiki
    "\u1735\u1736\u1b5a\u1b5b\u1b5e\u1b5f\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f\ua9c8\ua9c9"
    "\uaa5d\uaa5e\uaa5f\uaaf0\uaaf1\uabeb"
)
_SPACES = "\u0f0b\u0f0c"  # the tsheg, which divides Tibetan syllables
# Han with its extensions and kana, Thai, Lao, Burmese, Khmer.
_ALONE = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x19E0, 0x19FF), (0x2E80, 0x2FDF), (0x3005, 0x3007),
    (0x3021, 0x3029), (0x3031, 0x30FF), (0x3100, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x9FFF),
    (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFD),
)  # fmt: skip
_BY_CATEGORY = {"Lu": UPPER, "Lt": UPPER, "Pd": DASH, "Pi": QUOTE, "Pf": QUOTE, "Sc": UNIT, "So": ICON, "Sm": OTHER}
_BY_CLASS = {"L": LOWER, "M": MARK, "N": DIGIT, "P": PLAIN, "S": OTHER, "Z": SPACE}

_LEFT = 8  # line ends before the first text, so that eight bytes before any place can be read
_RIGHT = 16  # and after the last


def _ascii_kinds() -> bytes:
    """The kind of each byte; that of a byte beyond ASCII is MARK until its character is known."""
    kinds = np.full(256, MARK, np.uint8)
    kinds[ord("0") : ord("9") + 1] = DIGIT
    kinds[ord("A") : ord("Z") + 1] = UPPER
    kinds[ord("a") : ord("z") + 1] = LOWER
    for kind, characters in _ASCII.items():
        kinds[list(characters.encode())] = kind
    return kinds.tobytes()


_ASCII_KINDS = _ascii_kinds()


@cache
def kinds_of_characters() -> np.ndarray:
    """uint8 [0x110000]: the kind of every code point, by its category in Python's Unicode tables."""
    kinds = np.full(0x110000, MARK, np.uint8)
    kinds[:128] = np.frombuffer(_ASCII_KINDS, np.uint8)[:128]
    spaceless = {code for first, last in _ALONE for code in range(first, last + 1)}
    for code in range(128, 0x40000):
        category = unicodedata.category(chr(code))
        found = _BY_CATEGORY.get(category, _BY_CLASS.get(category[0], MARK))
        if code in spaceless and category[0] in "LM":
            found = ALONE if category[0] == "L" else CLINGING
        kinds[code] = found
    kinds[0x85] = SPACE
    kinds[[ord(character) for character in _TERMINAL]] = TERMINAL
    kinds[[ord(character) for character in _SPACES]] = SPACE
    kinds[0x2019] = APOSTROPHE
    kinds[0x2026] = ELLIPSIS
    kinds.flags.writeable = False  # every caller has the same array
    return kinds


@cache
def _lower_letters() -> np.ndarray:
    """uint32 [0x20000]: of every code point its lower case where that takes as many bytes, else itself."""
    lower = np.arange(0x20000, dtype=np.uint32)
    for code in range(128, 0x20000):
        small = chr(code).lower()
        if len(small) == 1 and len(small.encode("utf-8", "replace")) == len(chr(code).encode("utf-8", "replace")):
            lower[code] = ord(small)
    lower.flags.writeable = False
    return lower


@dataclass(frozen=True)
class Characters:
    """The texts of a batch as one UTF-8 buffer, with a line end before, between and after them.

    All offsets into it are in bytes. A character of several bytes has its kind at each of them.

    Args:
        data: the buffer, N bytes.
        starts, ends: int64 [n], where each of the n texts begins and ends in it.
        leads: int64 [m], where the m characters beyond ASCII begin, in their order.
        kinds: uint8 [N], the kind of character (one of this module's constants) that each byte belongs to.
    """

    data: bytes
    starts: np.ndarray
    ends: np.ndarray
    leads: np.ndarray
    kinds: np.ndarray

    @cached_property
    def octets(self) -> np.ndarray:
        """uint8 [N]: the buffer as numbers."""
        return np.frombuffer(self.data, np.uint8)

    @cached_property
    def eights(self) -> np.ndarray:
        """uint64 [N − 7]: the eight bytes from each place on, the first the lowest."""
        return np.ndarray((len(self.data) - 7,), "<u8", self.data, 0, (1,))

    @cached_property
    def extra(self) -> np.ndarray:
        """int64 [m]: bytes beyond the first of each character beyond ASCII."""
        return extra_bytes(self.octets[self.leads])

    @cached_property
    def small(self) -> bytes:
        """The buffer with its ASCII letters in lower case."""
        return self.data.lower()

    @cached_property
    def lower(self) -> Characters:
        """The same texts in lower case; letters whose lower case takes more or fewer bytes stay as they are."""
        small = bytearray(self.small)
        _write_lower(np.frombuffer(small, np.uint8), self.leads, self.extra, _code_points(self.octets, self.leads))
        return Characters(bytes(small), self.starts, self.ends, self.leads, self.kinds)

    def lengths(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """int64 [k]: how many characters stand between `starts` and `ends`, int64 [k] each in ascending order."""
        if not len(self.leads):
            return np.asarray(ends - starts)
        before = np.concatenate(([0], np.cumsum(self.extra)))
        inside = before[np.searchsorted(self.leads, ends)] - before[np.searchsorted(self.leads, starts)]
        return np.asarray(ends - starts - inside)


def find_characters(texts: pa.LargeStringArray) -> Characters:
    """Lay the texts out for all that follows. `texts` has no nulls."""
    _, bounds, letters = texts.buffers()
    offsets = np.zeros(1, np.int64)  # no texts may come without bounds
    if len(texts):
        offsets = np.frombuffer(bounds, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    view = memoryview(letters or b"")
    pieces = [view[start:end] for start, end in pairwise(offsets.tolist())]
    data = b"\n".join([b"\n" * (_LEFT - 1), *pieces, b"\n" * (_RIGHT - 1)])
    starts = offsets[:-1] - offsets[0] + np.arange(_LEFT, len(texts) + _LEFT)
    ends = starts + np.diff(offsets)
    kinds = np.frombuffer(bytearray(data.translate(_ASCII_KINDS)), np.uint8)
    leads = np.flatnonzero(np.frombuffer(data, np.uint8) >= 0xC0)
    if len(leads):
        _write_kinds(kinds, np.frombuffer(data, np.uint8), leads)
    return Characters(data, starts, ends, leads, kinds)


def extra_bytes(first: np.ndarray) -> np.ndarray:
    """int64: how many bytes follow a character's first one, uint8."""
    return (first >= 0xC0).astype(np.int64) + (first >= 0xE0) + (first >= 0xF0)


def _code_points(data: np.ndarray, leads: np.ndarray) -> np.ndarray:
    """int32 [m]: the code points of the characters that begin at `leads`."""
    first = data[leads].astype(np.int32)
    second = data[leads + 1].astype(np.int32) & 0x3F
    codes = (first & 0x1F) << 6 | second
    long = np.flatnonzero(first >= 0xE0)
    third = data[leads[long] + 2].astype(np.int32) & 0x3F
    codes[long] = (first[long] & 0x0F) << 12 | second[long] << 6 | third
    longest = np.flatnonzero(first >= 0xF0)
    if len(longest):
        third, fourth = (data[leads[longest] + step].astype(np.int32) & 0x3F for step in (2, 3))
        codes[longest] = (first[longest] & 0x07) << 18 | second[longest] << 12 | third << 6 | fourth
    return np.asarray(codes)


def _write_kinds(kinds: np.ndarray, data: np.ndarray, leads: np.ndarray) -> None:
    """Set the kinds of the characters beyond ASCII at each of their bytes."""
    found = kinds_of_characters()[_code_points(data, leads)]
    extra = extra_bytes(data[leads])
    kinds[leads] = found
    for step in (1, 2, 3):
        reach = extra >= step
        kinds[leads[reach] + step] = found[reach]


def _write_lower(data: np.ndarray, leads: np.ndarray, extra: np.ndarray, codes: np.ndarray) -> None:
    """Write the lower case of the characters beyond ASCII over them."""
    cased = np.flatnonzero(codes < 0x20000)
    small = _lower_letters()[codes[cased]]
    changed = small != codes[cased]
    leads, extra, small = leads[cased][changed], extra[cased][changed], small[changed]
    for step in range(4):  # from the last byte, which holds the lowest six bits
        reach = extra >= step
        place, left = leads[reach] + extra[reach] - step, extra[reach] == step
        bits = small[reach] >> (6 * step)
        head = np.array([0, 0xC0, 0xE0, 0xF0])[extra[reach]]
        data[place] = np.where(left, head | bits, 0x80 | (bits & 0x3F))
