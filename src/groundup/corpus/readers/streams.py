"""A file or URL as a bounded stream of bytes, unpacked member by member."""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from groundup.corpus.readers.unpack import CODECS, COMPRESSIONS, DAMAGE, FOREIGN, Codec, Decompressor
from groundup.corpus.text import wide_encoding
from groundup.run import UserError

CHUNK = 2**16  # packed bytes read at a time
BLOCK = 2**18  # unpacked bytes given at a time
_HEAD = 16  # bytes that tell the compression
_ATTEMPTS = 5  # at reading from a URL
_PAUSE = 0.25  # seconds before the second attempt; each further pause is twice as long
_T = TypeVar("_T")


class UnreadableError(Exception):
    """The stream ends here for a reason that is to be counted.

    Args:
        reason: "unreadable_file", "unsupported_compression", "damaged_archive" or "unpacked_limit".
        sound: what was read before is not in doubt: the file is cut off, not altered.
    """

    def __init__(self, reason: str, message: str, *, sound: bool = True) -> None:
        self.reason, self.sound = reason, sound
        super().__init__(message)


class Source(Protocol):
    """Where a stream's bytes come from: a file, or something that looks like one."""

    def read(self, size: int, /) -> bytes | None: ...

    def seek(self, offset: int, /) -> int: ...

    def close(self) -> None: ...


def open_stream(path: str, limit: int) -> Stream:
    """The bytes of a local file or a URL (any with "://", opened by fsspec), unpacked up to `limit` bytes.

    Raises UnreadableError for what cannot be opened, UserError where a package for the kind of URL is missing.
    """
    try:
        source: Source = _Remote(path) if "://" in path else _open_local(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(error) from error
    try:
        return Stream(source, path, limit)
    except BaseException:
        source.close()
        raise


def _open_local(path: str) -> Source:
    if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe would wait forever
        raise OSError(f"{path} is no regular file")
    return open(path, "rb", buffering=0)


@contextmanager
def random_access(path: str, limit: int) -> Iterator[Any]:
    """A file or URL that can be read anywhere: a path or a file object. What is compressed is unpacked to a file first.

    Raises as `open_stream` and its reading do.
    """
    with open_stream(path, limit) as stream:
        if stream.compressed:
            with tempfile.TemporaryFile() as unpacked:
                while data := stream.read():
                    unpacked.write(data)
                yield unpacked
            return
    if "://" not in path:
        yield path
        return
    try:
        file = _Remote(path).file
    except OSError as error:
        raise _unreadable(error) from error
    with file:
        yield file


def _unreadable(error: Exception) -> UnreadableError:
    return UnreadableError("unreadable_file", str(error))


class Stream:
    """The bytes of a file as its maker wrote them, whatever it is compressed with.

    The compression is seen from the first bytes, not from the name. Members, streams and frames that follow each
    other are read as one; zeros between them, as on tapes, are passed over. Memory: a few blocks.
    """

    def __init__(self, source: Source, path: str, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._rest = b""  # read from the source, and not yet looked at
        while len(self._rest) < _HEAD and (more := self._next_input(_HEAD)):
            self._rest += more
        self._codec = _codec_of(self._rest, path)
        self._member: Decompressor | None = None
        self._given = b""  # what the decompressor got last
        self.unpacked = 0  # bytes given out
        self._over = False  # there were more of them than the limit

    @property
    def compressed(self) -> bool:
        return self._codec is not None

    @property
    def head(self) -> bytes:
        """The first 16 bytes of a plain file, while nothing has been read."""
        return self._rest

    def seek(self, offset: int) -> None:
        """Go to a byte of a plain file."""
        self._rest = b""
        self._source.seek(offset)

    def read(self, size: int = BLOCK) -> bytes:
        """At least one and up to about `size` bytes more, none at the end.

        Raises UnreadableError where the file or archive breaks off; `resume` may go on behind that place.
        """
        if self._codec is None:
            data, self._rest = self._rest + self._next_input(size), b""
            return data
        if self._over:
            raise self._limit_reached()
        while True:
            if (self._member is None or self._member.eof) and not self._begin_member(self._codec):
                return b""
            data = self._unpack(min(size, self._limit + 1 - self.unpacked))
            if data:
                return self._within_limit(data)

    def resume(self) -> bool:
        """After damage: go to the next member that can be read; False where there is none."""
        if self._codec is None or self._over:
            return False
        with contextlib.suppress(UnreadableError):  # the file itself can't be read on
            self._rest = self._find_member(self._codec, self._given + self._rest)
            self._given, self._member = b"", None
            return bool(self._rest)
        return False

    def _find_member(self, codec: Codec, pending: bytes) -> bytes:
        """What comes from the next member on, where `pending` comes next; b"" where there is none."""
        while True:
            found = codec.begins.search(pending)
            pending = pending[found.start() if found else max(0, len(pending) - _HEAD) :]
            if len(pending) < CHUNK and (more := self._next_input(CHUNK)):
                pending += more
            elif not found:
                return b""
            elif _is_member(codec, pending):
                return pending
            else:
                pending = pending[1:]

    def _begin_member(self, codec: Codec) -> bool:
        """Make ready for the member that comes next; False at the end of the file."""
        if self._member is not None:
            self._rest, self._member = self._member.unused_data, None
        while len(self._rest) < _HEAD:
            self._rest = self._rest.lstrip(b"\0")
            if not (more := self._next_input(CHUNK)):
                break
            self._rest += more
        self._rest = self._rest.lstrip(b"\0")
        if not self._rest:
            return False
        if not codec.begins.match(self._rest):
            self._given, self._rest = self._rest[1:], b""
            raise UnreadableError("damaged_archive", f"{codec.name}: bytes that belong to no archive", sound=False)
        self._member = codec.open()
        return True

    def _unpack(self, size: int) -> bytes:
        member = self._member
        assert member is not None  # `read` has seen to it
        data = b""
        if member.needs_input:
            begins = bool(self._rest)
            data, self._rest = self._rest or self._next_input(CHUNK), b""
            self._given = data[1:] if begins else data
            if not data:
                raise UnreadableError("damaged_archive", "the compressed file ends too early")
        try:
            return member.decompress(data, size)
        except DAMAGE as error:
            raise UnreadableError("damaged_archive", f"damaged compressed data: {error}", sound=False) from error

    def _within_limit(self, data: bytes) -> bytes:
        room = self._limit - self.unpacked
        self._over = len(data) > room
        if not room:
            raise self._limit_reached()
        self.unpacked += min(len(data), room)
        return data[:room] if self._over else data

    def _limit_reached(self) -> UnreadableError:
        return UnreadableError("unpacked_limit", f"more than {self._limit} bytes unpacked")

    def _next_input(self, size: int) -> bytes:
        try:
            return self._source.read(size) or b""
        except OSError as error:
            raise _unreadable(error) from error

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Utf8Stream:
    """A stream of text in UTF-16 or UTF-32 (as its byte order mark says) as UTF-8, any other stream as it is.

    `encoding` is then "utf-16" or "utf-32", else None.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._first = stream.read()
        while 0 < len(self._first) < 4 and (more := stream.read()):
            self._first += more
        self.encoding = wide_encoding(self._first[:4])
        self._peeked = b""
        self._decoder = codecs.getincrementaldecoder(self.encoding)("replace") if self.encoding else None

    def read(self, size: int = BLOCK) -> bytes:
        """As `Stream.read`."""
        if self._peeked:
            data, self._peeked = self._peeked, b""
            return data
        while True:
            data, self._first = self._first or self._stream.read(size), b""
            if self._decoder is None:
                return data
            text = self._decoder.decode(data, final=not data)
            if text or not data:
                return text.encode("utf-8", "replace")

    def peek(self, size: int) -> bytes:
        """What `read` will give next: `size` bytes, fewer where the stream ends or breaks off before."""
        peeked = b""
        with contextlib.suppress(UnreadableError):  # it will be raised again
            while len(peeked) < size and (data := self.read(size)):
                peeked += data
        self._peeked = peeked
        return peeked

    def resume(self) -> bool:
        """As `Stream.resume`; not within UTF-16 and UTF-32, whose characters could be torn."""
        return self._decoder is None and self._stream.resume()


class _Remote:
    """A file behind a URL; a failed read is tried again from where it stood, with growing pauses."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._files, self._path = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"cannot read {url}: {error}", mend="pip install 'groundup[remote]'") from error
        self._position = 0
        self._file: Any = None
        self._attempt(self._opened)

    @property
    def file(self) -> Any:
        """The file object of fsspec."""
        return self._opened()

    def read(self, size: int) -> bytes:
        data: bytes = self._attempt(lambda: self._opened().read(size))
        self._position += len(data)
        return data

    def seek(self, offset: int) -> int:
        self._position = offset
        self._attempt(lambda: self._opened().seek(offset))
        return offset

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _opened(self) -> Any:
        if self._file is None:
            self._file = self._files.open(self._path, "rb")
            if self._position:
                self._file.seek(self._position)
        return self._file

    def _attempt(self, action: Callable[[], _T]) -> _T:
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            try:
                return action()
            except (FileNotFoundError, PermissionError, IsADirectoryError):
                raise
            except Exception as error:  # noqa: BLE001  # every file system raises its own kinds
                failure = error
                self._file = None
        raise OSError(f"{type(failure).__name__}: {failure}") from failure


def _codec_of(head: bytes, path: str) -> Codec | None:
    """The compression that the first bytes show."""
    for codec in CODECS:
        if codec.begins.match(head):
            return codec
    for magic, name in FOREIGN.items():
        if head.startswith(magic):
            raise UnreadableError("unsupported_compression", f"compressed with {name}")
    named = COMPRESSIONS.get(os.path.splitext(path)[1].lower())
    if named and len(head) < _HEAD and (head.startswith(named.magic) or named.magic.startswith(head)):
        raise UnreadableError("damaged_archive", "the compressed file ends within its first bytes")
    return None


def _is_member(codec: Codec, data: bytes) -> bool:
    """Whether the first bytes can be unpacked."""
    try:
        codec.open().decompress(data, CHUNK)
    except DAMAGE:
        return False
    return True
