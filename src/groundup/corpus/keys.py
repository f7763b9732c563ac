"""Tables of 64-bit numbers on disk, sorted by their first column, so that any range of it is one slice.

A unit of work writes what it knows of its documents (hashes, line hashes, bands) as such tables; a later task reads
one range of the hashes from all of them. So how the hashes are divided needn't be known when they are written, and
a task's memory is what its range holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROWS_IN_MEMORY = 4_000_000  # of a range, about


class KeyWriter:
    """Collects rows of `columns` numbers and writes them sorted as `path` (.npy, uint64 [n, columns])."""

    def __init__(self, path: Path, columns: int) -> None:
        self.path, self.columns = path, columns
        self._rows: list[np.ndarray] = []

    def add(self, *columns: np.ndarray) -> None:
        """Append rows, given as their columns, uint64 [m] each; the first is what is sorted and divided by."""
        self._rows.append(np.stack([column.astype(np.uint64, copy=False) for column in columns], axis=1))

    def close(self) -> None:
        rows = np.concatenate(self._rows) if self._rows else np.empty((0, self.columns), np.uint64)
        np.save(self.path, rows[np.lexsort(rows.T[::-1])], allow_pickle=False)
        self._rows = []


def ranges(rows: int) -> int:
    """Into how many ranges so many rows are divided; a function of their number alone."""
    return max(1, -(-rows // ROWS_IN_MEMORY))


def count_rows(paths: Sequence[Path]) -> int:
    """Rows of all tables, from their headers."""
    return sum(_open(path).shape[0] for path in paths)


def read_range(paths: Sequence[Path], number: int, count: int) -> np.ndarray:
    """The rows of all tables whose first column is in range `number` of `count` equal ones: uint64 [m, columns]."""
    low, high = number * 2**64 // count, (number + 1) * 2**64 // count
    pieces = []
    for path in paths:
        table = _open(path)
        first = table[:, 0]
        start = int(np.searchsorted(first, np.uint64(low)))
        stop = len(first) if high == 2**64 else int(np.searchsorted(first, np.uint64(high)))
        if stop > start:
            pieces.append(np.array(table[start:stop]))
    if not pieces:
        return np.empty((0, _open(paths[0]).shape[1] if paths else 1), np.uint64)
    return np.concatenate(pieces)


def read_rows_of(paths: Sequence[Path], low: int, high: int) -> np.ndarray:
    """The rows of all tables whose first column is from `low` up to but not including `high`, sorted again."""
    pieces = []
    for path in paths:
        table = _open(path)
        start, stop = np.searchsorted(table[:, 0], np.array([low, high], np.uint64))
        if stop > start:
            pieces.append(np.array(table[start:stop]))
    if not pieces:
        return np.empty((0, _open(paths[0]).shape[1] if paths else 1), np.uint64)
    rows = np.concatenate(pieces)
    return rows[np.lexsort(rows.T[::-1])]


def _open(path: Path) -> np.ndarray:
    """The table, mapped and not read."""
    try:
        table: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an empty array can't be mapped
        table = np.load(path, allow_pickle=False)
    return table
