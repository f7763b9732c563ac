"""A segment on disk: the texts of a stretch of documents, and the tables by which later phases find their like.

documents.parquet   the texts and all that is known of each, in order; `row` is the number in the unit
documents.npy       (row, bytes, quality) of each, for what doesn't need the texts
exact.npy           (hash, hash, ordinal) of the normalised text            where dedup.exact
lines.npy           (hash, ordinal) of each line                            where dedup.lines
sites.npy           (site and line, site, ordinal) of each line             where dedup.boilerplate
pages.npy           (site, ordinal) of each page                            where dedup.boilerplate
bands.npy           (band's hash, rank, ordinal)                            where dedup.near
fingerprints.bin    uint8, a row of `signature` numbers a document          where dedup.near
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from groundup.corpus.columns import as_numpy, numbers
from groundup.corpus.dedup import (
    NO_SITE,
    band_keys,
    exact_keys,
    fingerprints,
    keep_ranks,
    line_keys,
    page_sites,
    sign,
    site_keys,
)
from groundup.corpus.documents import Batch
from groundup.corpus.keys import KeyWriter
from groundup.corpus.plan import AGAINST, Plan
from groundup.corpus.store import TableWriter, read_groups

WORK_SCHEMA = pa.schema(
    [
        ("row", pa.uint32()),
        ("text", pa.large_string()),
        ("bytes", pa.int64()),
        ("words", pa.int64()),
        ("file", pa.string()),
        ("record", pa.int64()),
        ("url", pa.string()),
        ("language", pa.string()),
        ("language_confidence", pa.float32()),
        ("quality", pa.float32()),
        ("licence", pa.string()),
        ("messages", pa.string()),
    ]
)
SUMMARY = np.dtype([("row", np.uint32), ("bytes", np.uint64), ("quality", np.float32)])


def ordinals(unit: int, rows: np.ndarray) -> np.ndarray:
    """The documents' numbers in the whole corpus, uint64."""
    return (np.uint64(unit) << np.uint64(32)) | rows.astype(np.uint64)


class SegmentFolder:
    """Writes one segment into `folder`; `final` says that its texts won't change any more."""

    def __init__(self, folder: Path, plan: Plan, unit: int, *, first: bool, final: bool) -> None:
        folder.mkdir(exist_ok=True)
        dedup = plan.section.dedup
        self.folder, self.unit, self.dedup = folder, unit, dedup
        self.finished = plan.units[unit].source == AGAINST
        self.bytes = 0
        # Written once and read once or twice: compressing costs more time than it saves.
        self._texts = TableWriter(folder / "documents.parquet", WORK_SCHEMA, compression="none")
        self._summaries: list[np.ndarray] = []
        self._tables: dict[str, KeyWriter] = {}
        if dedup.exact:
            self._tables["exact"] = KeyWriter(folder / "exact.npy", 3)
        if first and dedup.lines is not None:
            self._tables["lines"] = KeyWriter(folder / "lines.npy", 2)
        if first and dedup.boilerplate is not None:
            self._tables["sites"] = KeyWriter(folder / "sites.npy", 3)
            self._tables["pages"] = KeyWriter(folder / "pages.npy", 2)
        self._fingerprints: BinaryIO | None = None
        if final and dedup.near is not None:
            self._tables["bands"] = KeyWriter(folder / "bands.npy", 3)
            self._fingerprints = (folder / "fingerprints.bin").open("wb")

    def add(self, batch: Batch, rows: np.ndarray) -> None:
        """Append documents; `rows` are their numbers in the unit, rising."""
        sizes = as_numpy(batch.columns["bytes"])
        self._texts.add({**batch.columns, "row": numbers(rows, np.uint32)}, sizes)
        summary = np.empty(len(rows), SUMMARY)
        summary["row"], summary["bytes"] = rows, sizes
        quality = as_numpy(batch.columns["quality"])
        summary["quality"] = quality
        self._summaries.append(summary)
        self.bytes += int(sizes.sum())
        self._add_keys(batch, sizes, summary["quality"], ordinals(self.unit, rows))

    def _add_keys(self, batch: Batch, sizes: np.ndarray, quality: np.ndarray, numbers: np.ndarray) -> None:
        """What the tables hold of a batch; `numbers` are its ordinals."""
        if (table := self._tables.get("exact")) is not None:
            keys = exact_keys(batch.texts)
            table.add(keys[:, 0], keys[:, 1], numbers)
        if (table := self._tables.get("lines")) is not None and self.dedup.lines is not None:
            hashes, documents = line_keys(batch.texts, self.dedup.lines)
            table.add(hashes, numbers[documents])
        if (table := self._tables.get("sites")) is not None:
            both, sites, documents = site_keys(batch.texts, batch.columns["url"])
            table.add(both, sites, numbers[documents])
            sites = page_sites(batch.columns["url"])
            self._tables["pages"].add(sites[sites != NO_SITE], numbers[sites != NO_SITE])
        if self._fingerprints is not None and (near := self.dedup.near) is not None:
            signatures = sign(batch.texts, near)
            self._fingerprints.write(np.ascontiguousarray(fingerprints(signatures)).tobytes())
            bands = band_keys(signatures, near)
            ranks = keep_ranks(near, sizes, quality, finished=self.finished)
            each = bands.shape[1]
            self._tables["bands"].add(bands.ravel(), np.repeat(ranks, each), np.repeat(numbers, each))

    def close(self) -> int:
        """Write what is pending; returns the documents written."""
        self._texts.close()
        np.save(
            self.folder / "documents.npy",
            np.concatenate(self._summaries) if self._summaries else np.empty(0, SUMMARY),
            allow_pickle=False,
        )
        for table in self._tables.values():
            table.close()
        if self._fingerprints is not None:
            self._fingerprints.close()
        return self._texts.rows


class SegmentWriter:
    """Cuts a unit's documents into segments of about `shard_bytes` of text, in folders 00000, 00001, …

    A segment ends at the document that fills it, wherever batches end.
    """

    def __init__(self, folder: Path, plan: Plan, unit: int) -> None:
        self.folder, self.plan, self.unit = folder, plan, unit
        self.segments: list[dict[str, int]] = []
        self._open: SegmentFolder | None = None
        self._row = 0

    def add(self, batch: Batch) -> None:
        """Append documents."""
        sizes = as_numpy(batch.columns["bytes"])
        start = 0
        while start < len(batch):
            if self._open is None:
                self._open = SegmentFolder(
                    self.folder / f"{len(self.segments):05d}",
                    self.plan,
                    self.unit,
                    first=True,
                    final=not self.plan.refines,
                )
            room = self.plan.section.shard_bytes - self._open.bytes
            stop = min(len(batch), start + 1 + int(np.searchsorted(np.cumsum(sizes[start:]), room)))
            part = batch if (start, stop) == (0, len(batch)) else batch.take_rows(range(start, stop))
            self._open.add(part, np.arange(self._row, self._row + stop - start))
            self._row += stop - start
            start = stop
            if self._open.bytes >= self.plan.section.shard_bytes:
                self._close()

    def _close(self) -> None:
        if self._open is not None:
            rows = self._open.close()
            self.segments.append({"rows": rows, "bytes": self._open.bytes})
            self._open = None

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def read_texts(folder: Path) -> Iterator[Batch]:
    """The documents of a segment with all that is known of them, a row group at a time."""
    for table in read_groups(folder / "documents.parquet"):
        yield Batch({name: table.column(name).combine_chunks() for name in WORK_SCHEMA.names})


def read_summaries(folder: Path) -> np.ndarray:
    """documents.npy of a segment."""
    table: np.ndarray = np.load(folder / "documents.npy", allow_pickle=False)
    return table


def read_fingerprints(folder: Path, wanted: np.ndarray, width: int) -> np.ndarray:
    """The fingerprints of the documents at the places `wanted` (rising) of a segment, uint8 [m, width]."""
    mapped: Any = np.memmap(folder / "fingerprints.bin", np.uint8, "r").reshape(-1, width)
    return np.array(mapped[wanted])
