"""Tables of text, CSV and TSV: a document a row. A broken row is counted and costs no other row."""

from __future__ import annotations

import contextlib
import csv
from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple

from groundup.corpus.documents import Found, Part, Raw, ReaderOptions
from groundup.corpus.readers.common import LONGEST, refused
from groundup.corpus.readers.formats import delimiter_of
from groundup.corpus.readers.lines import BrokenOffError, read_lines
from groundup.corpus.readers.streams import UnreadableError, Utf8Stream, open_stream
from groundup.corpus.text import decode, legacy_encoding, looks_binary

_DELIMITERS = (",", "\t", ";", "|")
_PEEK = 2**20  # bytes that tell the character set


class Row(NamedTuple):
    """A row's first line (from 1) and its fields; or the reason why it has none, and how it began."""

    number: int
    fields: list[str]
    reason: str = ""
    excerpt: str = ""


def read_csv(part: Part, options: ReaderOptions) -> Found:
    """The rows of a table with a header; fields may be quoted and hold newlines.

    Fields are separated by a comma (.tsv: a tab), or by whichever of comma, tab, semicolon and bar splits the header
    so that it names the text's column. A row must have as many fields as the header.
    """
    csv.field_size_limit(LONGEST)
    with open_stream(part.path, options.unpacked_limit) as file:
        stream = Utf8Stream(file)
        head = stream.peek(_PEEK)
        head = head[: head.rfind(b"\n") + 1] or head  # no character is torn
        if looks_binary(head):
            yield refused("binary_file", part.path, 0, repr(head[:64]))
            return
        lines = _Lines(stream, decode(head).encoding, legacy_encoding(head))
        header, delimiter = _header(lines, delimiter_of(part.path), options.text_field)
        if options.text_field not in header:
            if header or lines.damage is None:
                yield refused("no_text_field", part.path, 1 if header else 0, delimiter.join(header))
        else:
            at = header.index(options.text_field)
            named = [header.index(name) if name in header else None for name in (options.url_field, "language")]
            for row in _Rows(lines, delimiter, len(header)):
                if row.reason:
                    yield refused(row.reason, part.path, row.number, row.excerpt)
                    continue
                url, language = (None if column is None else row.fields[column] or None for column in named)
                encoding = stream.encoding or lines.encoding
                yield Raw(row.fields[at], part.path, row.number, url, language, encoding=encoding)
        if lines.damage is not None:
            yield refused(lines.damage.reason, part.path, lines.number + 1, str(lines.damage))


class _Lines:
    """The lines of a table as text, all in one encoding but for those that are not valid in it.

    A line of more than `LONGEST` bytes is None. `damage` says why the file broke off, if it did.
    """

    def __init__(self, stream: Utf8Stream, encoding: str, legacy: str | None) -> None:
        self._lines = read_lines(stream)
        self._legacy = legacy
        self.encoding = encoding
        self.number = 0
        self.damage: UnreadableError | None = None

    def __iter__(self) -> Iterator[tuple[int, str | None]]:
        return self

    def __next__(self) -> tuple[int, str | None]:
        try:
            self.number, line = next(self._lines)
        except BrokenOffError as error:
            self.damage = error.cause
            raise StopIteration from None
        return self.number, None if line is None else decode(line, self._legacy, begins=self.number == 1).text


def _header(lines: _Lines, delimiter: str, text_field: str) -> tuple[list[str], str]:
    """The names in the first line that isn't blank, and what separates them."""
    first = next((line for _, line in lines if line is None or line.strip()), None)
    if first is None:
        return [], delimiter
    for each in (delimiter, *_DELIMITERS):
        with contextlib.suppress(csv.Error):  # a carriage return within the line
            names = [name.strip() for name in next(csv.reader([first], delimiter=each))]
            if text_field in names:
                return names, each
    return [first.strip()], delimiter


class _TooLongError(Exception):
    """A line or row of more than `LONGEST` bytes."""


class _Rows:
    """Rows found by Python's csv module in its strict mode, with a second chance for what it refuses.

    A stray quotation mark makes a field of all lines up to the next one. So where a row of several lines is broken,
    only its first line is given up, and the others are read again: as long as not more is read twice than once.
    """

    def __init__(self, lines: _Lines, delimiter: str, width: int) -> None:
        self._lines = lines
        self._delimiter = delimiter
        self._width = width
        self._again: deque[tuple[int, str]] = deque()
        self._taken: list[tuple[int, str]] = []  # lines of the row being read
        self._size = 0  # characters of them
        self._balance = LONGEST  # characters that may be read again

    def __iter__(self) -> Iterator[Row]:
        reader = self._reader()
        while True:
            self._taken, self._size = [], 0
            fields: list[str] | None = None
            reason = "broken_row"
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:
                if self._lines.damage is not None and not self._again:
                    return  # the damage stands for the row that it cuts
            except _TooLongError:
                reason = "line_too_long"
            if fields is not None and not fields:
                continue  # a blank line
            if fields is not None and len(fields) == self._width:
                yield Row(self._taken[0][0], fields)
                continue
            number, first = self._taken[0] if self._taken else (self._lines.number, "")
            self._read_again(self._taken[1:])
            fields = self._mended(first) if reason == "broken_row" else None
            yield Row(number, fields or [], "" if fields else reason, first)
            reader = self._reader()

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(self._feed(), delimiter=self._delimiter, strict=True)

    def _feed(self) -> Iterator[str]:
        while True:
            if self._again:
                number, line = self._again.popleft()
            else:
                number, fresh = next(self._lines, (0, ""))
                if not number:
                    return
                if fresh is None:
                    raise _TooLongError
                line = fresh
                self._balance += len(line)
            self._taken.append((number, line))
            self._size += len(line) + 1
            if self._size > LONGEST:
                raise _TooLongError
            yield line + "\n"

    def _read_again(self, lines: list[tuple[int, str]]) -> None:
        size = sum(len(line) for _, line in lines)
        if size <= self._balance:
            self._balance -= size
            self._again.extendleft(reversed(lines))

    def _mended(self, line: str) -> list[str] | None:
        """The fields of a line with marks where none belong; None where they are not as many as the header's."""
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
        if line.count('"') % 2:
            if self._delimiter != "\t":
                return None
            quoting = csv.QUOTE_NONE  # in tables separated by tabs a mark is often just a mark
        try:
            fields = next(csv.reader([line], delimiter=self._delimiter, quoting=quoting))
        except (csv.Error, StopIteration):
            return None
        return fields if len(fields) == self._width else None
