"""Token shards: documents as ids in flat binary files that are mapped into memory, never loaded.

NNNNN.bin           the ids of all documents in a row, little-endian uint16 or uint32
NNNNN.mask.bin      one byte an id, 1 where the id is learned (only in shards with a loss mask)
NNNNN.offsets.bin   uint64, documents + 1: where each document begins
NNNNN.sources.bin   uint16, a document's source as an index into `sources`
index.json          dtype, sources with their weights, and for every shard its counts and checksums
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from groundup.run import GroundupError, UserError, read_json, sha256_file, write_json

VERSION = 1
SHARD_TOKENS = 2**27  # 256 MiB of uint16


@dataclass(frozen=True)
class ShardSource:
    """Where documents come from, and how often one pass shows them (see the recipe's `corpus.sources`)."""

    name: str
    weight: float = 1.0
    epochs: float | None = None


def dtype_for(vocabulary_size: int) -> str:
    """The dtype of a vocabulary's ids: "uint16" where every id fits, else "uint32"."""
    return "uint16" if vocabulary_size <= 2**16 else "uint32"


class ShardWriter:
    """Writes documents one after the other; `close` (or leaving the `with` block) writes index.json last.

    Memory: 10 bytes for each document of the open shard; ids go straight to the file.
    """

    def __init__(
        self,
        directory: Path,
        dtype: str,
        *,
        with_mask: bool = False,
        sources: Sequence[ShardSource] = (ShardSource("all"),),
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        if dtype not in ("uint16", "uint32"):
            raise ValueError(f"dtype is {dtype!r}; it must be uint16 or uint32")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.dtype, self.with_mask = directory, dtype, with_mask
        self.sources, self.shard_tokens = list(sources), shard_tokens
        self._shards: list[dict[str, Any]] = []
        self._ids: _Out | None = None
        self._mask: _Out | None = None
        self._offsets, self._sources = array("Q", [0]), array("H")

    def add(
        self,
        ids: Sequence[int] | NDArray[np.integer[Any]],
        source: int = 0,
        mask: Sequence[bool] | NDArray[np.bool_] | None = None,
    ) -> None:
        """Append one document. Raises ValueError for an id or source out of range, or a wrong mask."""
        tokens = np.asarray(ids, dtype=np.int64)
        if tokens.size and (tokens.min() < 0 or tokens.max() > np.iinfo(self.dtype).max):
            raise ValueError(f"ids from {tokens.min()} to {tokens.max()} do not fit {self.dtype}")
        if not 0 <= source < len(self.sources):
            raise ValueError(f"source {source} is not one of the {len(self.sources)}")
        if (mask is not None) != self.with_mask or (mask is not None and len(mask) != len(tokens)):
            found = "none" if mask is None else f"one of {len(mask)}"
            raise ValueError(
                f"a document of {len(tokens)} ids needs {'a' if self.with_mask else 'no'} mask; got {found}"
            )
        if self._offsets[-1] and self._offsets[-1] + len(tokens) > self.shard_tokens:
            self._close_shard()
        if self._ids is None:
            self._ids = _Out(self._path(".bin"))
            self._mask = _Out(self._path(".mask.bin")) if self.with_mask else None
        self._ids.write(tokens.astype(np.dtype(self.dtype).newbyteorder("<")).tobytes())
        if self._mask is not None:
            self._mask.write(np.asarray(mask, dtype=np.uint8).tobytes())
        self._offsets.append(self._offsets[-1] + len(tokens))
        self._sources.append(source)

    def close(self) -> dict[str, Any]:
        """Finish the last shard and write index.json, whose content is returned."""
        self._close_shard()
        index = {
            "version": VERSION,
            "dtype": self.dtype,
            "with_mask": self.with_mask,
            "documents": sum(shard["documents"] for shard in self._shards),
            "tokens": sum(shard["tokens"] for shard in self._shards),
            "sources": [asdict(source) for source in self.sources],
            "shards": self._shards,
        }
        write_json(self.directory / "index.json", index)
        return index

    def _path(self, ending: str) -> Path:
        return self.directory / f"{len(self._shards):05d}{ending}"

    def _close_shard(self) -> None:
        if self._ids is None:
            return
        files = [self._ids.close(), *([self._mask.close()] if self._mask else [])]
        for ending, column, kind in (
            (".offsets.bin", self._offsets, "<u8"),
            (".sources.bin", self._sources, "<u2"),
        ):
            out = _Out(self._path(ending))
            out.write(np.asarray(column).astype(kind).tobytes())
            files.append(out.close())
        shard = {
            "name": f"{len(self._shards):05d}",
            "documents": len(self._sources),
            "tokens": self._offsets[-1],
            "files": {name: {"bytes": size, "sha256": sha256} for name, size, sha256 in files},
        }
        self._shards.append(shard)
        self._ids = self._mask = None
        self._offsets, self._sources = array("Q", [0]), array("H")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        for out in (self._ids, self._mask):
            if out is not None:
                out.close()


class _Out:
    """A file that knows its size and SHA-256 when it closes."""

    def __init__(self, path: Path) -> None:
        self._path, self._size, self._hash = path, 0, hashlib.sha256()
        self._file: BinaryIO = path.open("wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def close(self) -> tuple[str, int, str]:
        self._file.close()
        return self._path.name, self._size, self._hash.hexdigest()


class TokenShards:
    """Documents of a shard directory, by number in the order they were written.

    `lengths` int64 [documents]: tokens of each; `source_numbers` uint16 [documents]; `sources`: what the
    numbers mean. Memory: 10 bytes a document; the ids stay on disk and are mapped.
    """

    def __init__(self, directory: Path) -> None:
        """Open a directory. Raises UserError without an index, GroundupError for files unlike it."""
        self.directory = Path(directory)
        path = self.directory / "index.json"
        try:
            index = read_json(path)
        except FileNotFoundError as error:
            raise UserError("no token shards", where=str(path), mend="build the tokenizer stage first") from error
        if index.get("version") != VERSION:
            raise UserError(f"token shards of version {index.get('version')}", where=str(path), expected=str(VERSION))
        self.index: dict[str, Any] = index
        self.sources = [ShardSource(**source) for source in index["sources"]]
        self.with_mask: bool = index["with_mask"]
        self.tokens: int = index["tokens"]
        self._dtype = np.dtype(index["dtype"]).newbyteorder("<")
        for shard in index["shards"]:
            self._check_sizes(shard)
        offsets = [self._read(shard, ".offsets.bin", "<u8").astype(np.int64) for shard in index["shards"]]
        numbers = [self._read(shard, ".sources.bin", "<u2").astype(np.uint16) for shard in index["shards"]]
        empty = np.zeros(0, np.int64)
        self.lengths: NDArray[np.int64] = np.concatenate([np.diff(part) for part in offsets] or [empty])
        self.source_numbers: NDArray[np.uint16] = np.concatenate(numbers or [empty.astype(np.uint16)])
        self._starts: NDArray[np.int64] = np.concatenate([part[:-1] for part in offsets] or [empty])
        counts = [shard["documents"] for shard in index["shards"]]
        self._first: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._ids = [self._map(shard, ".bin", self._dtype) for shard in index["shards"]]
        self._masks = (
            [self._map(shard, ".mask.bin", np.dtype(np.uint8)) for shard in index["shards"]] if self.with_mask else []
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def doc(self, number: int) -> NDArray[np.integer[Any]]:
        """The ids of one document: a view into the mapped file, [length]."""
        return self.span(number, 0, int(self.lengths[number]))

    def span(self, number: int, start: int, end: int) -> NDArray[np.integer[Any]]:
        """Ids `start` to `end` (excluded) of one document: a view into the mapped file."""
        shard, base = self._locate(number)
        return self._ids[shard][base + start : base + end]

    def mask(self, number: int) -> NDArray[np.bool_] | None:
        """The loss mask of one document, [length]; None in shards without."""
        return self.mask_span(number, 0, int(self.lengths[number]))

    def mask_span(self, number: int, start: int, end: int) -> NDArray[np.bool_] | None:
        """The loss mask of ids `start` to `end` (excluded) of one document; None in shards without."""
        if not self.with_mask:
            return None
        shard, base = self._locate(number)
        return self._masks[shard][base + start : base + end].view(np.bool_)

    def source(self, number: int) -> ShardSource:
        """Where one document comes from."""
        return self.sources[int(self.source_numbers[number])]

    def verify(self) -> list[str]:
        """Hash every file again; one line for each whose checksum is not the index's."""
        return [
            f"{self.directory / name}: its content is not what was written"
            for shard in self.index["shards"]
            for name, entry in shard["files"].items()
            if sha256_file(self.directory / name) != entry["sha256"]
        ]

    def _locate(self, number: int) -> tuple[int, int]:
        if len(self._ids) == 1:
            return 0, int(self._starts[number])
        return int(np.searchsorted(self._first, number, side="right")) - 1, int(self._starts[number])

    def _check_sizes(self, shard: dict[str, Any]) -> None:
        for name, entry in shard["files"].items():
            path = self.directory / name
            found = path.stat().st_size if path.exists() else None
            if found != entry["bytes"]:
                raise GroundupError(f"{path} has {found} bytes; its index says {entry['bytes']}")

    def _read(self, shard: dict[str, Any], ending: str, kind: str) -> NDArray[Any]:
        return np.fromfile(self.directory / (shard["name"] + ending), dtype=kind)

    def _map(self, shard: dict[str, Any], ending: str, dtype: "np.dtype[Any]") -> NDArray[Any]:
        if shard["tokens"] == 0:
            return np.zeros(0, dtype)
        mapped = np.memmap(self.directory / (shard["name"] + ending), dtype=dtype, mode="r")
        return mapped.view(np.ndarray)  # slicing a memmap object itself is ten times slower
