"""The plan of an epoch: which piece of which document stands in which row. Integers only, no token is read.

Row capacity is counted in (input, target) pairs. A document of n tokens has n - 1: its token i is the input
whose target is token i + 1. Its last token is nothing's input, and so needs no place. A document of more
pairs than a row is cut into consecutive pieces; the target of a piece's last input is the token after it,
which is the next piece's first input. So every token but a document's first is a target exactly once.

Pieces are packed by best fit, longest first (Ding et al. 2024, "Fewer Truncations Improve Language Modeling",
arXiv:2404.10830): each goes into the fullest row that still has room. Nothing is discarded. Where that leaves
more places empty than we allow, the emptiest rows are dissolved into the gaps of the others (`dissolve`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
PADDING = 1000  # of so many places in packed rows fewer than one is empty


@dataclass(frozen=True)
class Plan:
    """One epoch: pieces in the order of their rows. 16 bytes a piece and 8 a row."""

    documents: NDArray[np.uint32]  # [pieces] document number
    starts: NDArray[np.int64]  # [pieces] first input token within the document
    lengths: NDArray[np.uint32]  # [pieces] pairs
    rows: Integers  # [rows + 1] row r holds pieces rows[r] to rows[r + 1]
    cuts: int = 0  # pieces that were cut although a row could have held them

    def __len__(self) -> int:
        return len(self.rows) - 1

    def some(self, start: int, end: int) -> "Plan":
        """Rows `start` to `end` (excluded)."""
        first, last = int(self.rows[start]), int(self.rows[end])
        rows = self.rows[start : end + 1] - first
        return Plan(self.documents[first:last], self.starts[first:last], self.lengths[first:last], rows)

    def one_by_one(self) -> "Plan":
        """The same pieces, each in a row of its own."""
        return Plan(self.documents, self.starts, self.lengths, np.arange(len(self.documents) + 1))

    @staticmethod
    def joined(parts: Sequence["Plan"]) -> "Plan":
        """The rows of several plans, one after the other."""
        if len(parts) == 1:
            return parts[0]
        sizes = [np.zeros(1, np.int64), *(np.diff(part.rows) for part in parts)]
        return Plan(
            np.concatenate([np.zeros(0, np.uint32), *(part.documents for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.starts for part in parts)]),
            np.concatenate([np.zeros(0, np.uint32), *(part.lengths for part in parts)]),
            np.cumsum(np.concatenate(sizes)),
        )


@dataclass(frozen=True)
class Pieces:
    """Pieces of documents without rows, columns as in Plan."""

    documents: NDArray[np.uint32]
    starts: Integers
    lengths: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.documents)


def cut_documents(lengths: Integers, copies: Integers, capacity: int) -> Pieces:
    """The documents of an epoch, those of more than `capacity` pairs in consecutive pieces of as many.

    Args:
        lengths: tokens of each document, [documents].
        copies: how often each is shown, [documents].
    """
    pairs = lengths - 1
    shown = np.repeat(np.arange(len(lengths), dtype=np.uint32), np.where(pairs > 0, copies, 0))
    counts = -(-pairs[shown] // capacity)
    documents = np.repeat(shown, counts)
    starts = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts *= capacity
    return Pieces(documents, starts, np.minimum(capacity, pairs[documents] - starts).astype(np.uint32))


def plan_epoch(
    lengths: Integers, copies: Integers, capacity: int, seed: int, epoch: int, *, whole: bool = False
) -> Plan:
    """Pack one epoch.

    10 million documents take some 7 seconds and, at its peak, 80 bytes a piece.

    Args:
        lengths: tokens of each document, [documents].
        copies: how often each is shown in this epoch, [documents].
        capacity: pairs a row holds, 1 to 2^20.
        seed, epoch: with the above, all that the plan depends on.
        whole: whether pieces that a row can hold are never cut.
    """
    pieces = cut_documents(lengths, copies, capacity)
    keys = random_keys(2 * len(pieces), seed, epoch, 1)
    order = sorted_by(capacity - pieces.lengths, keys[: len(pieces)], capacity)  # longest first, equal ones shuffled
    keys = keys[len(pieces) :]
    rows = np.empty(len(pieces), np.int64)
    rows[order] = best_fit(pieces.lengths[order], capacity)
    del order
    cuts = 0
    if not whole:
        old = len(pieces)
        pieces, rows, keys = dissolve(pieces, rows, keys, capacity)
        cuts = len(pieces) - old

    count = int(rows.max()) + 1 if len(pieces) else 0
    place = np.empty(count, np.int64)  # rows in random order, else the full ones would all come first
    place[np.argsort(random_keys(count, seed, epoch, 2), kind="stable")] = np.arange(count)
    rows = place[rows]
    ends = np.cumsum(np.bincount(rows, minlength=count))
    by_row = sorted_by(rows, keys, count)
    return Plan(
        pieces.documents[by_row],
        pieces.starts[by_row],
        pieces.lengths[by_row],
        np.concatenate([[0], ends]).astype(np.int64),
        cuts,
    )


def count_rows(lengths: Integers, copies: Integers, capacity: int, *, whole: bool = False) -> int:
    """The rows of `plan_epoch`, which depend on no seed, in about a tenth of its time. Arguments as there."""
    pieces = piece_counts(lengths, copies, capacity)
    falling = np.arange(capacity, -1, -1, dtype=np.uint32)
    rows = best_fit(np.repeat(falling, pieces[::-1]), capacity)
    used, total = int(rows.max(initial=-1)) + 1, int(pieces @ np.arange(capacity + 1))
    return used if whole else min(used, _kept(total, capacity))


def piece_counts(lengths: Integers, copies: Integers, capacity: int) -> Integers:
    """How many pieces of each length `cut_documents` makes, [capacity + 1]; arguments as there."""
    pairs, copies = lengths[copies > 0] - 1, copies[copies > 0]
    whole, rest = np.divmod(np.maximum(pairs, 0), capacity)
    counts = np.bincount(np.repeat(rest, copies), minlength=capacity + 1)
    counts[0], counts[capacity] = 0, int(whole @ copies)
    return counts


def _kept(total: int, capacity: int) -> int:
    """The rows that so many pairs are left in where the emptiest are dissolved."""
    return max(-(-total // capacity), -(-total * PADDING // ((PADDING - 1) * capacity)) - 1)


def dissolve(
    pieces: Pieces, rows: Integers, keys: NDArray[np.uint64], capacity: int
) -> tuple[Pieces, Integers, NDArray[np.uint64]]:
    """Cut the pieces of the emptiest rows to fill the largest gaps of the others, as far as needed and no further.

    What remains empty is less than 0.1 % of all places, or less than one row. The pieces of the dissolved rows
    are laid end to end, and so are the gaps; both are cut at the union of their borders.

    Args:
        rows: the row of each piece, [pieces].
        keys: what the order within a row is drawn from, [pieces]; a cut piece's parts inherit it.
    """
    used = np.bincount(rows, pieces.lengths).astype(np.int64)
    kept = _kept(int(used.sum()), capacity)
    if kept >= len(used):
        return pieces, rows, keys
    emptiest = np.argsort(used, kind="stable")
    renumbered = np.full(len(used), -1)
    stay = np.sort(emptiest[len(used) - kept :])
    renumbered[stay] = np.arange(kept)
    new_rows = renumbered[rows]
    loose, fixed = np.flatnonzero(new_rows < 0), np.flatnonzero(new_rows >= 0)

    gaps = capacity - used[stay]
    largest = np.argsort(-gaps, kind="stable")
    gap_ends, loose_ends = np.cumsum(gaps[largest]), np.cumsum(pieces.lengths[loose], dtype=np.int64)
    ends = np.union1d(loose_ends, gap_ends[gap_ends < loose_ends[-1]])
    begins = np.concatenate([[0], ends[:-1]])
    nth = np.searchsorted(loose_ends, begins, side="right")
    origin = loose[nth]
    offsets = begins - (loose_ends - pieces.lengths[loose])[nth]
    filled = largest[np.searchsorted(gap_ends, begins, side="right")]
    return (
        Pieces(
            np.concatenate([pieces.documents[fixed], pieces.documents[origin]]),
            np.concatenate([pieces.starts[fixed], pieces.starts[origin] + offsets]),
            np.concatenate([pieces.lengths[fixed], (ends - begins).astype(np.uint32)]),
        ),
        np.concatenate([new_rows[fixed], filled]),
        np.concatenate([keys[fixed], keys[origin]]),
    )


def best_fit(lengths: NDArray[np.integer[Any]], capacity: int) -> Integers:
    """The row of each piece, [pieces], when each goes into the row with the least room that still suffices.

    `lengths` must not increase and lie in 1…capacity. Pieces of one length are placed together: a row with
    room r takes r // length of them before the next row, just as one by one. The rows with some room are
    found through the lowest set bit of an integer whose bit r says that a row with room r exists, so a step
    costs O(capacity / 64), and there are at most as many steps as pieces, far fewer where lengths repeat.
    """
    row_of_piece = np.empty(len(lengths), np.int64)
    rooms: dict[int, list[Integers]] = {}
    existing = rows = at = 0
    counts = np.bincount(lengths, minlength=1)
    for length in np.flatnonzero(counts)[::-1].tolist():
        end = at + int(counts[length])
        while at < end:
            if fitting := existing >> length:
                room = length + (fitting & -fitting).bit_length() - 1
                taken = rooms[room].pop()
                if not rooms[room]:
                    existing ^= 1 << room
            else:
                room = capacity
                needed = -(-(end - at) // (capacity // length))
                taken = np.arange(rows, rows + needed)
                rows += needed
            each = room // length
            full = min(len(taken), (end - at) // each)
            row_of_piece[at : at + full * each] = np.repeat(taken[:full], each)
            at += full * each
            last = int(full < len(taken) and at < end)  # fewer than `each` pieces are left: one more row
            leftovers = [(room - each * length, taken[:full]), (room, taken[full + last :])]
            if last:
                row_of_piece[at:end] = taken[full]
                leftovers.append((room - (end - at) * length, taken[full : full + 1]))
                at = end
            for left, some in leftovers:
                if left and len(some):
                    rooms.setdefault(left, []).append(some)
                    existing |= 1 << left
    return row_of_piece


def sorted_by(major: NDArray[np.integer[Any]], keys: NDArray[np.uint64], most: int) -> Integers:
    """The order of `major` (0 to `most`), of equal ones by the leading bits of their random keys: one sort for both."""
    bits = max(1, most).bit_length()
    combined = major.astype(np.uint64) << np.uint64(64 - bits)
    combined |= keys >> np.uint64(bits)
    return np.argsort(combined, kind="stable")


def random_keys(count: int, *seeds: int) -> NDArray[Any]:
    """`count` random 64-bit integers. NumPy keeps the raw stream of a bit generator equal in all versions."""
    return np.asarray(np.random.PCG64(seeds).random_raw(count), dtype=np.uint64)
