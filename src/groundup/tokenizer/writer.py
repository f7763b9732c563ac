"""Writing token shards (see `shards` for the files): documents in order, checksums, and one index of several parts."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from groundup.run import read_json, write_json
from groundup.tokenizer.shards import VERSION, ShardSource

SHARD_TOKENS = 2**27  # 256 MiB of uint16


class ShardWriter:
    """Writes documents one after the other; `close` (or leaving the `with` block) writes index.json last.

    Memory: 10 bytes for each document of the open shard; ids go straight to the file. A directory without index.json
    is unfinished, and may be begun again.
    """

    def __init__(
        self,
        directory: Path,
        dtype: str,
        *,
        pad_id: int,
        with_mask: bool = False,
        sources: Sequence[ShardSource] = (ShardSource("all"),),
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        if dtype not in ("uint16", "uint32"):
            raise ValueError(f"dtype is {dtype!r}; it must be uint16 or uint32")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.dtype, self.with_mask, self.pad_id = directory, dtype, with_mask, pad_id
        self.sources, self.shard_tokens = list(sources), shard_tokens
        self._shards: list[dict[str, Any]] = []
        self._open: _OpenShard | None = None

    def add(
        self,
        ids: Sequence[int] | NDArray[np.integer[Any]],
        source: int = 0,
        mask: Sequence[bool] | NDArray[np.bool_] | None = None,
    ) -> None:
        """Append one document. Raises ValueError for an id or source out of range, or a wrong mask."""
        self.add_many(np.asarray(ids, np.int64), [len(ids)], [source], None if mask is None else np.asarray(mask, bool))

    def add_many(
        self,
        ids: NDArray[np.integer[Any]],
        lengths: Sequence[int] | NDArray[np.integer[Any]],
        sources: Sequence[int] | NDArray[np.integer[Any]],
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Append documents that stand end to end.

        Args:
            ids: [tokens]; lengths, sources: [documents]; mask: [tokens], whether each is learned.

        Raises ValueError as `add` does.
        """
        sizes, numbers = np.asarray(lengths).astype(np.int64), np.asarray(sources).astype(np.int64)
        self._check(ids, sizes, numbers, mask)
        ends = np.cumsum(sizes)
        done = 0
        while done < len(sizes):
            begin = int(ends[done - 1]) if done else 0
            room = self.shard_tokens - (self._open.tokens if self._open else 0)
            more = int(np.searchsorted(ends, begin + room, side="right")) - done
            if more <= 0 and self._open is not None and self._open.tokens:
                self._close_shard()  # what doesn't fit begins the next one
                continue
            some = slice(done, done + max(1, more))  # a document greater than a shard has one of its own
            done = min(some.stop, len(sizes))
            end = int(ends[done - 1])
            if self._open is None:
                self._open = _OpenShard(self.directory / f"{len(self._shards):05d}", self.dtype, self.with_mask)
            self._open.write(ids[begin:end], sizes[some], numbers[some], mask[begin:end] if mask is not None else None)

    def close(self) -> dict[str, Any]:
        """Finish the last shard and write index.json, whose content is returned."""
        self._close_shard()
        return _write_index(
            self.directory,
            self.dtype,
            self.pad_id,
            self.with_mask,
            [asdict(each) for each in self.sources],
            self._shards,
        )

    def _check(
        self,
        ids: NDArray[np.integer[Any]],
        lengths: NDArray[np.int64],
        sources: NDArray[np.int64],
        mask: NDArray[np.bool_] | None,
    ) -> None:
        if ids.size and (ids.max() > np.iinfo(self.dtype).max or (ids.dtype.kind == "i" and ids.min() < 0)):
            raise ValueError(f"ids from {ids.min()} to {ids.max()} do not fit {self.dtype}")
        if len(lengths) != len(sources) or lengths.sum() != len(ids):
            raise ValueError(f"{len(lengths)} lengths, {len(sources)} sources and {len(ids)} ids are not of one batch")
        wrong = sources[(sources < 0) | (sources >= len(self.sources))]
        if len(wrong):
            raise ValueError(f"source {wrong[0]} is not one of the {len(self.sources)}")
        if (mask is not None) != self.with_mask or (mask is not None and len(mask) != len(ids)):
            found = "none" if mask is None else f"one of {len(mask)}"
            raise ValueError(f"documents of {len(ids)} ids need {'a' if self.with_mask else 'no'} mask; got {found}")

    def _close_shard(self) -> None:
        if self._open is not None:
            self._shards.append(self._open.close())
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._open is not None:
            self._open.abandon()


class _OpenShard:
    """The files of one shard while it is written, and their checksums."""

    def __init__(self, path: Path, dtype: str, with_mask: bool) -> None:
        self.path, self.tokens = path, 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._lengths: list[NDArray[np.int64]] = []
        self._sources: list[NDArray[np.int64]] = []
        self._ids = _Out(path.with_name(path.name + ".bin"))
        self._mask = _Out(path.with_name(path.name + ".mask.bin")) if with_mask else None

    def write(
        self,
        ids: NDArray[np.integer[Any]],
        lengths: NDArray[np.int64],
        sources: NDArray[np.int64],
        mask: NDArray[np.bool_] | None,
    ) -> None:
        self._ids.write(np.ascontiguousarray(ids, self._dtype))
        if self._mask is not None and mask is not None:
            self._mask.write(np.ascontiguousarray(mask, np.uint8))
        self._lengths.append(lengths)
        self._sources.append(sources)
        self.tokens += len(ids)

    def close(self) -> dict[str, Any]:
        lengths = np.concatenate(self._lengths)
        columns = ((".offsets.bin", np.append(0, np.cumsum(lengths)), "<u8"),
                   (".sources.bin", np.concatenate(self._sources), "<u2"))  # fmt: skip
        files = [self._ids.close(), *([self._mask.close()] if self._mask else [])]
        for ending, column, kind in columns:
            out = _Out(self.path.with_name(self.path.name + ending))
            out.write(column.astype(kind))
            files.append(out.close())
        return {
            "name": self.path.name,
            "documents": len(lengths),
            "tokens": self.tokens,
            "files": {name: {"bytes": size, "sha256": sha256} for name, size, sha256 in files},
        }

    def abandon(self) -> None:
        for out in (self._ids, self._mask):
            if out is not None:
                out.close()


class _Out:
    """A file that knows its size and SHA-256 when it closes."""

    def __init__(self, path: Path) -> None:
        self._path, self._size, self._hash = path, 0, hashlib.sha256()
        self._file: BinaryIO = path.open("wb")

    def write(self, values: NDArray[Any]) -> None:
        data = values.reshape(-1).view(np.uint8).data
        self._file.write(data)
        self._hash.update(data)
        self._size += values.nbytes

    def close(self) -> tuple[str, int, str]:
        self._file.close()
        return self._path.name, self._size, self._hash.hexdigest()


def join_shards(parts: Sequence[Path], directory: Path, sources: Sequence[ShardSource]) -> dict[str, Any]:
    """Make one directory of several: their shards one after the other, by hard links where the disk has them.

    Args:
        parts: directories that a `ShardWriter` closed, of one dtype, pad id and numbering of sources; at least one.
        sources: what the numbers mean in the whole.

    Returns the content of the new index.json.
    """
    directory.mkdir(parents=True, exist_ok=True)
    indexes = [read_json(part / "index.json") for part in parts]
    shards: list[dict[str, Any]] = []
    for part, index in zip(parts, indexes, strict=True):
        for shard in index["shards"]:
            name = f"{len(shards):05d}"
            files = {name + file.removeprefix(shard["name"]): (file, entry) for file, entry in shard["files"].items()}
            for new, (old, _) in files.items():
                _link(part / old, directory / new)
            shards.append({**shard, "name": name, "files": {new: entry for new, (_, entry) in files.items()}})
    first = indexes[0]
    names = [asdict(source) for source in sources]
    return _write_index(directory, first["dtype"], first["pad_id"], first["with_mask"], names, shards)


def _link(old: Path, new: Path) -> None:
    new.unlink(missing_ok=True)  # it may be another name of a part's file, which must not be written through
    try:
        os.link(old, new)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(old, new)


def _write_index(
    directory: Path,
    dtype: str,
    pad_id: int,
    with_mask: bool,
    sources: list[dict[str, Any]],
    shards: list[dict[str, Any]],
) -> dict[str, Any]:
    index = {
        "version": VERSION,
        "dtype": dtype,
        "pad_id": pad_id,
        "with_mask": with_mask,
        "documents": sum(shard["documents"] for shard in shards),
        "tokens": sum(shard["tokens"] for shard in shards),
        "sources": sources,
        "shards": shards,
    }
    write_json(directory / "index.json", index)
    return index
