"""The last phase: a segment's documents that stay, cut into passages, split, and written as they are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.corpus.accounts import count, without
from groundup.corpus.columns import as_numpy, flags, numbers, strings
from groundup.corpus.documents import Batch
from groundup.corpus.funnel import SourceFunnel
from groundup.corpus.keys import read_rows_of
from groundup.corpus.plan import Beat, Plan, Segment, finished_folder
from groundup.corpus.segments import read_texts
from groundup.corpus.sizes import as_texts, measure, utf8
from groundup.corpus.store import SCHEMA, TableWriter
from groundup.corpus.text import digest, passages, split_position
from groundup.run import write_json

SPLITS = ("train", "validation")
EXACT, NEAR, EXACT_RULE = "exact_duplicates", "near_duplicates", "exact_duplicate"
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
        for batch in _kept(plan, segment, funnel):
            batch = _passages(batch, limit)
            identities = [digest(text) for text in _each(batch.texts)]
            positions = np.array([split_position(identity) for identity in identities])
            lowest = min(lowest, positions.min())
            held = positions < fraction if threshold is None else positions <= max(fraction, threshold)
            columns = batch.columns | {
                "id": strings([identity.hex() for identity in identities]),
                "source": batch.columns["file"],
                "mixture": strings([name] * len(batch)),
            }
            for split, writer in writers.items():
                _write(writer, split, columns, held == (split == "validation"), funnel)
            beat(int(as_numpy(batch.columns["bytes"]).sum()))
        for writer in writers.values():
            writer.close()
        write_json(folder / "record.json", {"funnel": funnel.dump(), "lowest_position": lowest})


def _kept(plan: Plan, segment: Segment, funnel: SourceFunnel) -> Iterator[Batch]:
    """The segment's row groups less the duplicates, which are counted."""
    duplicates = []
    if plan.section.dedup.exact:
        step, phase = (EQUAL_NOW, "settle_again") if plan.refines else (EXACT, "settle")
        duplicates.append((dropped(plan, segment, phase, "exact"), step, EXACT_RULE))
    if plan.section.dedup.near is not None:
        duplicates.append((dropped(plan, segment, "cluster", "near"), NEAR, "near_duplicate"))
    for batch in read_texts(plan.texts(segment)):
        for losers, step, rule in duplicates:
            batch = without(batch, losers, step, rule, funnel)
        count(batch, "kept", funnel)
        if len(batch):
            yield batch


def dropped(plan: Plan, segment: Segment, phase: str, name: str) -> np.ndarray:
    """Rows (in the unit) of the segment's unit that a phase decided to drop, rising."""
    low = segment.unit << 32
    found = read_rows_of(plan.decisions(phase, name), low, low + 2**32)
    return (found[:, 0] & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _passages(batch: Batch, limit: int | None) -> Batch:
    """The documents, those of more than `limit` characters as passages; a chat is never cut."""
    if limit is None:
        return batch
    is_chat = as_numpy(batch.columns["messages"].is_valid())
    long = (as_numpy(pc.utf8_length(batch.texts)) > limit) & ~is_chat
    if not long.any():
        return batch
    rows: list[int] = []
    texts: list[str] = []
    for row, (text, is_long) in enumerate(zip(batch.texts.to_pylist(), long.tolist(), strict=True)):
        pieces = passages(text, limit) if is_long else [text]
        rows += [row] * len(pieces)
        texts += pieces
    cut = as_texts(texts)
    sizes, words = measure(cut)
    changed = {"text": cut, "bytes": numbers(sizes), "words": numbers(words)}
    kept = Batch({name: column for name, column in batch.columns.items() if name not in changed})
    return Batch(kept.take_rows(rows).columns | changed)


def _each(texts: pa.LargeStringArray) -> Iterator[memoryview]:
    """The UTF-8 of each text, not copied."""
    data, offsets = utf8(texts)
    view = data.data
    return (view[start:stop] for start, stop in pairwise(offsets.tolist()))


def _write(
    writer: TableWriter, split: str, columns: dict[str, pa.Array], chosen: np.ndarray, funnel: SourceFunnel
) -> None:
    """Append the rows at which `chosen`, bool [n], is true, and count them."""
    if not chosen.any():
        return
    mask = None if chosen.all() else flags(chosen)
    part = {name: column if mask is None else column.filter(mask) for name, column in columns.items()}
    sizes = as_numpy(part["bytes"])
    writer.add({name: part[name] for name in SCHEMA.names}, sizes)
    funnel.count(split, len(sizes), int(sizes.sum()), int(as_numpy(part["words"]).sum()))


def documents_in(folder: Path) -> list[Path]:
    """The documents files that a task of this phase wrote."""
    return sorted(folder.glob("*.parquet"))
