"""Decompressors of one member (gzip), stream (bzip2, xz) or frame (Zstandard), all with the interface of `bz2`'s.

Each call gives a bounded amount of bytes, so that a bomb can be stopped, and `eof` tells a whole member from a
truncated one, which zstandard's own readers do not.
"""

from __future__ import annotations

import bz2
import contextlib
import importlib
import importlib.util
import lzma
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import zstandard

# zlib-ng, a drop-in replacement that takes half the time, where it is installed. Both give the same bytes.
zlib: Any = importlib.import_module("zlib_ng.zlib_ng" if importlib.util.find_spec("zlib_ng") else "zlib")
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_WINDOW = 2**27  # bytes of memory that a frame may ask for, as in the zstd command
ZSTD_BLOCK = 2**17  # bytes unpacked of one block at most
_STEP = 64  # bytes unpacked at a time towards an error
_REPEATED, _RESERVED = 1, 3  # kinds of blocks
_MOST_MEMORY = 2**28  # bytes of memory that an xz stream may ask for


class DamagedError(ValueError):
    """Bytes that are no valid member, stream or frame."""


class Decompressor(Protocol):
    """What `bz2.BZ2Decompressor` and `lzma.LZMADecompressor` offer."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member has been reached."""

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the end of the member."""

    @property
    def needs_input(self) -> bool:
        """Whether `decompress` can do no more without further input."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Up to about `max_length` bytes more; raises one of `DAMAGE`."""


DAMAGE = (zlib.error, lzma.LZMAError, zstandard.ZstdError, DamagedError, OSError, EOFError)


class GzipMember:
    """One member of a gzip file (RFC 1952); its checksum and length are verified.

    zlib's error costs all that a call would have given, up to a megabyte of sound text. So a call that fails is made
    again in small steps, and the error raised after what they give.
    """

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(31)
        self._pending = b""
        self._error: Exception | None = None
        self.needs_input = True

    @property
    def eof(self) -> bool:
        ended: bool = self._inflate.eof
        return ended

    @property
    def unused_data(self) -> bytes:
        unused: bytes = self._inflate.unused_data
        return unused

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._error is not None:
            raise self._error
        if self._pending:
            data = self._pending + data
        before = self._inflate.copy()
        try:
            unpacked: bytes = self._inflate.decompress(data, max_length)
        except zlib.error as error:
            self.needs_input = False
            return self._up_to(error, before, data)
        self._pending = self._inflate.unconsumed_tail
        self.needs_input = not self._pending and len(unpacked) < max_length
        return unpacked

    def _up_to(self, error: Exception, inflate: Any, data: bytes) -> bytes:
        """What comes before the error; raises it where that is nothing."""
        pieces: list[bytes] = []
        with contextlib.suppress(zlib.error):
            while piece := inflate.decompress(data, _STEP):
                pieces.append(piece)
                data = inflate.unconsumed_tail
        self._error = error
        if not pieces:
            raise error
        return b"".join(pieces)


class ZstdFrame:
    """One frame of a Zstandard file (RFC 8878), given to the decompressor in whole blocks.

    The blocks are found by their headers, so that no call unpacks more than asked for: four bytes may stand for
    128 KiB.
    """

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
        self._waiting = b""  # given, and not yet decompressed
        self._in_blocks = False  # the frame's header is behind
        self._skip = 0  # bytes of a skippable frame still to come
        self._checksum = 0  # bytes after the last block
        self.eof = False
        self.needs_input = True

    @property
    def unused_data(self) -> bytes:
        return self._waiting if self.eof else b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._waiting += data
        if not self._in_blocks and not self._begin():
            self.needs_input = not self.eof
            return b""
        end, self.eof = self._whole_blocks(max(1, max_length // ZSTD_BLOCK))
        self.needs_input = not end
        ready, self._waiting = self._waiting[:end], self._waiting[end:]
        return self._frame.decompress(ready) if ready else b""

    def _begin(self) -> bool:
        """Pass the frame's header on; False while it is not all there, and for a skippable frame."""
        head = self._waiting
        if not self._skip:
            if len(head) < 8:
                return False
            if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] < 0x60:
                self._skip = 8 + int.from_bytes(head[4:8], "little")
        if self._skip:
            skipped = min(self._skip, len(head))
            self._skip -= skipped
            self._waiting = head[skipped:]
            self.eof = not self._skip
            return False
        if not head.startswith(ZSTD_MAGIC):
            raise DamagedError("no Zstandard frame")
        descriptor = head[4]
        single = descriptor >> 5 & 1
        sizes = (1 - single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
        if len(head) < 5 + sizes:
            return False
        self._checksum = 4 * (descriptor >> 2 & 1)
        self._frame.decompress(head[: 5 + sizes])
        self._waiting = head[5 + sizes :]
        self._in_blocks = True
        return True

    def _whole_blocks(self, count: int) -> tuple[int, bool]:
        """(bytes of up to `count` whole blocks in what waits, whether the frame ends with them)."""
        waiting = self._waiting
        end = 0
        for _ in range(count):
            header = int.from_bytes(waiting[end : end + 3], "little")
            last, kind, size = header & 1, header >> 1 & 3, header >> 3
            following = end + 3 + (1 if kind == _REPEATED else size) + (self._checksum if last else 0)
            if len(waiting) < end + 3 or len(waiting) < following:
                break
            if kind == _RESERVED or size > ZSTD_BLOCK:
                raise DamagedError("no valid Zstandard block")
            end = following
            if last:
                return end, True
        return end, False


@dataclass(frozen=True)
class Codec:
    """A kind of compression: suffixes, how a member begins, and its decompressor."""

    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    begins: re.Pattern[bytes]
    open: Callable[[], Decompressor]


def _xz_stream() -> Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)


CODECS = (
    Codec("gzip", (".gz",), b"\x1f\x8b", re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"), GzipMember),
    Codec("zstd", (".zst",), ZSTD_MAGIC, re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), ZstdFrame),
    Codec("bzip2", (".bz2",), b"BZh", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.BZ2Decompressor),
    Codec("xz", (".xz",), b"\xfd7zXZ\x00", re.compile(rb"\xfd7zXZ\x00"), _xz_stream),
)
COMPRESSIONS = {suffix: codec for codec in CODECS for suffix in codec.suffixes}
# Archives and compressions that are told apart from text, and not read.
FOREIGN = {b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "rar",
           b"\x1f\x9d": "compress"}  # fmt: skip
