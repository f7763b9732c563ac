"""The last phase: a segment's documents that stay, cut into passages, split, and written as they are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from groundup.corpus.funnel import SourceFunnel
from groundup.corpus.keys import read_rows_of
from groundup.corpus.plan import Beat, Plan, Segment, finished_folder
from groundup.corpus.store import SCHEMA, TableWriter, read_groups
from groundup.corpus.text import digest, passages, split_position
from groundup.run import write_json

SPLITS = ("train", "validation")
EXACT, NEAR = "exact_duplicates", "near_duplicates"
_CARRIED = ("record", "url", "language", "language_confidence", "quality", "licence", "messages")


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

    Documents of more than `limit` characters are cut into passages. A passage is in validation when its digest, as a number in [0, 1), is below `validation_fraction`, or at most
    `threshold` where that is given. So a text is on the same side in every corpus it occurs in.
    """
    segment = plan.segments[index]
    name, _ = plan.sources[plan.units[segment.unit].source]
    funnel = SourceFunnel(name)
    fraction = plan.section.validation_fraction

    def held_out(position: float) -> bool:
        return position < fraction or (threshold is not None and position <= threshold)

    with finished_folder(plan.place(phase, index)) as folder:
        writers = {split: TableWriter(folder / f"{split}-{index:05d}.parquet", SCHEMA) for split in SPLITS}
        lowest = 1.0
        for table in _kept(plan, segment, funnel):
            pieces = _pieces(table, name, limit)
            lowest = min(lowest, *(piece.position for piece in pieces))
            for split, writer in writers.items():
                chosen = [piece for piece in pieces if held_out(piece.position) == (split == "validation")]
                sizes = [piece.bytes for piece in chosen]
                columns = {field: [piece.columns[field] for piece in chosen] for field in SCHEMA.names}
                if chosen:
                    writer.add(columns, sizes)
                    funnel.count(split, len(chosen), sum(sizes), sum(piece.words for piece in chosen))
            beat(table.column("bytes").to_numpy().sum())
        for writer in writers.values():
            writer.close()
        write_json(folder / "record.json", {"funnel": funnel.dump(), "lowest_position": lowest})


def _kept(plan: Plan, segment: Segment, funnel: SourceFunnel) -> Iterator[pa.Table]:
    """The segment's row groups less the duplicates, which are counted."""
    duplicates = []
    if plan.section.dedup.exact and not plan.refines:
        duplicates.append((EXACT, dropped(plan, segment, "settle", "exact")))
    if plan.section.dedup.near is not None:
        duplicates.append((NEAR, dropped(plan, segment, "cluster", "near")))
    for table in read_groups(plan.texts(segment) / "documents.parquet"):
        for step, losers in duplicates:
            table = without(table, step, losers, funnel)
        _count(table, "kept", funnel)
        if len(table):
            yield table


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


class _Piece(NamedTuple):
    """A document or a passage of one: its row of the schema, and what decides its split."""

    columns: dict[str, object]
    bytes: int
    words: int
    position: float


def _pieces(table: pa.Table, mixture: str, limit: int | None) -> list[_Piece]:
    """The documents, those of more than `limit` characters as passages."""
    found = []
    for row in table.select(["text", "bytes", "words", "file", *_CARRIED]).to_pylist():
        pieces = [row["text"]]
        if limit is not None and len(row["text"]) > limit and row["messages"] is None:  # a chat is never cut
            pieces = passages(row["text"], limit)
        whole = len(pieces) == 1
        carried = {name: row[name] for name in _CARRIED} | {"source": row["file"], "mixture": mixture}
        for piece in pieces:
            identity = digest(piece)
            data = None if whole else piece.encode("utf-8")
            size, words = (row["bytes"], row["words"]) if data is None else (len(data), len(data.split()))
            columns = carried | {"id": identity.hex(), "text": piece}
            found.append(_Piece(columns, size, words, split_position(identity)))
    return found


def documents_in(folder: Path) -> list[Path]:
    """The documents files that a task of this phase wrote."""
    return sorted(folder.glob("*.parquet"))
