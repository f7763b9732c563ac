"""Bytes to clean text: decoding that never fails, normalisation, passages, and the digest of a document."""

import codecs
import hashlib
import re
import unicodedata
from typing import NamedTuple

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_NEWLINES = re.compile("[\r\v\f\x85\u2028\u2029]")
# Control characters other than tab and newline, the byte order mark, what stands for objects and annotations, and
# Unicode's "not a character" code points.
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufeff\ufff9-\ufffc\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"\n|(?<=[.!?。！？])\s+")
_SPACE = re.compile(r"\s+")
_CONTROL_BYTES = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_HIGH_BYTES = bytes(range(128, 256))
_HIGH = re.compile(rb"[\x80-\xff]")
# What may be asked of Python's `codecs`, which also knows "rot13", "hex", "idna" and "unicode_escape".
_CHARSET = re.compile(
    r"(utf-?(8|16|32)|iso-?8859|cp[0-9]|windows-?12|koi8|big5|gb|euc|shift|mac|tis|hz|iso-?2022|johab|ascii)[\w.:-]*"
)
_SUPERSETS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-13": "cp1257", "iso8859-11": "cp874",
    "tis-620": "cp874", "koi8-r": "koi8-u", "mac-cyrillic": "cp1251", "shift_jis": "cp932", "euc_kr": "cp949",
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "utf-16": "utf-16-le", "utf-32": "utf-32-le",
}  # fmt: skip
_MULTI_BYTE = frozenset(("cp932", "euc_jp", "iso2022_jp", "gb18030", "hz", "big5hkscs", "cp949"))
_BELIEVED = _MULTI_BYTE | frozenset(
    ("cp1251", "koi8-u", "iso8859-5", "cp866", "cp1253", "iso8859-7", "cp1255", "iso8859-8", "cp1256", "iso8859-6",
     "cp874", "cp1250", "iso8859-2", "iso8859-16", "cp1254", "cp1257", "cp1258")
)  # fmt: skip
# Sets that agree in most letters. Windows's use codes that are controls in ISO's. Of the Greek ones, one has "Ά" before
# a letter, or "µ", where the other has an apostrophe after a letter and a lone accent.
_WINDOWS = {"iso8859-2": "cp1250", "iso8859-6": "cp1256", "iso8859-7": "cp1253", "iso8859-8": "cp1255"}
_C1 = re.compile(rb"[\x80-\x9f]")
_GREEK = re.compile(
    rb"(?P<cp1253>(?<![\xb8-\xfe])\xa2(?=[\xdc-\xfe])|\xb5(?=[\xdc-\xfe]))"
    rb"|(?P<iso8859_7>(?<![\xb8-\xfe])\xb6(?=[\xdc-\xfe])|(?<=[\xc1-\xfe])\xa2)"
)
_EVIDENCE = 4  # bytes beyond ASCII that a guess at the character set needs
_SAMPLE = 128 * 2**10  # bytes looked at to tell a character set
_WIDE_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
               (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip


class Decoded(NamedTuple):
    """Text and how it was read: "utf-8", "utf-8-repaired" or the name of Python's codec, as "cp1252"."""

    text: str
    encoding: str


def is_wide(head: bytes) -> bool:
    """True when the first four bytes of a file announce UTF-16 or UTF-32."""
    return wide_encoding(head) is not None


def wide_encoding(head: bytes) -> str | None:
    """ "utf-16" or "utf-32" where the first four bytes of a file announce it."""
    return next((name for mark, name in _WIDE_MARKS if head.startswith(mark)), None)


def decode(data: bytes, declared: str | None = None, *, begins: bool = True) -> Decoded:
    """Decode bytes of unknown origin; never raises.

    Args:
        declared: the character set that a server, a page or the rest of the file gives; tried after UTF-8, which
            bytes hardly ever are by chance.
        begins: the bytes are a text's first ones, so that a byte order mark may come before them.

    UTF-8 (with or without a byte order mark) comes first. Bytes that are not UTF-8 throughout are still UTF-8
    with damage when they hold more well-formed multi-byte characters than bad bytes: the bad ones become
    U+FFFD. Else the `declared` set is taken where all bytes are valid in it, then the one that `legacy_encoding`
    finds. What is left is Windows-1252, or Latin-1 where it uses one of the five codes that 1252 leaves empty.
    """
    if begins:
        wide = wide_encoding(data)
        if wide is not None:
            return Decoded(data.decode(wide, "replace"), wide)
        data = data.removeprefix(codecs.BOM_UTF8)
    codec = codec_of(declared)
    if codec in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be") and b"\0" in data:
        return Decoded(data.decode(codec, "replace"), codec)
    if b"\x1b" in data and b"\x1b$" in data:  # ISO-2022-JP is valid ASCII, with escape sequences
        japanese = _decode_as(data, "iso2022_jp")
        if japanese is not None:
            return japanese
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        pass
    repaired = data.decode("utf-8", "replace")
    replaced, own = repaired.count("\ufffd"), data.count("\ufffd".encode())
    sound = len(repaired) - replaced + own - (len(data) - _high_bytes(data))  # characters of several bytes
    if sound > replaced - own:
        return Decoded(repaired, "utf-8-repaired")
    return (
        _decode_as(data, codec)
        or _decode_as(data, legacy_encoding(data))
        or _decode_as(data, "cp1252")
        or Decoded(data.decode("latin-1"), "latin-1")
    )


def codec_of(charset: str | None) -> str | None:
    """Python's codec of text for the name of a character set as found in the wild, None for an unknown one.

    As browsers do, and the WHATWG's Encoding Standard prescribes, a set stands for the superset that its users
    mean: Latin-1 for Windows-1252, GB2312 for GB18030, Shift JIS for Windows-31J.
    """
    if not charset:
        return None
    label = charset.strip(" \t\"'").lower()
    name = map_encoding_to_html5(label, fallback_utf8=False) or label
    if not _CHARSET.fullmatch(name):
        return None
    try:
        name = codecs.lookup(name).name
    except LookupError:
        return None
    return _SUPERSETS.get(name, name)


def legacy_encoding(data: bytes) -> str | None:
    """The codec that bytes, not UTF-8, are probably written in; None where they say too little.

    Letters are counted by resiliparse's detector (after Mozilla's universal detector, Li and Momoi 2001, "A
    composite approach to language/encoding detection"), in up to 128 KiB from the first byte that isn't ASCII.
    It takes a Latin text with few accents for any of its dozen sets; only those in use are believed.
    """
    first = _HIGH.search(data)
    if first is None:
        return None
    start = data.rfind(b"\n", 0, first.start()) + 1
    sample = data[max(start, first.start() - 1024) :][:_SAMPLE]
    name = codec_of(detect_encoding(sample, html5_compatible=False))
    if name not in _BELIEVED or _high_bytes(sample) < _EVIDENCE:
        return None
    if name in ("cp1253", "iso8859-7") and (greek := _GREEK.search(sample)):
        return "cp1253" if greek["cp1253"] else "iso8859-7"
    return _WINDOWS.get(name, name) if _C1.search(sample) else name


def _high_bytes(data: bytes) -> int:
    """How many bytes are not ASCII."""
    return len(data) - len(data.translate(None, _HIGH_BYTES))


def _decode_as(data: bytes, name: str | None) -> Decoded | None:
    """The text in that set, None unless all its bytes are valid, but for one damaged character in a thousand."""
    if name is None:
        return None
    try:
        return Decoded(data.decode(name), name)
    except UnicodeDecodeError:
        pass
    if name not in _MULTI_BYTE:
        return None
    text = data.decode(name, "replace")
    return Decoded(text, name) if text.count("\ufffd") * 1000 <= len(text) else None


def looks_binary(data: bytes) -> bool:
    """True for bytes that are text in no encoding: a NUL, or one control code in ten, in the first 4 KiB."""
    head = data[:4096]
    if is_wide(head):
        return False
    controls = len(head) - len(head.translate(None, _CONTROL_BYTES))
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
    text = mend_surrogates(text).replace("\r\n", "\n")
    text = _CONTROLS.sub("", _NEWLINES.sub("\n", text))
    return unicodedata.normalize("NFC", text).strip()


def digest(text: str | memoryview) -> bytes:
    """16 bytes of BLAKE2b over the text in UTF-8: the identity of a document."""
    return hashlib.blake2b(text.encode("utf-8") if isinstance(text, str) else text, digest_size=16).digest()


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
