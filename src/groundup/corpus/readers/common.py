"""What the readers share: limits, and how a refusal is written down."""

from __future__ import annotations

from typing import Protocol

from groundup.corpus.documents import Refused
from groundup.corpus.text import decode

LONGEST = 64 * 2**20  # bytes of one line, record, page or row; a longer one is refused unread
EXCERPT = 1500  # characters kept of what is refused


class Readable(Protocol):
    """A `Stream` or `Utf8Stream`."""

    def read(self, size: int = ..., /) -> bytes: ...

    def resume(self) -> bool: ...


def refused(reason: str, file: str, record: int = 0, found: bytes | str = "") -> Refused:
    """A refusal with how the record began."""
    text = decode(found[: 4 * EXCERPT]).text if isinstance(found, bytes) else found
    return Refused(reason, file, record, text[:EXCERPT])
