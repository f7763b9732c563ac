"""Where in a batch personal data can be: one pass of numpy over the bytes of all texts finds the few places to look.

Regular expressions then see only windows of some tens of bytes around those places, cut at the borders of the
document, so that a document's result depends on itself alone, and hostile text costs time in proportion to its
length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

_BLOCK = 2**17
_REACH = 4  # bytes from one digit to the next of the same number, at most


def byte_table(members: bytes) -> np.ndarray:
    """bool [256], true at the given bytes."""
    table = np.zeros(256, bool)
    table[list(members)] = True
    return table


_DIGIT_SEPARATORS = byte_table(b" .-/()xX\xc2\xa0\t")


class Window(NamedTuple):
    """Bytes of one document around a place: `data` begins at `origin`; the place is data[start:stop]."""

    data: bytes
    origin: int
    start: int
    stop: int


@dataclass(frozen=True)
class Numbers:
    """Runs of digits joined by separators, in order: [start, stop) of each and its number of digits, int64 [m]."""

    start: np.ndarray
    stop: np.ndarray
    digits: np.ndarray

    def of_digits(self, least: int) -> Numbers:
        chosen = np.flatnonzero(self.digits >= least)
        return Numbers(self.start[chosen], self.stop[chosen], self.digits[chosen])


class Rows:
    """The bytes of all texts of a batch after one another.

    Attributes:
        data: UTF-8 of all texts, and eight zero bytes, so that the bytes after the last can be asked for.
        size: bytes of all texts.
        offsets: int64 [n + 1], where each text begins in `data`.
        codes: uint8 [size + 8], the same as numbers.
    """

    def __init__(self, parts: Sequence[bytes | memoryview], offsets: np.ndarray) -> None:
        self.data = b"".join((*parts, bytes(8)))
        self.size = len(self.data) - 8
        self.offsets = offsets
        self.codes = np.frombuffer(self.data, np.uint8)

    @classmethod
    def of_texts(cls, texts: pa.LargeStringArray) -> Rows:
        """The rows of a large_string array [n] without nulls."""
        if not len(texts):
            return cls([], np.zeros(1, np.int64))
        _, offsets, data = texts.buffers()
        bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        first, last = int(bounds[0]), int(bounds[-1])
        return cls([memoryview(data)[first:last]] if last > first else [], bounds - first)

    @classmethod
    def of_bytes(cls, texts: Sequence[bytes]) -> Rows:
        """The same of UTF-8 as bytes."""
        return cls(texts, np.concatenate(([0], np.cumsum([len(text) for text in texts], dtype=np.int64))))

    def row_of(self, positions: np.ndarray) -> np.ndarray:
        """int64 [m], the number of the text in which each position lies."""
        return np.searchsorted(self.offsets, positions, "right") - 1

    def positions(self, holds: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """int64 [m], where `holds` (uint8 [k] to bool [k]) is true; by blocks that stay in the processor's cache."""
        found = [
            np.flatnonzero(holds(self.codes[first : min(first + _BLOCK, self.size)])) + first
            for first in range(0, self.size, _BLOCK)
        ]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    @cached_property
    def digits(self) -> np.ndarray:
        """int64 [m], where ASCII digits stand."""
        return self.positions(lambda codes: codes - np.uint8(48) < 10)

    @cached_property
    def at_signs(self) -> np.ndarray:
        """int64 [m], where @ stands."""
        return self.positions(lambda codes: codes == ord("@"))

    @cached_property
    def numbers(self) -> Numbers:
        """All digits as numbers: a digit belongs to the one before where at most three separators lie between."""
        digits = self.digits
        gaps = np.diff(digits)
        joined = gaps <= _REACH
        for between in range(1, _REACH):
            wide = np.flatnonzero(joined & (gaps > between))
            joined[wide] = _DIGIT_SEPARATORS[self.codes[digits[wide] + between]]
        borders = np.searchsorted(digits, self.offsets[1:-1])
        joined[borders[(borders > 0) & (borders < len(digits))] - 1] = False
        heads = np.flatnonzero(~joined) + 1
        edges = np.concatenate(([0], heads, [len(digits)])) if len(digits) else np.zeros(1, np.int64)
        return Numbers(digits[edges[:-1]], digits[edges[1:] - 1] + 1, np.diff(edges))

    @cached_property
    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """[start, stop) of stretches that hold every run of 19 or more ASCII characters without white space.

        Four bytes at a time: a run of 19 covers four aligned words of four bytes in a row. In such a word no byte
        is below 0x21 (else subtracting borrows into its high bit) or above 0x7f.
        """
        found = []
        for first in range(0, self.size, _BLOCK):  # a block, and the three words that begin beside its last
            words = self.codes[first : min(first + _BLOCK + 12, len(self.data) & -4)].view(np.uint32)
            plain = (((words - np.uint32(0x21212121)) | words) & np.uint32(0x80808080)) == 0
            found.append(np.flatnonzero(plain[:-3] & plain[1:-2] & plain[2:-1] & plain[3:]) + first // 4)
        full = np.concatenate(found) if found else np.zeros(0, np.int64)
        if not len(full):
            return full, full
        breaks = np.flatnonzero(np.diff(full) > 4)
        start = np.maximum(full[np.concatenate(([0], breaks + 1))] * 4 - 3, 0)
        stop = np.minimum(full[np.concatenate((breaks, [len(full) - 1]))] * 4 + 19, self.size)
        return self._cut(start, stop)

    def _cut(self, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same stretches, cut where a text ends."""
        first, last = self.row_of(start), self.row_of(stop - 1)
        parts = last - first + 1
        row = np.repeat(first, parts) + np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
        start = np.maximum(np.repeat(start, parts), self.offsets[row])
        stop = np.minimum(np.repeat(stop, parts), self.offsets[row + 1])
        return start[start < stop], stop[start < stop]

    def windows(self, start: np.ndarray, stop: np.ndarray, before: int, after: int) -> Iterator[Window]:
        """What surrounds each place [start, stop): so many bytes before and after it, of the same document."""
        row = self.row_of(start)
        low = np.maximum(start - before, self.offsets[row])
        high = np.minimum(stop + after, self.offsets[row + 1])
        data = self.data
        for a, b, origin, end in zip(start.tolist(), stop.tolist(), low.tolist(), high.tolist(), strict=True):
            yield Window(data[origin:end], origin, a - origin, b - origin)
