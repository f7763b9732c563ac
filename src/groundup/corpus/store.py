"""Documents on disk: Parquet written row group by row group, and read back the same way.

Row groups are closed by size, so writing and reading hold a few megabytes however large the corpus. Equal documents
in equal order give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.corpus.columns import numbers, strings
from groundup.corpus.funnel import Rejection
from groundup.run import UserError

ROW_GROUP_BYTES = 4 * 2**20
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # the file it came from
        pa.field("record", pa.int64(), nullable=False),  # its number in the file from 1; 0 is the whole file
        pa.field("mixture", pa.string(), nullable=False),  # the item of corpus.sources it belongs to
        pa.field("url", pa.string()),
        pa.field("language", pa.string()),
        pa.field("language_confidence", pa.float32()),
        pa.field("quality", pa.float32()),
        pa.field("licence", pa.string()),
        pa.field("messages", pa.string()),
    ]
)
REPEATING = {"source", "file", "mixture", "language", "licence"}  # columns in which a value occurs often
REJECTIONS = pa.schema(
    [
        ("source", pa.string()),
        ("file", pa.string()),
        ("record", pa.int64()),
        ("step", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("excerpt", pa.string()),
    ]
)


@dataclass(frozen=True)
class Document:
    """A document of the corpus, or a passage of one.

    `id` is 32 hexadecimal digits made from the text. `source` is the file it came from, `record` its number there,
    `mixture` the name of the recipe's source. A chat has `messages`, a JSON list of {"role", "content"}, and as its
    text their contents, a line each.
    """

    id: str
    text: str
    source: str
    record: int = 0
    mixture: str = ""
    url: str | None = None
    language: str | None = None
    language_confidence: float | None = None
    quality: float | None = None
    licence: str | None = None
    messages: str | None = None


class TableWriter:
    """Writes record batches of one schema as a Parquet file, in row groups of about `ROW_GROUP_BYTES`.

    The file appears with the first rows. Where they were cut into batches doesn't show in the bytes.
    """

    def __init__(self, path: Path, schema: pa.Schema, compression: str = "zstd") -> None:
        self.path, self.schema, self.compression = path, schema, compression
        self.rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self._writer: Any = None

    def add(self, columns: dict[str, Any], sizes: Sequence[int] | np.ndarray) -> None:
        """Append rows, given as the schema's columns; `sizes` are the bytes of each row's text."""
        batch = pa.RecordBatch.from_arrays(
            [_as(columns[field.name], field.type) for field in self.schema], schema=self.schema
        )
        start = 0
        for number, size in enumerate(sizes):
            self._pending_bytes += int(size)
            if self._pending_bytes >= ROW_GROUP_BYTES:
                self._pending.append(batch.slice(start, number + 1 - start))
                start = number + 1
                self._flush()
        if start < len(sizes):
            self._pending.append(batch.slice(start))
        self.rows += len(sizes)

    def close(self) -> None:
        if self._pending:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _flush(self) -> None:
        if self._writer is None:
            # Texts are all different: looking for equal ones, or for the least, costs more than it saves.
            repeating = [name for name in self.schema.names if name in REPEATING]
            self._writer = pq.ParquetWriter(
                self.path,
                self.schema,
                compression=self.compression,
                use_dictionary=repeating,
                write_statistics=repeating,
            )
        self._writer.write_table(pa.Table.from_batches(self._pending, self.schema).combine_chunks())
        self._pending, self._pending_bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _as(column: Any, kind: pa.DataType) -> pa.Array:
    """A column as an array of the type."""
    return column.cast(kind) if isinstance(column, pa.Array) else pa.array(column, kind)


def read_groups(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a Parquet file, one in memory at a time; none where the file isn't there."""
    if not path.exists():
        return
    with pq.ParquetFile(path, memory_map=False) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=columns)


def documents_files(corpus_dir: Path, split: str) -> list[Path]:
    """The files of "train" or "validation" in order. Raises UserError where the directory holds no such split."""
    files = sorted((Path(corpus_dir) / "documents").glob(f"{split}-*.parquet"))
    if not files:
        raise UserError(f"no documents of split {split!r}", where=str(corpus_dir), mend="build the corpus stage first")
    return files


def read_documents(corpus_dir: Path, split: str) -> Iterator[Document]:
    """The documents of "train" or "validation" in the order written, one row group in memory at a time.

    Raises UserError where the directory holds no such split.
    """
    for path in documents_files(corpus_dir, split):
        for table in read_groups(path):
            for row in table.to_pylist():
                yield Document(**row)


def write_rejections(directory: Path, examples: list[Rejection]) -> None:
    """Write rejected/rejected-00000.parquet: the sample of what was refused, empty where nothing was."""
    directory.mkdir(parents=True, exist_ok=True)
    kinds = {pa.int64(): np.int64, pa.float64(): np.float64}
    columns = []
    for field in REJECTIONS:
        values = [getattr(example, field.name) for example in examples]
        columns.append(numbers(values, kinds[field.type]) if field.type in kinds else strings(values))
    table = pa.Table.from_arrays(columns, schema=REJECTIONS)
    pq.write_table(table, directory / "rejected-00000.parquet", compression="zstd")
