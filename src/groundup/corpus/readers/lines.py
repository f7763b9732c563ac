"""Lines of a stream, numbered, none of them longer than memory allows."""

from __future__ import annotations

from collections.abc import Iterator

from groundup.corpus.readers.common import LONGEST, Readable
from groundup.corpus.readers.streams import UnreadableError

_BLOCK = 2**20  # bytes split at a time


class BrokenOffError(Exception):
    """The stream broke off (`cause`) within line `number`, of which `line` was read."""

    def __init__(self, cause: UnreadableError, number: int, line: bytes) -> None:
        self.cause, self.number, self.line = cause, number, line
        super().__init__(str(cause))


def read_lines(
    stream: Readable, *, number: int = 0, torn: bool = False, at: int = 0, stop: int | None = None
) -> Iterator[tuple[int, bytes | None]]:
    """(number, line without its "\\n"), with None in place of a line of more than `LONGEST` bytes.

    Args:
        number: how many lines are behind; the first one has the next number.
        torn: what comes before the first "\\n" belongs to an earlier line and is left out.
        at: where in the file the stream stands; lines that begin at `stop` or later are left out.

    Raises BrokenOffError where the stream breaks off, after the last whole line.
    """
    pieces: list[bytes] = []  # of the unfinished line
    size = 0  # bytes of it
    while stop is None or at < stop:  # `at` is where the unfinished line begins
        try:
            block = stream.read(_BLOCK)
        except UnreadableError as error:
            raise BrokenOffError(error, number + 1, b"".join(pieces)) from error
        if not block:
            if size and not torn:
                yield number + 1, _joined(pieces, b"", size)
            return
        *lines, rest = block.split(b"\n")
        for line in lines:
            if stop is not None and at >= stop:
                return
            at += size + len(line) + 1
            if not torn:
                number += 1
                yield number, _joined(pieces, line, size)
            torn = False
            pieces, size = [], 0
        size += len(rest)
        if size <= LONGEST and not torn:
            pieces.append(rest)
        else:
            pieces.clear()


def _joined(pieces: list[bytes], line: bytes, size: int) -> bytes | None:
    """The whole line; None where it is too long (its beginning is then gone from `pieces`)."""
    if size + len(line) > LONGEST:
        return None
    return b"".join(pieces) + line if pieces else line
