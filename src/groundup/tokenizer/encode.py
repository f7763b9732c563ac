"""A corpus to token shards, in units of work: each a run of the corpus's row groups, encoded by any process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from groundup.run import GroundupError, UserError, read_json, staged_directory, write_bytes, write_json
from groundup.tokenizer.chat import encode_chat
from groundup.tokenizer.shards import ShardSource, dtype_for
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.work import Task
from groundup.tokenizer.writer import ShardWriter

UNITS = 16  # of a corpus, where that makes them …
LEAST_UNIT, LARGEST_UNIT = 2 * 2**20, 128 * 2**20  # … no smaller and no larger than this; bytes of text
BATCH, BATCH_BYTES = 1024, 4 * 2**20  # documents, or bytes of text, read at a time
CHECKED = 4096  # characters at the beginning of a unit that are encoded a second time, by the exact engine
COLUMNS = ("text", "mixture", "messages")


class Row(NamedTuple):
    """A document, as far as its tokens need it; a corpus of plain texts may lack `messages`."""

    text: str
    mixture: str
    messages: str | None = None


def text_groups(corpus: Path, split: str) -> list[tuple[str, int, int]]:
    """(file, row group, bytes of text) of a split, in the corpus's order. Raises UserError for a file that is none."""
    groups = []
    for path in sorted((corpus / "documents").glob(f"{split}-*.parquet")):
        with open_table(path) as file:
            meta = file.metadata
        column = meta.schema.to_arrow_schema().names.index("text")
        for group in range(meta.num_row_groups):
            groups.append((path.name, group, meta.row_group(group).column(column).total_uncompressed_size))
    return groups


def count_documents(corpus: Path, split: str) -> int:
    """Documents of a split, from the files' footers."""
    total = 0
    for path in sorted((corpus / "documents").glob(f"{split}-*.parquet")):
        with open_table(path) as file:
            total += file.metadata.num_rows
    return total


def make_tasks(corpus: Path, split: str, folder: Path, sources: Sequence[str]) -> list[Task]:
    """The units of a split: which row groups, and where the tokens go. The cut depends on the corpus alone."""
    groups = text_groups(corpus, split)
    least = min(max(sum(size for _, _, size in groups) // UNITS, LEAST_UNIT), LARGEST_UNIT)
    units: list[list[tuple[str, int]]] = [[]]
    held = 0
    for name, group, size in groups:
        if held >= least:
            units.append([])
            held = 0
        units[-1].append((name, group))
        held += size
    return [
        {
            "corpus": str(corpus),
            "groups": unit,
            "tokenizer": str(folder),
            "sources": list(sources),
            "out": str(folder / f"{split}-{number:05d}"),
        }
        for number, unit in enumerate(units)
    ]


def encode_unit(task: Task) -> Task:
    """Encode one unit into a directory of its own, unless an earlier try has; returns its record.

    The directory holds shards, "counts.bin" (uint64 [vocabulary]: how often each id occurs) and "record.json". Each
    document becomes its ids and <|endoftext|>; a chat is encoded message by message.

    Raises GroundupError where the fast engine and the exact one disagree.
    """
    out = Path(task["out"])
    if (out / "record.json").exists():
        found: Task = read_json(out / "record.json")
        return found
    tokenizer = _tokenizer(task["tokenizer"])
    number = {name: index for index, name in enumerate(task["sources"])}
    counts = np.zeros(tokenizer.vocabulary_size, np.uint64)
    size = documents = 0
    with staged_directory(out) as directory:
        writer = ShardWriter(
            directory,
            dtype_for(tokenizer.vocabulary_size),
            pad_id=tokenizer.pad,
            sources=[ShardSource(name) for name in task["sources"]],
        )
        with writer:
            for rows in _read(Path(task["corpus"]), task["groups"]):
                if not documents and tokenizer.differs(rows[0].text[:CHECKED]):
                    raise GroundupError(
                        f"{tokenizer.engine} and tokenizers give different ids for a text of {task['corpus']}; "
                        "please report it, with the text"
                    )
                ids, lengths = encode_rows(tokenizer, rows)
                writer.add_many(ids, lengths, [number[row.mixture] for row in rows])
                counts += np.bincount(ids, minlength=len(counts)).astype(np.uint64)
                size += sum(text_size(row.text) for row in rows)
                documents += len(rows)
        write_bytes(directory / "counts.bin", counts.astype("<u8").tobytes())
        record = {"documents": documents, "bytes": size, "tokens": int(counts.sum())}
        write_json(directory / "record.json", record)
    return record


def encode_rows(tokenizer: Tokenizer, rows: Sequence[Row]) -> tuple[np.ndarray, list[int]]:
    """Ids of documents end to end, uint32 [tokens], each with <|endoftext|> behind it; and the length of each."""
    end = np.array([tokenizer.endoftext], np.uint32)
    parts: list[np.ndarray] = []
    for row in rows:
        if row.messages is None:
            parts.append(tokenizer.encode_array(row.text))
        else:
            parts.append(np.array(encode_chat(tokenizer, json.loads(row.messages)).ids, np.uint32))
        parts.append(end)
    return np.concatenate(parts), [len(part) + 1 for part in parts[::2]]


@lru_cache(maxsize=1)
def _tokenizer(folder: str) -> Tokenizer:
    return Tokenizer.load(Path(folder))


def open_table(path: Path) -> pq.ParquetFile:
    """A file of the corpus. Raises UserError where it is no Parquet file."""
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise UserError(f"not a Parquet file: {error}", where=str(path), mend="build the corpus again") from error


def document_batches(corpus: Path, split: str, columns: Sequence[str]) -> Iterator[list[Any]]:
    """The named columns of a split as Arrow arrays, batch after batch, in order."""
    for path in sorted((corpus / "documents").glob(f"{split}-*.parquet")):
        with open_table(path) as file:
            for batch in row_batches(file, range(file.num_row_groups), columns):
                yield [batch.column(name) for name in columns]


def row_batches(file: pq.ParquetFile, groups: Iterable[int], columns: Sequence[str]) -> Iterator[Any]:
    """Record batches of row groups, of so few rows that their texts are no more than some megabytes."""
    column = file.schema_arrow.names.index("text")
    for group in groups:
        meta = file.metadata.row_group(group)
        mean = meta.column(column).total_uncompressed_size / max(1, meta.num_rows)
        rows = int(min(BATCH, max(1, BATCH_BYTES // max(1, mean))))
        yield from file.iter_batches(rows, row_groups=[group], columns=list(columns))


def _read(corpus: Path, groups: Sequence[tuple[str, int]]) -> Iterator[list[Row]]:
    """Documents of row groups, in lists."""
    names = list(dict.fromkeys(name for name, _ in groups))
    for name in names:
        with open_table(corpus / "documents" / name) as file:
            columns = [column for column in COLUMNS if column in file.schema_arrow.names]
            chosen = [group for each, group in groups if each == name]
            for batch in row_batches(file, chosen, columns):
                values = [batch.column(column).to_pylist() for column in columns]
                yield [Row(*row) for row in zip(*values, strict=True)]


def text_size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))
