"""Archives of crawls: WARC (ISO 28500) and its extracted text, WET; and ARC, their predecessor.

Records are found by our own parser, since real archives hold wrong lengths, missing ends and damaged members, and one
of them must not cost the rest of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from groundup.corpus.readers.common import LONGEST
from groundup.corpus.readers.cursor import Cursor
from groundup.corpus.readers.http import parse_headers

DOCUMENTS = frozenset((b"response", b"resource", b"conversion"))  # kinds of records that may hold one
_HEADER_LIMIT = 2**18  # bytes of one record's header
_BROKEN = 1500  # bytes kept of a broken record
_WARC = re.compile(rb"WARC/[01]\.\d{1,2}\r?\n(?=[A-Za-z][\w-]*+[ \t]*+:)")
_NEXT_WARC = re.compile(rb"(?<=\n)" + _WARC.pattern)
_HEADER_END = re.compile(rb"(?<=\n)\r?\n")
# URL, address of the server, date, media type, (in version 2 five more fields,) length. URLs may hold blanks.
_ARC = re.compile(
    rb"([a-z][a-z0-9+.-]{1,15}:[^\r\n]{1,65000}?) ([^ \r\n]+) (\d{12,18}) ([^ \r\n]+)"
    rb"(?: [^ \r\n]+){0,5} ([^ \r\n]+)\r?\n"
)
_NEXT_ARC = re.compile(rb"(?<=\n)" + _ARC.pattern)
_REACH = 2**16 + 2**10  # bytes in which one of these patterns fits
_LAST_NEWLINES = re.compile(rb"\r?\n\r?\n\Z")


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it stands in the archive, or why it could not be read.

    Args:
        number: among all records of the file, from 1.
        kind: "WARC-Type"; b"response" in ARC.
        type: value of the record's own "Content-Type".
        block: its content.
        reason: why it is refused; `block` is then how it began.
        torn: the file breaks off within it.
    """

    number: int
    kind: bytes = b""
    url: bytes = b""
    type: bytes = b""
    block: bytes = b""
    reason: str = ""
    torn: bool = False


def find_records(cursor: Cursor, *, arc: bool = False) -> Iterator[Record]:
    """The records of an archive, WARC or ARC as its first bytes say (`arc` if they don't), in their order.

    * What stands where a record should begin, and a record without a sound header, is a "broken_record"; the search
      goes on for the next header.
    * A length that does not lead to the end of the record is mended by the next header.
    * Where the file breaks off, the record's beginning comes first (unless it may be altered) and then a
      "damaged_archive". A damaged member of a compressed archive is followed by the next one that can be read.
    """
    head = cursor.peek(_REACH)
    arc = _ARC.match(head) is not None or ((arc or _NEXT_ARC.search(head) is not None) and not _WARC.search(head))
    read = _read_arc if arc else _read_warc
    number = 0
    while True:
        cursor.take_newlines()
        if cursor.peek(1):
            number += 1
            record = read(cursor, number)
            if not record.torn or cursor.damage is None or cursor.damage.sound:
                yield record
            if not record.torn:
                continue
        elif cursor.damage is None:
            return
        else:
            number += 1
        damage = cursor.damage
        reason = damage.reason if damage else "damaged_archive"
        yield Record(number, block=str(damage or "the file ends within the record").encode(), reason=reason)
        if damage is None or not cursor.resume():
            return


def _read_warc(cursor: Cursor, number: int) -> Record:
    """The record here."""
    begin = cursor.peek(_BROKEN)
    if not begin.startswith(b"WARC/"):
        if b"WARC/".startswith(begin):
            return Record(number, block=cursor.take(_BROKEN), torn=True)
        cursor.take(1)
        return _broken(cursor, number, begin, _NEXT_WARC)
    header = cursor.take_until(_HEADER_END, _HEADER_LIMIT, reach=4)
    if header is None:
        rest = cursor.peek(_HEADER_LIMIT)
        if len(rest) < _HEADER_LIMIT and not _NEXT_WARC.search(rest):
            return Record(number, block=cursor.take(_HEADER_LIMIT), torn=True)
        cursor.take(1)
        return _broken(cursor, number, begin, _NEXT_WARC)
    if _NEXT_WARC.search(header):  # this one's header has no end
        cursor.give_back(header[1:])
        return _broken(cursor, number, begin, _NEXT_WARC)
    cursor.take(2 if cursor.peek(1) == b"\r" else 1)
    headers = parse_headers(header)
    kind, url = headers.get(b"warc-type", b"").lower(), headers.get(b"warc-target-uri", b"").strip(b"<> ")
    length = _length(headers.get(b"content-length", b""))
    if length is None:
        return _broken(cursor, number, begin, _NEXT_WARC)
    if length > LONGEST:
        cursor.give_back(b"\n")
        cursor.skip_until(_NEXT_WARC, _REACH)
        return Record(number, kind, url, reason="record_too_long" if kind in DOCUMENTS else "")
    block, whole = _take_block(cursor, length, _NEXT_WARC, 2, _warc_follows)
    return Record(number, kind, url, headers.get(b"content-type", b""), block, torn=not whole)


def _read_arc(cursor: Cursor, number: int) -> Record:
    """The record here."""
    begin = cursor.peek(_REACH)
    header = _ARC.match(begin)
    if header is None:
        if len(begin) < _REACH and b"\n" not in begin:
            return Record(number, block=cursor.take(_REACH), torn=True)
        cursor.take(1)
        return _broken(cursor, number, begin[:_BROKEN], _NEXT_ARC)
    cursor.take(header.end())
    url, kind, size = header.group(1, 4, 5)
    length = _length(size)
    if length is None:
        return _broken(cursor, number, begin[:_BROKEN], _NEXT_ARC)
    if length > LONGEST:
        cursor.give_back(b"\n")
        cursor.skip_until(_NEXT_ARC, _REACH)
        return Record(number, b"response", url, kind, reason="record_too_long")
    block, whole = _take_block(cursor, length, _NEXT_ARC, 1, _arc_follows)
    describes = url.startswith(b"filedesc:")  # the archive itself
    return Record(number, b"warcinfo" if describes else b"response", url, kind, block, torn=not whole)


def _broken(cursor: Cursor, number: int, begin: bytes, following: re.Pattern[bytes]) -> Record:
    """Go on to the next header from here."""
    cursor.give_back(b"\n")  # for it may come at once, and begins a line
    cursor.skip_until(following, _REACH)
    if cursor.damage is not None and not cursor.peek(1):
        return Record(number, torn=True)
    return Record(number, block=begin, reason="broken_record")


def _length(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) < 19 else None


def _take_block(
    cursor: Cursor, length: int, following: re.Pattern[bytes], ending: int, follows: Callable[[Cursor, bytes], bool]
) -> tuple[bytes, bool]:
    """The block of a record, and False where the file breaks off within it.

    Args:
        length: of the block, as the header says.
        following: the next record's header.
        ending: how many newlines end a record at least.
        follows: whether a header, or the end, is what comes next after these bytes.
    """
    block = cursor.take(length)
    short = len(block) < length
    newlines = b"" if short else cursor.take_newlines()
    if not short and follows(cursor, block[-1:] + newlines):
        return block, True
    header = following.search(block + newlines + cursor.peek(_REACH))
    if header is not None and header.start() < len(block):
        cursor.give_back(block[header.start() :] + newlines)
        return _LAST_NEWLINES.sub(b"", block[: header.start()]), True
    if not short and newlines.count(b"\n") < ending:
        rest = cursor.take_until(following, LONGEST, reach=_REACH)
        if rest is not None:
            block = _LAST_NEWLINES.sub(b"", block + newlines + rest)
    return block, not short


def _warc_follows(cursor: Cursor, before: bytes) -> bool:
    return b"WARC/".startswith(cursor.peek(5))


def _arc_follows(cursor: Cursor, before: bytes) -> bool:
    return not cursor.peek(1) or (before.endswith(b"\n") and _ARC.match(cursor.peek(_REACH)) is not None)
