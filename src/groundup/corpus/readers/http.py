"""HTTP responses as crawlers store them: their headers, and their bodies unpacked."""

from __future__ import annotations

import io
import re
from typing import NamedTuple

import zstandard
from fastwarc.stream_io import BrotliReader

from groundup.corpus.readers.common import LONGEST
from groundup.corpus.readers.unpack import ZSTD_MAGIC, ZSTD_WINDOW, zlib
from groundup.corpus.text import looks_binary

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/[0-9.]+\s+(\d{3})")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\n]*)?\r?\n")
_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([^\s"';,]+)""", re.IGNORECASE)
_BLOCK = 2**16


class BodyTooLongError(ValueError):
    """A body that unpacks to more than `LONGEST` bytes."""


class Response(NamedTuple):
    """Status code (0 where there is none), media type in lower case, character set, and the body unpacked."""

    status: int
    kind: str
    charset: str | None
    body: bytes


def parse_headers(lines: bytes) -> dict[bytes, bytes]:
    """Header fields by name in lower case; of a repeated one the first counts."""
    headers: dict[bytes, bytes] = {}
    last = b""
    for line in lines.split(b"\n"):
        if line.startswith((b" ", b"\t")):  # a long value goes on
            if last:
                headers[last] = b" ".join((headers[last], line.strip()))
            continue
        name, colon, value = line.partition(b":")
        name = name.strip().lower()
        last = name if colon and name not in headers else b""
        if last:
            headers[last] = value.strip()
    return headers


def parse_response(block: bytes) -> Response | None:
    """The response in the block of a record; None where it does not begin as one.

    Crawlers often unpack a body and leave the headers that say how it was packed: where it is not what they say, it
    is taken as it is. Raises BodyTooLongError.
    """
    status = _STATUS.match(block)
    if status is None:
        return None
    end = _HEAD_END.search(block)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block, b"")
    headers = parse_headers(head.partition(b"\n")[2])
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        body = _join_chunks(body)
    for coding in reversed(headers.get(b"content-encoding", b"").lower().split(b",")):
        body = _decode_body(body, coding.strip())
    kind, charset = parse_type(headers.get(b"content-type", b""))
    return Response(int(status.group(1)), kind, charset, body)


def parse_type(value: bytes) -> tuple[str, str | None]:
    """("text/html", "utf-8") of the value of a Content-Type field; "" and None for what isn't there."""
    charset = _CHARSET.search(value)
    kind = value.partition(b";")[0].partition(b",")[0].strip().lower().decode("latin-1")
    return kind, charset.group(1).decode("latin-1") if charset else None


def _join_chunks(body: bytes) -> bytes:
    """The body without the sizes of its chunks (RFC 9112, 7.1). From a broken chunk on it is taken as it is."""
    pieces: list[bytes] = []
    at = 0
    while chunk := _CHUNK.match(body, at):
        size = int(chunk.group(1), 16)
        if size == 0:
            return b"".join(pieces)
        begin, at = chunk.end(), chunk.end() + size
        pieces.append(body[begin:at])
        if body[at : at + 2] == b"\r\n":
            at += 2
        elif body[at : at + 1] == b"\n":
            at += 1
        elif at < len(body):
            break
    return b"".join([*pieces, body[at:]])


def _decode_body(body: bytes, coding: bytes) -> bytes:
    """The body unpacked as far as it goes; as it is, where it isn't packed so."""
    if coding in (b"gzip", b"x-gzip") and body.startswith(b"\x1f\x8b"):
        unpacked, _ = _inflate(body, 31)
        return unpacked
    if coding == b"zstd" and body.startswith(ZSTD_MAGIC):
        unpacked, _ = _read_all(zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(body))
        return unpacked
    if coding == b"deflate":  # with zlib's header, as the standard has it, or without, as some servers do
        has_header = body[:1] == b"\x78" and int.from_bytes(body[:2], "big") % 31 == 0
        unpacked, whole = _inflate(body, 15 if has_header else -15)
    elif coding == b"br":
        unpacked, whole = _read_all(BrotliReader(io.BytesIO(body)))
    else:
        return body
    return unpacked if whole or looks_binary(body) else body


def _inflate(data: bytes, window: int) -> tuple[bytes, bool]:
    """What zlib gives until the end or until damage, and whether it was the end."""
    pieces: list[bytes] = []
    inflate = zlib.decompressobj(window)
    try:
        while data and not inflate.eof:
            pieces.append(inflate.decompress(data, LONGEST + 1))
            data = inflate.unconsumed_tail
            if sum(map(len, pieces)) > LONGEST:
                raise BodyTooLongError
    except zlib.error:
        pass
    return b"".join(pieces), inflate.eof


def _read_all(reader: BrotliReader | zstandard.ZstdDecompressionReader) -> tuple[bytes, bool]:
    """What a reader gives until the end or until damage, and whether it was the end."""
    pieces: list[bytes] = []
    size = 0
    try:
        while data := reader.read(_BLOCK):
            pieces.append(data)
            size += len(data)
            if size > LONGEST:
                raise BodyTooLongError
    except (OSError, zstandard.ZstdError):
        return b"".join(pieces), False
    return b"".join(pieces), True
