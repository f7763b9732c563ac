"""Files that are a document each: plain text, programs, pages."""

from __future__ import annotations

from collections.abc import Iterator

from groundup.corpus.documents import Found, Part, Raw, ReaderOptions
from groundup.corpus.readers.common import LONGEST, Readable, refused
from groundup.corpus.readers.streams import UnreadableError, Utf8Stream, open_stream
from groundup.corpus.text import decode, legacy_encoding, looks_binary

BLOCK = 16 * 2**20  # a text of more bytes than this is read as several documents, cut at blank lines


def read_text(part: Part, options: ReaderOptions) -> Found:
    """The text of a file; a very long one in blocks, numbered from 1.

    A block that isn't UTF-8 is read in the character set of the first such block. What came before the place where
    a file breaks off is a document.
    """
    with open_stream(part.path, options.unpacked_limit) as file:
        stream = Utf8Stream(file)
        legacy: str | None = None
        for number, data in _numbered(read_blocks(stream)):
            if number <= 1 and stream.encoding is None and looks_binary(data):
                yield refused("binary_file", part.path, 0, repr(data[:64]))
                return
            text, encoding = decode(data, legacy, begins=number <= 1)
            if encoding != "utf-8" and legacy is None:
                legacy = legacy_encoding(data)
            yield Raw(text, part.path, number, licence=part.licence, encoding=stream.encoding or encoding)


def read_html(part: Part, options: ReaderOptions) -> Found:
    """The bytes of a page; one of more than `LONGEST` bytes is refused."""
    with open_stream(part.path, options.unpacked_limit) as file:
        stream = Utf8Stream(file)
        pieces: list[bytes] = []
        size = 0
        damage: UnreadableError | None = None
        try:
            while size <= LONGEST and (data := stream.read()):
                pieces.append(data)
                size += len(data)
        except UnreadableError as error:
            damage = error
        page = b"".join(pieces)
        if size > LONGEST:
            yield refused("page_too_long", part.path, 0, page)
        elif looks_binary(page):
            yield refused("binary_file", part.path, 0, repr(page[:64]))
        elif page or damage is None:
            charset = "utf-8" if stream.encoding else None
            yield Raw(html=page, file=part.path, charset=charset, encoding=stream.encoding or "")
        if damage is not None:
            raise damage


def read_blocks(stream: Readable) -> Iterator[bytes]:
    """The stream in blocks of about `BLOCK` bytes, cut after a blank line, else after a line, else anywhere.

    Cut at a newline, no character is torn, in UTF-8 nor in the older sets. What was read before the stream breaks
    off is yielded before UnreadableError is raised.
    """
    pending = bytearray()
    damage: UnreadableError | None = None
    cut = 0
    while True:
        try:
            data = stream.read()
        except UnreadableError as error:
            data, damage = b"", error
        pending += data
        if not data:
            break
        if len(pending) >= BLOCK:
            cut = max(pending.rfind(b"\n\n"), pending.rfind(b"\n\r\n")) + 1 or pending.rfind(b"\n") + 1
            cut = cut or _between_characters(pending)
            yield bytes(pending[:cut])
            del pending[:cut]
    if pending or (damage is None and not cut):
        yield bytes(pending)
    if damage is not None:
        raise damage


def _between_characters(data: bytearray) -> int:
    """The end of the last whole UTF-8 character."""
    end = len(data)
    for back in range(1, min(4, end) + 1):
        if data[-back] & 0xC0 != 0x80:  # the first byte of a character
            return end - back if data[-back] >= 0xC0 else end
    return end


def _numbered(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Blocks numbered from 1; 0 where there is only one."""
    held: bytes | None = None
    number = 0
    damage: UnreadableError | None = None
    try:
        for block in blocks:
            if held is not None:
                number += 1
                yield number, held
            held = block
    except UnreadableError as error:
        damage = error
    if held is not None:
        yield number + 1 if number else 0, held
    if damage is not None:
        raise damage
