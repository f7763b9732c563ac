"""Work units: stretches of one source of about the same size, the grain in which a corpus is read.

Units and their order follow from the names and sizes of the files (of Parquet, of the row groups) alone, never from
the machine or its workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, chain, pairwise, repeat
from typing import Any

from groundup.corpus import repositories
from groundup.corpus.builtin import read_builtin
from groundup.corpus.documents import Part, Raw, ReaderOptions, Refused
from groundup.corpus.listing import name_of, scheme_of
from groundup.corpus.readers import is_splittable, parquet_row_groups, read_part
from groundup.corpus.sources import Source
from groundup.recipe import SourceTable

# Bytes of content in a byte as stored, by the end of the name. Measured on 25 MB of English JSONL: gzip 2.8,
# zstandard 2.8 to 3.7, bzip2 3.5, xz 3.7; Parquet 1.7 (snappy) to 2.5 (zstandard); pages in WARC some 4.
UNPACKED = {".gz": 3, ".zst": 3, ".bz2": 4, ".xz": 4}
UNPACKED_PARQUET = 2
_LOOKS = 16  # remote files looked into at a time
_EXCERPT = 1500  # characters of a refused program


@dataclass(frozen=True, slots=True)
class Unit:
    """What one worker reads in one go.

    Args:
        index: its number in the plan from 0.
        source: number of its source.
        parts: files and stretches of files in their order.
        builtin: the name of the built-in text that it is instead.
        documents: read at most so many.
    """

    index: int
    source: int
    parts: tuple[Part, ...] = ()
    builtin: str | None = None
    documents: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The unit as plain values; file names that are no UTF-8 are written in hexadecimal."""
        return asdict(self) | {"parts": [_part_as_json(part) for part in self.parts]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Unit:
        """The unit that `as_json` wrote."""
        return cls(**(content | {"parts": tuple(_part_from_json(part) for part in content["parts"])}))


def make_units(sources: Sequence[Source], target_bytes: int) -> list[Unit]:
    """The units of all sources in their order.

    Consecutive parts of a source go together up to `target_bytes` of content (estimated, see `UNPACKED`); a bigger
    JSONL or Parquet file is cut where it can be, any other is a unit of its own. A source with a number of documents
    is one unit, since they are counted along its order; so is a built-in text.
    """
    units: list[Unit] = []
    for source in sources:
        limit = source.table.documents
        if source.builtin is not None or limit is not None:
            units.append(Unit(len(units), source.index, source.parts, source.builtin, limit))
            continue
        for parts in _packed(_pieces(source.parts, target_bytes), target_bytes):
            units.append(Unit(len(units), source.index, tuple(parts)))
    return units


def read_unit(unit: Unit, table: SourceTable | None, options: ReaderOptions, seed: int) -> Iterator[Raw | Refused]:
    """All documents of a unit in their order, and what is none; it ends with the last of `unit.documents`.

    Every item's `file` names the file that it comes from (for the story world, the text's own name).

    Args:
        table: the source's options; those that count here are in the unit and `options` already.
        seed: of the simulators.
    """
    if unit.builtin is not None:
        found = read_builtin(unit.builtin, unit.documents, seed)
    else:
        found = (item for part in unit.parts for item in _read(part, options))
    left = unit.documents
    for item in found:
        yield item
        if left is not None and isinstance(item, Raw):
            left -= 1
            if left == 0:
                return


def content_bytes(part: Part) -> int:
    """About how many bytes a part has when unpacked."""
    if part.format == "parquet":
        return part.bytes * UNPACKED_PARQUET
    return part.bytes * UNPACKED.get(os.path.splitext(name_of(part.path))[1].lower(), 1)


def _pieces(parts: Sequence[Part], target_bytes: int) -> Iterator[Part]:
    """All parts, the big ones cut. Those that have to be looked into far away are looked into at the same time."""
    targets = repeat(target_bytes)
    if any(scheme_of(part.path) and part.format == "parquet" for part in parts):
        with ThreadPoolExecutor(_LOOKS) as pool:
            yield from chain.from_iterable(pool.map(cut, parts, targets))
    else:
        yield from chain.from_iterable(map(cut, parts, targets))


def cut(part: Part, target_bytes: int) -> list[Part]:
    """Stretches of at most about `target_bytes` of a big file that can be read from the middle; else the part alone.

    A JSONL file that is not compressed is cut into equal stretches of bytes, whose readers take the lines that begin
    in them; a Parquet file between its row groups. Web servers need not give the middle of a file.
    """
    if content_bytes(part) <= target_bytes or scheme_of(part.path) in ("http", "https"):
        return [part]
    if part.format == "jsonl" and is_splittable(part.path):
        pieces = -(-part.bytes // target_bytes)
        borders = [number * part.bytes // pieces for number in range(pieces + 1)]
        behind = _lines_before(part.path, borders[:-1])
        return [
            replace(part, bytes=stop - start, start=start, stop=stop, behind=lines)
            for (start, stop), lines in zip(pairwise(borders), behind, strict=True)
        ]
    if part.format == "parquet":
        return _row_groups(part, target_bytes)
    return [part]


def _lines_before(path: str, places: list[int]) -> list[int]:
    """How many lines begin before each of the rising `places`, the first of them 0; zeros where that isn't cheap."""
    counts = [0] * len(places)
    if not os.path.isfile(path):
        return counts
    with open(path, "rb", buffering=0) as file:
        for number, (start, stop) in enumerate(pairwise(place - (place > 0) for place in places), 1):
            counts[number] = counts[number - 1] + (start == 0 and stop > 0)
            file.seek(start)
            while start < stop and (block := file.read(min(2**20, stop - start))):
                counts[number] += block.count(b"\n")
                start += len(block)
    return counts


def _row_groups(part: Part, target_bytes: int) -> list[Part]:
    """A Parquet file in stretches of consecutive row groups up to the target; their bytes are shares of the file's."""
    groups = parquet_row_groups(part.path)
    if len(groups) < 2:
        return [part]
    ends = [0, *accumulate(max(1, size) for size in groups)]
    borders = [0]
    for group in range(1, len(groups)):
        if ends[group + 1] - ends[borders[-1]] > target_bytes:
            borders.append(group)
    stored = [part.bytes * end // ends[-1] for end in ends]
    return [
        replace(part, bytes=stored[stop] - stored[start], start=start, stop=stop)
        for start, stop in pairwise([*borders, len(groups)])
    ]


def _packed(parts: Iterable[Part], target_bytes: int) -> Iterator[list[Part]]:
    """Consecutive parts together up to the target, at least one in each."""
    pending: list[Part] = []
    size = 0
    for part in parts:
        more = content_bytes(part)
        if pending and size + more > target_bytes:
            yield pending
            pending, size = [], 0
        pending.append(part)
        size += more
    if pending:
        yield pending


def _read(part: Part, options: ReaderOptions) -> Iterator[Raw | Refused]:
    """What a reader finds, without the programs that no person wrote."""
    for item in read_part(part, options):
        if part.format == "code" and isinstance(item, Raw):
            reason = repositories.refused(part.path, item.text)
            if reason is not None:
                yield Refused(reason, item.file, item.record, item.text[:_EXCERPT])
                continue
        yield item


def _part_as_json(part: Part) -> dict[str, Any]:
    content = asdict(part)
    try:
        part.path.encode("utf-8")
    except UnicodeEncodeError:
        content["path"] = {"hex": os.fsencode(part.path).hex()}
    return content


def _part_from_json(content: dict[str, Any]) -> Part:
    path = content["path"]
    return Part(**(content | {"path": path if isinstance(path, str) else os.fsdecode(bytes.fromhex(path["hex"]))}))
