"""Text from a run made fit for print: what the book's fonts can't show is replaced by its code, visibly."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

# Ranges (first, last) of code points that Libertinus Serif or DejaVu Sans Mono, the fonts inside typst, hold.
# Invisible ones (zero-width and direction marks, separators) are left out, so that they are shown as codes.
_PRINTABLE = (
    (0x20, 0x7E), (0xA0, 0xAC), (0xAE, 0x34E), (0x350, 0x36F), (0x38E, 0x3A1), (0x3A3, 0x3CE), (0x3D0, 0x3E1),
    (0x3F0, 0x477), (0x48C, 0x4C4), (0x4CF, 0x4F9), (0x531, 0x556), (0x561, 0x587), (0x5D0, 0x5EA), (0x621, 0x63A),
    (0x640, 0x655), (0x660, 0x66D), (0x6F0, 0x6F9), (0x10D0, 0x10FC), (0x1D2C, 0x1D2E), (0x1D30, 0x1D3C),
    (0x1D3E, 0x1D5F), (0x1D62, 0x1D65), (0x1D9B, 0x1DB7), (0x1E00, 0x1F15), (0x1F20, 0x1F45),
    (0x1F5F, 0x1F7D), (0x1F80, 0x1FB4), (0x1FB6, 0x1FC4), (0x1FC6, 0x1FD3), (0x1FDD, 0x1FEF), (0x1FF6, 0x1FFE),
    (0x2000, 0x200A), (0x2010, 0x2027), (0x202F, 0x2037), (0x2039, 0x203A), (0x2074, 0x208E), (0x2090, 0x209C),
    (0x20A0, 0x20B5), (0x2153, 0x2184), (0x2190, 0x222E), (0x2234, 0x223D), (0x2241, 0x226B), (0x226D, 0x228B),
    (0x228D, 0x22A5), (0x22DA, 0x22E9), (0x2308, 0x2315), (0x2423, 0x2423), (0x2460, 0x2487), (0x24B6, 0x262F),
    (0x2638, 0x268B), (0x2690, 0x269C), (0x270C, 0x2727), (0x2729, 0x274B), (0x2761, 0x2775), (0x2798, 0x27AF),
    (0x27B1, 0x27BE), (0x27E6, 0x27EB), (0xFFFD, 0xFFFD),
)  # fmt: skip
_FIRSTS = tuple(first for first, _ in _PRINTABLE)


def printable(character: str) -> bool:
    """Whether the book's fonts have a glyph that a reader sees."""
    code = ord(character)
    place = bisect_right(_FIRSTS, code) - 1
    return place >= 0 and code <= _PRINTABLE[place][1]


def visible(text: str) -> str:
    """The text with newlines kept, tabs as spaces, and every other character without a glyph as ``⟨U+1F600⟩``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character == "\n" or printable(character) else _shown(character)
        for character in text.replace("\r\n", "\n").replace("\t", "    ")
    )


def _shown(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"


def visible_everywhere(value: Any) -> Any:
    """A JSON-able value with every string in it made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: visible_everywhere(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible_everywhere(item) for item in value]
    return value


def token_text(content: bytes) -> str:
    """The bytes of one token as readers tell them apart: ``␣`` for a space, ``↵`` for a newline, ``\\xe2`` for a
    piece of a character."""
    text = content.decode("utf-8", "backslashreplace")
    return visible(text.replace(" ", "␣").replace("\n", "↵").replace("\t", "→"))


def excerpt(text: str, limit: int) -> tuple[str, bool]:
    """The beginning of a text, cut at a space, and whether anything was cut."""
    if len(text) <= limit:
        return text, False
    head = text[:limit]
    at = head.rfind(" ", limit // 2)
    return head[: at if at > 0 else limit].rstrip(), True
