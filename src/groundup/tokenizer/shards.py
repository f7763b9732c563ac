"""Token shards: documents as ids in flat binary files that are mapped into memory, never loaded.

NNNNN.bin           the ids of all documents in a row, little-endian uint16 or uint32
NNNNN.mask.bin      one byte an id, 1 where the id is learned (only in shards with a loss mask)
NNNNN.offsets.bin   uint64, documents + 1: where each document begins
NNNNN.sources.bin   uint16, a document's source as an index into `sources`
index.json          dtype, pad_id, sources with their weights, and for every shard its counts and checksums
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.run import GroundupError, UserError, progress, read_json, sha256_file

VERSION = 2


@dataclass(frozen=True)
class ShardSource:
    """Where documents come from, and how often one pass shows them (see the recipe's `corpus.sources`)."""

    name: str
    weight: float = 1.0
    epochs: float | None = None


def dtype_for(vocabulary_size: int) -> str:
    """The dtype of a vocabulary's ids: "uint16" where every id fits, else "uint32"."""
    return "uint16" if vocabulary_size <= 2**16 else "uint32"


class TokenShards:
    """Documents of a shard directory, by number in the order they were written.

    `lengths` int64 [documents]: tokens of each; `source_numbers` uint16 [documents]; `sources`: what the
    numbers mean. Memory: 10 bytes a document; the ids stay on disk and are mapped.
    """

    def __init__(self, directory: Path) -> None:
        """Open a directory. Raises UserError without an index, GroundupError for files unlike it."""
        self.directory = Path(directory)
        index = _read_index(self.directory / "index.json")
        self.index: dict[str, Any] = index
        self.pad_id: int = index["pad_id"]
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

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The ids' type on disk: little-endian uint16 or uint32."""
        kind: np.dtype[Any] = self._dtype
        return kind

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
        files = [(name, entry) for shard in self.index["shards"] for name, entry in shard["files"].items()]
        damaged = []
        with progress("checking tokens", sum(entry["bytes"] for _, entry in files), "B") as bar:
            for name, entry in files:
                if sha256_file(self.directory / name) != entry["sha256"]:
                    damaged.append(f"{self.directory / name}: its content is not what was written")
                bar.advance(entry["bytes"])
        return damaged

    def require_sound(self) -> None:
        """Raises GroundupError naming the files whose content is not what was written."""
        damaged = self.verify()
        if damaged:
            lines = "\n".join(damaged)
            raise GroundupError(f"token shards are damaged:\n{lines}\nbuild the stage that wrote them again")

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


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = read_json(path)
    except FileNotFoundError as error:
        raise UserError("no token shards", where=str(path), mend="build the tokenizer stage first") from error
    except ValueError as error:
        raise GroundupError(f"{path} is damaged: {error}") from error
    if not isinstance(index, dict) or index.get("version") != VERSION:
        found = index.get("version") if isinstance(index, dict) else None
        raise UserError(
            f"token shards of version {found}",
            where=str(path),
            expected=f"version {VERSION}",
            mend="build the tokenizer stage again",
        )
    return index
