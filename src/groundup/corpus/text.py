"""Bytes to clean text: decoding that never fails, normalisation, passages, and the digest of a document."""

import codecs
import hashlib
import re
import unicodedata
from typing import NamedTuple

_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_NEWLINES = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
# Control characters other than tab and newline, the byte order mark, and Unicode's "not a character" code
# points.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ufdd0-\ufdef\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"\n|(?<=[.!?。！？])\s+")
_SPACE = re.compile(r"\s+")
_WIDE_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
               (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip


class Decoded(NamedTuple):
    """Text and how it was read: "utf-8", "utf-8-repaired", "utf-16", "utf-32", "cp1252" or "latin-1"."""

    text: str
    encoding: str


def is_wide(head: bytes) -> bool:
    """True when the first four bytes of a file announce UTF-16 or UTF-32."""
    return any(head.startswith(mark) for mark, _ in _WIDE_MARKS)


def decode(data: bytes) -> Decoded:
    """Decode bytes of unknown origin; never raises.

    UTF-8 (with or without a byte order mark) comes first. Bytes that are not UTF-8 throughout are still UTF-8
    with damage when they hold more well-formed multi-byte characters than bad bytes: the bad ones become
    U+FFFD. Otherwise they are Windows-1252, or Latin-1 where they use one of the five codes that 1252 leaves
    empty.
    """
    for mark, name in _WIDE_MARKS:
        if data.startswith(mark):
            return Decoded(data.decode(name, "replace"), name)
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        pass
    repaired = data.decode("utf-8", "replace")
    bad = repaired.count("\ufffd") - data.count("\ufffd".encode())
    if len(_MULTIBYTE.findall(data)) > bad:
        return Decoded(repaired, "utf-8-repaired")
    try:
        return Decoded(data.decode("cp1252"), "cp1252")
    except UnicodeDecodeError:
        return Decoded(data.decode("latin-1"), "latin-1")


def looks_binary(data: bytes) -> bool:
    """True for bytes that are text in no encoding: a NUL, or one control code in ten, in the first 4 KiB."""
    head = data[:4096]
    if is_wide(head):
        return False
    controls = sum(byte < 32 and byte not in (9, 10, 11, 12, 13, 27) for byte in head)
    return b"\0" in head or controls * 10 > len(head)


def mend_surrogates(text: str) -> str:
    """Join surrogate pairs (JSON escapes give them) into characters; a lone surrogate becomes U+FFFD."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def normalise(text: str) -> str:
    """The one form of a text: NFC, newlines as "\\n", no control characters, no blank edges.

    It is idempotent, and a pure function, so that equal texts from different files meet in deduplication.
    """
    text = mend_surrogates(text)
    text = _CONTROLS.sub("", _NEWLINES.sub("\n", text))
    return unicodedata.normalize("NFC", text).strip()


def digest(text: str) -> bytes:
    """16 bytes of BLAKE2b over the UTF-8 text: the identity of a document."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def split_position(identity: bytes) -> float:
    """Where a document stands in [0, 1), from its digest alone: below `validation_fraction` is validation."""
    return int.from_bytes(identity[:6], "big") / 2**48  # 48 bits are exact in a double, and below 1


def passages(text: str, limit: int) -> list[str]:
    """Cut a text of more than `limit` characters into pieces of at most `limit`, of about equal size.

    A cut falls on the paragraph border (blank line) nearest to an even division; where a stretch has none, on
    a line or sentence end; then on a space; then anywhere. A pure function of the text and the limit. Nothing
    is lost but the white space at the cuts.
    """
    pieces: list[str] = []
    start = 0
    while len(text) - start > limit:
        remaining = len(text) - start
        ideal = remaining / -(-remaining // limit)
        end, following = _cut(text, start, start + int(ideal), start + limit)
        pieces.append(text[start:end].strip())
        start = following
    pieces.append(text[start:].strip())
    return [piece for piece in pieces if piece]


def _cut(text: str, start: int, ideal: int, last: int) -> tuple[int, int]:
    """(end of this piece, start of the next) at the best border from half the ideal to `last`."""
    first = start + max(1, (ideal - start) // 2)
    for border in (_PARAGRAPH, _SENTENCE, _SPACE):
        found = [match.span() for match in border.finditer(text, first, last)]
        if found:
            return min(found, key=lambda span: (abs(span[0] - ideal), span[0]))
    return max(start + 1, ideal), max(start + 1, ideal)
