"""What travels through the room: raw documents as readers find them, what they refuse, and batches in Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from groundup.corpus.columns import flags, numbers

if TYPE_CHECKING:
    from groundup.corpus.lines import Lines
    from groundup.corpus.words import Words


@dataclass(frozen=True, slots=True)
class Raw:
    """A document as found. Exactly one of `text` and `html` is given.

    Args:
        file: the file it stands in, as the recipe's path leads to it.
        record: its number in the file from 1 (line, row, member); 0 where it is the whole file.
        html: bytes of a page whose text is still to be extracted.
        charset: of `html`, as the server or the record declared it.
        crawled: the page comes from an archive of a crawl, not from a folder of pages.
        encoding: how bytes became `text`: "utf-8", "utf-8-repaired", "utf-16", "cp1252", …; "" where unknown.
        messages: of a chat: {"role", "content"} of each; `text` is then their contents, a line each.
    """

    text: str = ""
    file: str = ""
    record: int = 0
    url: str | None = None
    language: str | None = None
    licence: str | None = None
    messages: list[dict[str, str]] | None = None
    html: bytes | None = None
    charset: str | None = None
    crawled: bool = False
    encoding: str = ""

    def with_text(self, text: str, encoding: str = "") -> Raw:
        """The same document with its text extracted."""
        return replace(self, text=text, html=None, charset=None, encoding=encoding or self.encoding)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record, member or file that holds no document: where it stood, the reason's name, how it began."""

    reason: str
    file: str = ""
    record: int = 0
    excerpt: str = ""


Found = Iterator[Raw | Refused]


@dataclass(frozen=True)
class Outcome:
    """What a filter says of a batch of n documents.

    Args:
        failed: int16 [n], the number of the first rule a document breaks, −1 where it breaks none.
        value: float64 [n], what that rule measured; NaN where none is broken.
        texts: large_string [n] where the filter edits texts (only rows with failed = −1 count), else None.
    """

    failed: np.ndarray
    value: np.ndarray
    texts: pa.LargeStringArray | None = None


class Batch:
    """Up to a few megabytes of documents as Arrow columns of equal length; `text` is large_string, no nulls.

    What several filters need (the words, the lines) is found once and kept.
    """

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns

    @property
    def texts(self) -> pa.LargeStringArray:
        return self.columns["text"]

    def __len__(self) -> int:
        return len(self.columns["text"])

    @cached_property
    def words(self) -> Words:
        """The words of the texts (see `groundup.corpus.words`)."""
        from groundup.corpus.words import find_words

        return find_words(self.texts)

    @cached_property
    def lines(self) -> Lines:
        """The lines of the texts (see `groundup.corpus.lines`)."""
        from groundup.corpus.lines import find_lines

        return find_lines(self.words)

    def with_columns(self, **columns: Any) -> Batch:
        """The same documents with columns added or replaced."""
        changed = Batch({**self.columns, **columns})
        if "text" not in columns:
            changed.__dict__.update({name: self.__dict__[name] for name in ("words", "lines") if name in self.__dict__})
        return changed

    def take(self, keep: np.ndarray) -> Batch:
        """The documents at which the boolean array `keep` [n] is true, in their order."""
        if keep.all():
            return self
        mask = flags(keep)
        taken = Batch({name: column.filter(mask) for name, column in self.columns.items()})
        if "words" in self.__dict__:
            taken.__dict__["words"] = self.words.take(keep)
        return taken

    def take_rows(self, rows: Sequence[int]) -> Batch:
        """The documents of the given numbers."""
        indices = numbers(rows, np.int64)
        return Batch({name: column.take(indices) for name, column in self.columns.items()})


@dataclass(frozen=True, slots=True)
class Part:
    """What one call of a reader reads: a file or a stretch of one.

    Args:
        path: local path or URL, as the recipe's path leads to it.
        format: one of the recipe's formats but "auto"; compression is seen from the name and the first bytes.
        bytes: of the file (or the stretch) as stored.
        start, stop: of a plain JSONL file the stretch in bytes (the lines that begin in it), of a Parquet file the row
            groups; 0 and None for the whole file.
        behind: of a stretch of JSONL, the lines that begin before it; 0 where the file isn't on this machine, whose
            records are then numbered from the stretch's beginning.
        licence: of a program, the licence of the repository it stands in, as "MIT (LICENSE)".
    """

    path: str
    format: str
    bytes: int
    start: int = 0
    stop: int | None = None
    behind: int = 0
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """What readers need of the recipe: names of the fields, and where a compressed file ends (bytes unpacked)."""

    text_field: str = "text"
    url_field: str = "url"
    unpacked_limit: int = 64 * 2**30
