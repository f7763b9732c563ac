"""Pages that would cost a parser far more time or memory than their size lets expect.

Thousands of nested or unclosed tags do, or one tag with ten thousand attributes; so what a page may hold is bounded by
the constants below.
"""

from __future__ import annotations

import numpy as np

MOST_TAGS = 1_000_000
DEEPEST = 4_000  # elements open at once; the time is as the square of the depth, here a quarter of a second
MOST_REOPENED = 1_000_000  # unclosed formatting × tags: each is opened again in every block, of 400 bytes each
LONGEST_TAG = 2**16  # bytes up to ">" …
MOST_ATTRIBUTES = 5_000  # … in which so many attributes may stand: each is compared with each
_SUSPECT_TAGS, _SUSPECT_UNCLOSED = 20_000, 1_000  # pages with no more are not read tag by tag


def _numbers(names: str) -> list[int]:
    """Names of elements as numbers, of eight letters each; what is no element ("<!--", "< ") has the number 0."""
    return [int.from_bytes(name.encode()[:8], "little") for name in names.split()]


# Letters and digits as in names, in lower case; any other byte is 0.
_IN_NAMES = bytes(byte | 0x20 if chr(byte).isalnum() and byte < 128 else 0 for byte in range(256))
_NEVER_NESTED = _numbers(
    "area base br col embed hr img input link meta param source track wbr a p li dt dd tr td th thead tbody tfoot "
    "option optgroup html head body path rect circle line polygon polyline ellipse use stop"
) + [0]
_FORMATTING = _numbers("b big code em font i nobr s small strike strong tt u")


def is_too_complex(data: bytes) -> bool:
    """True for a page that would cost a parser far more time or memory than its size lets expect.

    All tags are counted; only where they are many, or many more open than close, are they read one by one.
    """
    characters = np.frombuffer(data, np.uint8)
    begins = characters[:-1] == ord("<")
    tags = np.count_nonzero(begins)
    if tags > MOST_TAGS:
        return True
    has_gap = _has_gap(data)
    if tags <= _SUSPECT_UNCLOSED and not has_gap:
        return False
    opened = np.flatnonzero(begins)
    closing = characters[opened + 1] == ord("/")
    unclosed = tags - 2 * np.count_nonzero(closing)
    many = tags > _SUSPECT_TAGS or unclosed > _SUSPECT_UNCLOSED
    if many and _is_nested(np.frombuffer(data + bytes(16), np.uint8), opened, closing):
        return True
    for start in opened[np.diff(opened, append=len(data)) > LONGEST_TAG].tolist() if has_gap else ():
        end = data.find(b">", start)
        tag = data[start : end if end >= 0 else len(data)]
        if len(tag) > LONGEST_TAG and tag[1:2].isalpha() and len(tag.split()) > MOST_ATTRIBUTES:
            return True
    return False


def _has_gap(data: bytes) -> bool:
    """Whether `LONGEST_TAG` bytes may stand between one "<" and the next; False is certain."""
    place = 0
    while place + LONGEST_TAG < len(data):
        following = data.rfind(b"<", place + 1, place + LONGEST_TAG)
        if following < 0:
            return True
        place = following
    return False


def _is_nested(characters: np.ndarray, opened: np.ndarray, closing: np.ndarray) -> bool:
    """Whether more elements than `DEEPEST` are open at once, or formatting runs on through too many tags.

    Args:
        characters: uint8 [n + 16], the page and zeros.
        opened: int64 [t], where each "<" stands; closing: bool [t], whether "/" follows it.
    """
    starts = opened + 1 + closing
    eights = np.ndarray(len(characters) - 7, "<u8", characters, strides=(1,))  # the eight bytes from every place on
    letters = np.frombuffer(eights[starts].tobytes().translate(_IN_NAMES), "<u8")
    others = (letters.view(np.uint8) == 0).view("<u8")
    names = letters & ((others & -others) - 1)  # the letters before the first byte that is none
    nested = ~np.isin(names, _NEVER_NESTED)
    reopened = 0
    formatting = np.flatnonzero(np.isin(names, _FORMATTING))
    names, ending = names[formatting], closing[formatting]
    # Of formatting without attributes a parser opens only three of a kind again.
    behind = starts[formatting] + np.count_nonzero(names.view(np.uint8).reshape(-1, 8), axis=1)
    counts = ending | np.isin(characters[behind], list(b" \t\n\f\r/"))
    for name in _FORMATTING:
        reopened += _most_open(ending[(names == name) & counts])
    return _most_open(closing[nested]) > DEEPEST or reopened * len(opened) > MOST_REOPENED


def _most_open(closing: np.ndarray) -> int:
    """The greatest number of elements open at once, of tags that open or close one; bool [t]."""
    level = np.cumsum(np.where(closing, -1, 1))
    return int((level - np.minimum.accumulate(np.minimum(level, 0))).max(initial=0))
