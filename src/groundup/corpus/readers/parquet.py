"""Parquet: a document a row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from groundup.corpus.documents import Found, Part, Raw, ReaderOptions, Refused
from groundup.corpus.readers.common import refused
from groundup.corpus.readers.records import chat_of
from groundup.corpus.readers.streams import UnreadableError, open_stream, random_access
from groundup.corpus.text import decode

_BATCH_BYTES = 4 * 2**20  # of the columns read, decoded at a time
_BATCH_ROWS = 2048
_DAMAGE = (pa.ArrowException, OSError, ValueError)  # what pyarrow raises where a file is damaged


def parquet_row_groups(path: str) -> list[int]:
    """Unpacked bytes of each row group of a local file or URL; [] where it can't be read in parts, or at all."""
    try:
        with open_stream(path, 0) as stream:
            if stream.compressed:
                return []
        with random_access(path, 0) as file, pq.ParquetFile(_source(file)) as table:
            groups = (table.metadata.row_group(group) for group in range(table.metadata.num_row_groups))
            return [group.total_byte_size for group in groups]
    except (UnreadableError, *_DAMAGE):
        return []


def read_parquet(part: Part, options: ReaderOptions) -> Found:
    """The rows of the row groups `start` to `stop` of a table; records are row numbers in the file, from 1.

    The text's column holds strings or bytes, dictionary-encoded or not; "messages" may hold chats (lists of "role"
    and "content", or such a list as JSON). A damaged row group is refused, and the others are read.
    """
    with random_access(part.path, options.unpacked_limit) as file:
        try:
            table = pq.ParquetFile(_source(file))
        except _DAMAGE as error:
            yield refused("damaged_archive", part.path, 0, f"no sound Parquet file: {error}")
            return
        with table:
            yield from _read_groups(table, part, options)


def _source(file: Any) -> Any:
    """What pyarrow can open; it takes names that are no UTF-8 as bytes only."""
    return pa.OSFile(os.fsencode(file)) if isinstance(file, str) else file


def _read_groups(table: pq.ParquetFile, part: Part, options: ReaderOptions) -> Found:
    schema = table.schema_arrow
    names = [options.text_field, "messages", options.url_field, "language", "licence", "license"]
    columns = [name for name in dict.fromkeys(names) if schema.names.count(name) == 1]
    missing = _missing_text(schema, options.text_field)
    if missing and "messages" not in columns:
        yield refused(missing, part.path, 0, f"columns: {', '.join(f'{each.name} ({each.type})' for each in schema)}")
        return
    metadata = table.metadata
    left = options.unpacked_limit
    stop = metadata.num_row_groups if part.stop is None else min(part.stop, metadata.num_row_groups)
    row = sum(metadata.row_group(group).num_rows for group in range(min(part.start, stop)))
    for group in range(part.start, stop):
        number = row
        row += metadata.row_group(group).num_rows
        try:
            for batch in table.iter_batches(_batch_rows(metadata.row_group(group), columns), [group], columns):
                left -= batch.nbytes
                if left < 0:
                    yield refused("unpacked_limit", part.path, number + 1, f"over {options.unpacked_limit} bytes")
                    return
                for raw in _documents(batch, options, part.path, number):
                    number += 1
                    yield raw
        except _DAMAGE as error:
            yield refused("damaged_archive", part.path, number + 1, f"damaged row group {group}: {error}")


def _missing_text(schema: pa.Schema, name: str) -> str:
    """Why there is no column of text, as a reason; "" where there is one."""
    if schema.names.count(name) != 1:
        return "no_text_field"
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_binary_view")
    fits = any(getattr(pa.types, test)(kind) for test in tests) or pa.types.is_fixed_size_binary(kind)
    return "" if fits else "text_field_is_no_string"


def _batch_rows(group: Any, columns: list[str]) -> int:
    """Rows that unpack to about `_BATCH_BYTES` in these columns."""
    chunks = (group.column(index) for index in range(group.num_columns))
    size: int = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    rows: int = group.num_rows
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * max(1, rows) // max(1, size)))


def _documents(batch: pa.RecordBatch, options: ReaderOptions, file: str, number: int) -> Iterator[Raw | Refused]:
    """One document or refusal for each row."""

    def values(name: str) -> list[Any]:
        return _values(batch.column(name)) if name in batch.schema.names else [None] * len(batch)

    texts, chats = values(options.text_field), values("messages")
    licence = "licence" if "licence" in batch.schema.names else "license"
    others = zip(*(values(name) for name in (options.url_field, "language", licence)), strict=True)
    for text, messages, (url, language, terms) in zip(texts, chats, others, strict=True):
        number += 1
        chat = chat_of(messages) if messages else None
        encoding = "utf-8"
        if chat is not None:
            text = "\n".join(message["content"] for message in chat)
        elif text is None:
            yield refused("broken_messages" if messages else "null_text", file, number)
            continue
        elif isinstance(text, bytes):
            text, encoding = decode(text)
        yield Raw(
            text,
            file,
            number,
            _string(url),
            _string(language),
            _string(terms),
            messages=chat,
            encoding=encoding,
        )


def _values(column: pa.Array) -> list[Any]:
    """The column in Python; bytes where its strings are not UTF-8 throughout."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
    return values


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None
