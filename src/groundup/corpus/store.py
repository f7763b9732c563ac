"""Documents on disk: Parquet files written row group by row group, and read back the same way.

Row groups and files are closed by size, so writing and reading hold a few megabytes however large the corpus.
Equal documents in equal order give equal bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from groundup.corpus.funnel import Rejection
from groundup.run import UserError

ROW_GROUP_BYTES = 4 * 2**20
ROW_GROUP_DOCUMENTS = 8192
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("language", pa.string()),
        pa.field("messages", pa.string()),
    ]
)


@dataclass(frozen=True)
class Document:
    """A document of the corpus. `id` is the hex digest of the text, so equal texts have equal ids.

    A chat has `messages`, a JSON list of {"role", "content"}, and as its text their contents, a line each.
    """

    id: str
    text: str
    source: str
    url: str | None = None
    language: str | None = None
    messages: str | None = None


class DocumentWriter:
    """Writes `<prefix>-00000.parquet`, `<prefix>-00001.parquet`, … of about `shard_bytes` of text each."""

    def __init__(self, directory: Path, prefix: str, shard_bytes: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.prefix, self.shard_bytes = directory, prefix, shard_bytes
        self.documents = 0
        self._pending: list[Document] = []
        self._pending_bytes = self._file_bytes = self._files = 0
        self._writer: Any = None

    def add(self, document: Document, size: int) -> None:
        """Append one document of `size` UTF-8 bytes."""
        self._pending.append(document)
        self._pending_bytes += size
        self.documents += 1
        if self._pending_bytes >= ROW_GROUP_BYTES or len(self._pending) >= ROW_GROUP_DOCUMENTS:
            self._flush()
        if self._file_bytes + self._pending_bytes >= self.shard_bytes:
            self._close_file()

    def close(self) -> None:
        """Write what is pending. A writer that was given nothing leaves one empty file."""
        if self._pending or self._files == 0:
            self._flush()
        self._close_file()

    def _flush(self) -> None:
        if self._writer is None:
            path = self.directory / f"{self.prefix}-{self._files:05d}.parquet"
            self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
            self._files += 1
        columns = {name: [getattr(document, name) for document in self._pending] for name in SCHEMA.names}
        if self._pending:
            self._writer.write_table(pa.table(columns, schema=SCHEMA))
        self._file_bytes += self._pending_bytes
        self._pending, self._pending_bytes = [], 0

    def _close_file(self) -> None:
        if self._pending:
            self._flush()
        if self._writer is not None:
            self._writer.close()
        self._writer, self._file_bytes = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_documents(corpus_dir: Path, split: str) -> Iterator[Document]:
    """The documents of "train" or "validation" in the order written, one row group in memory at a time.

    Raises UserError where the directory holds no such split.
    """
    files = sorted((Path(corpus_dir) / "documents").glob(f"{split}-*.parquet"))
    if not files:
        raise UserError(f"no documents of split {split!r}", where=str(corpus_dir), mend="build the corpus stage first")
    for path in files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                for row in file.read_row_group(group).to_pylist():
                    yield Document(**row)


def write_rejections(directory: Path, examples: list[Rejection]) -> None:
    """Write rejected/rejected-00000.parquet: the sample of what was refused, empty where nothing was."""
    directory.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(
        [("source", pa.string()), ("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())]
        + [("excerpt", pa.string())]
    )
    columns = {name: [getattr(example, name) for example in examples] for name in schema.names}
    pq.write_table(pa.table(columns, schema=schema), directory / "rejected-00000.parquet", compression="zstd")
