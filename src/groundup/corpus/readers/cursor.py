"""A place in a stream that moves by bytes, lines and patterns, and never back by more than it was given back."""

from __future__ import annotations

import re

from groundup.corpus.readers.common import Readable
from groundup.corpus.readers.streams import UnreadableError

_BLOCK = 2**18
_NEWLINES = re.compile(rb"[\r\n]*+")


class Cursor:
    """Reads on in a stream as needed. Where the stream breaks off, `damage` says why, and all reads come up short."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self._at_end = False
        self.damage: UnreadableError | None = None

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        while len(self._data) - self._at < size and self._fill():
            pass
        return self._data[self._at : self._at + size]

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        end = self._at + size
        if end <= len(self._data):
            taken = self._data[self._at : end]
            self._at = end
            return taken
        pieces = [self._data[self._at :]]
        size -= len(pieces[0])
        self._data, self._at = b"", 0
        while size > 0 and self._fill():
            pieces.append(self._data[:size])
            size -= len(pieces[-1])
            self._at = len(pieces[-1])
            if size > 0:
                self._data, self._at = b"", 0
        return b"".join(pieces)

    def take_newlines(self) -> bytes:
        """The line ends that come next, however many."""
        taken = b""
        while True:
            found = _NEWLINES.match(self._data, self._at)
            if found is not None:
                taken = (taken + found.group())[:_BLOCK]
                self._at = found.end()
            if self._at < len(self._data) or not self._fill():
                return taken

    def take_until(self, pattern: re.Pattern[bytes], limit: int, *, reach: int = 0) -> bytes | None:
        """What comes before the pattern's next match; None where there is none within `limit` bytes.

        Args:
            reach: bytes at the end of what was read in which a match may just have begun; they are looked at again.
        """
        begin = 0  # of the search, from here
        while True:
            found = pattern.search(self._data, self._at + begin)
            if found is not None:
                return self.take(found.start() - self._at)
            begin = max(begin, len(self._data) - self._at - reach)
            if len(self._data) - self._at > limit or not self._fill():
                return None

    def skip_until(self, pattern: re.Pattern[bytes], reach: int) -> None:
        """Go to the pattern's next match, or the end; memory is bounded."""
        while (found := pattern.search(self._data, self._at)) is None:
            self._at = max(self._at, len(self._data) - reach)
            if not self._fill():
                self._at = len(self._data)
                return
        self._at = found.start()

    def give_back(self, data: bytes) -> None:
        """Put bytes before those that come next."""
        self._data = data + self._data[self._at :]
        self._at = 0

    def resume(self) -> bool:
        """After damage: go on with the next member of the archive, if there is one."""
        self._data, self._at = b"", 0
        self._at_end = not self._stream.resume()
        self.damage = None
        return not self._at_end

    def _fill(self) -> bool:
        """Read a block more; what is behind is let go. False when nothing more comes."""
        if self._at_end:
            return False
        try:
            more = self._stream.read(_BLOCK)
        except UnreadableError as error:
            self.damage, more = error, b""
        self._at_end = not more
        self._data = self._data[self._at :] + more if self._at < len(self._data) else more
        self._at = 0
        return bool(more)
