"""The last phase: a segment's documents that stay, cut into passages, split, and written as they are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.corpus.funnel import SourceFunnel
from groundup.corpus.keys import read_rows_of
from groundup.corpus.plan import Beat, Plan, Segment, finished_folder
from groundup.corpus.sizes import as_texts, measure, utf8
from groundup.corpus.store import SCHEMA, TableWriter, read_groups
from groundup.corpus.text import digest, passages, split_position
from groundup.run import write_json

SPLITS = ("train", "validation")
EXACT, NEAR = "exact_duplicates", "near_duplicates"
EQUAL_NOW = "equal_without_lines"  # documents that are equal once lines are removed


def write(
    plan: Plan,
    index: int,
    beat: Beat,
    limit: int | None,
    *,
    phase: str = "write",
    threshold: float | None = None,
) -> None:
    """Make WORK/write/<segment>: train and validation files and record.json.

    Documents of more than `limit` characters are cut into passages. A passage is in validation when its digest, as a
    number in [0, 1), is below `validation_fraction`, or at most `threshold` where that is given. So a text is on the
    same side in every corpus it occurs in.
    """
    segment = plan.segments[index]
    name, _ = plan.sources[plan.units[segment.unit].source]
    funnel = SourceFunnel(name)
    fraction = plan.section.validation_fraction
    with finished_folder(plan.place(phase, index)) as folder:
        writers = {split: TableWriter(folder / f"{split}-{index:05d}.parquet", SCHEMA) for split in SPLITS}
        lowest = 1.0
        for table in _kept(plan, segment, funnel):
            table = _passages(table, limit)
            identities = [digest(text) for text in _each(table.column("text"))]
            positions = np.array([split_position(identity) for identity in identities])
            lowest = min(lowest, positions.min())
            held = positions < fraction if threshold is None else positions <= max(fraction, threshold)
            columns = {name: table.column(name) for name in table.column_names} | {
                "id": pa.array([identity.hex() for identity in identities]),
                "source": table.column("file"),
                "mixture": pa.array([name] * len(table)),
            }
            for split, writer in writers.items():
                _write(writer, split, columns, held == (split == "validation"), funnel)
            beat(table.column("bytes").to_numpy().sum())
        for writer in writers.values():
            writer.close()
        write_json(folder / "record.json", {"funnel": funnel.dump(), "lowest_position": lowest})


def _kept(plan: Plan, segment: Segment, funnel: SourceFunnel) -> Iterator[pa.RecordBatch]:
    """The segment's row groups less the duplicates, which are counted."""
    duplicates = []
    if plan.section.dedup.exact:
        step, phase = (EQUAL_NOW, "settle_again") if plan.refines else (EXACT, "settle")
        duplicates.append((step, dropped(plan, segment, phase, "exact")))
    if plan.section.dedup.near is not None:
        duplicates.append((NEAR, dropped(plan, segment, "cluster", "near")))
    for table in read_groups(plan.texts(segment) / "documents.parquet"):
        for step, losers in duplicates:
            table = without(table, step, losers, funnel)
        _count(table, "kept", funnel)
        if len(table):
            yield table.combine_chunks().to_batches()[0]


def dropped(plan: Plan, segment: Segment, phase: str, name: str) -> np.ndarray:
    """Rows (in the unit) of the segment's unit that a phase decided to drop, rising."""
    low = segment.unit << 32
    found = read_rows_of(plan.decisions(phase, name), low, low + 2**32)
    return (found[:, 0] & np.uint64(0xFFFFFFFF)).astype(np.int64)


def without(table: pa.Table, step: str, losers: np.ndarray, funnel: SourceFunnel) -> pa.Table:
    """The table less the rows `losers`; both what goes and what stays are counted."""
    lost = np.isin(table.column("row").to_numpy().astype(np.int64), losers, assume_unique=True)
    for number in np.flatnonzero(lost).tolist():
        row = {name: table.column(name)[number] for name in ("file", "record", "bytes", "words", "text")}
        funnel.reject(
            step,
            step.removesuffix("s"),
            file=row["file"].as_py(),
            record=row["record"].as_py(),
            text=row["text"].as_py,
            size=row["bytes"].as_py(),
            words=row["words"].as_py(),
        )
    table = table.filter(pa.array(~lost)) if lost.any() else table
    _count(table, step, funnel)
    return table


def _count(table: pa.Table, step: str, funnel: SourceFunnel) -> None:
    size, words = (int(table.column(name).to_numpy().sum()) for name in ("bytes", "words"))
    funnel.count(step, len(table), size, words)


def _passages(table: pa.RecordBatch, limit: int | None) -> pa.RecordBatch:
    """The documents, those of more than `limit` characters as passages; a chat is never cut."""
    if limit is None:
        return table
    long = pc.and_(pc.greater(pc.utf8_length(table.column("text")), limit), pc.is_null(table.column("messages")))
    if not pc.any(long).as_py():
        return table
    rows: list[int] = []
    texts: list[str] = []
    for row, (text, is_long) in enumerate(zip(table.column("text").to_pylist(), long.to_pylist(), strict=True)):
        pieces = passages(text, limit) if is_long else [text]
        rows += [row] * len(pieces)
        texts += pieces
    cut = as_texts(texts)
    sizes, words = measure(cut)
    kept = [name for name in table.column_names if name not in ("text", "bytes", "words")]
    columns = {name: table.column(name).take(pa.array(rows)) for name in kept}
    return pa.record_batch(columns | {"text": cut, "bytes": pa.array(sizes), "words": pa.array(words)})


def _each(texts: pa.LargeStringArray) -> Iterator[memoryview]:
    """The UTF-8 of each text, not copied."""
    data, offsets = utf8(texts)
    view = memoryview(data)  # type: ignore[arg-type]  # an array has a buffer; its stubs say so from Python 3.12
    return (view[start:stop] for start, stop in pairwise(offsets.tolist()))


def _write(
    writer: TableWriter, split: str, columns: dict[str, pa.Array], chosen: np.ndarray, funnel: SourceFunnel
) -> None:
    """Append the rows at which `chosen`, bool [n], is true, and count them."""
    if not chosen.any():
        return
    mask = None if chosen.all() else pa.array(chosen)
    part = {name: column if mask is None else column.filter(mask) for name, column in columns.items()}
    sizes = part["bytes"].to_numpy()
    writer.add({name: part[name] for name in SCHEMA.names}, sizes)
    funnel.count(split, len(sizes), int(sizes.sum()), int(part["words"].to_numpy().sum()))


def documents_in(folder: Path) -> list[Path]:
    """The documents files that a task of this phase wrote."""
    return sorted(folder.glob("*.parquet"))
