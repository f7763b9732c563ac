"""The plan of an epoch: which piece of which document stands in which row. Integers only, no token is read.

Row capacity is counted in (input, target) pairs. A document of n tokens has n - 1: its token i is the input
whose target is token i + 1. Its last token is nothing's input, and so needs no place. A document of more
pairs than a row is cut into consecutive pieces; the target of a piece's last input is the token after it,
which is the next piece's first input. So every token but a document's first is a target exactly once.

Pieces are packed by best fit, longest first (Ding et al. 2024, "Fewer Truncations Improve Language Modeling",
arXiv:2404.10830): each goes into the fullest row that still has room. Nothing is discarded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.tokenizer.shards import ShardSource

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """One epoch: pieces in the order of their rows. 14 bytes a piece and 8 a row."""

    documents: NDArray[np.uint32]  # [pieces] document number
    starts: NDArray[np.int64]  # [pieces] first input token within the document
    lengths: NDArray[np.uint16]  # [pieces] pairs
    rows: Integers  # [rows + 1] row r holds pieces rows[r] to rows[r + 1]

    def __len__(self) -> int:
        return len(self.rows) - 1


class Schedule:
    """How often each document is shown in each epoch, from its source's `weight` and `epochs`.

    After e epochs a document of weight w has been shown floor(e·w + φ) times, at most floor(epochs + φ). φ is
    the document's fixed rank in a shuffle of its source, in [0, 1): at weight 0.5 one half of the documents
    comes in even epochs and the other in odd ones; at weight 2 each comes twice.
    """

    def __init__(self, source_numbers: NDArray[np.uint16], sources: Sequence[ShardSource], seed: int) -> None:
        self.numbers = source_numbers
        self.weights = np.array([source.weight for source in sources], np.float64)
        self.caps = np.array([np.inf if s.epochs is None else s.epochs for s in sources], np.float64)
        finite = self.caps[np.isfinite(self.caps)]
        self._whole = bool(np.all(self.weights % 1 == 0) and np.all(finite % 1 == 0))
        self._phases = np.zeros(0) if self._whole else self._ranks(len(sources), seed)

    def copies(self, epoch: int) -> Integers:
        """How often each document comes in `epoch`, [documents]."""
        return self._shown(epoch + 1) - self._shown(epoch)

    def last_epoch(self) -> int | None:
        """The number of epochs after which every source is used up; None where one has no limit."""
        present = np.unique(self.numbers)
        if not np.all(np.isfinite(self.caps[present])):
            return None
        return int(np.max(np.ceil((self.caps[present] + 1) / self.weights[present]), initial=0))

    def _shown(self, epochs: int) -> Integers:
        if self._whole:
            by_source = np.minimum(epochs * self.weights, self.caps).astype(np.int64)
            return by_source[self.numbers]
        shown = np.floor(epochs * self.weights[self.numbers] + self._phases)
        return np.minimum(shown, np.floor(self.caps[self.numbers] + self._phases)).astype(np.int64)

    def _ranks(self, sources: int, seed: int) -> NDArray[np.float64]:
        keys = random_keys(len(self.numbers), seed)
        phases = np.empty(len(self.numbers))
        for source in range(sources):
            members = np.flatnonzero(self.numbers == source)
            order = members[np.argsort(keys[members], kind="stable")]
            phases[order] = np.arange(len(members)) / max(1, len(members))
        return phases


def plan_epoch(lengths: Integers, copies: Integers, capacity: int, seed: int, epoch: int) -> Plan:
    """Pack one epoch.

    Args:
        lengths: tokens of each document, [documents].
        copies: how often each is shown in this epoch, [documents].
        capacity: pairs a row holds, 1 to 65,535.
        seed, epoch: with the above, all that the plan depends on.
    """
    pairs = lengths - 1
    shown = np.repeat(np.arange(len(lengths)), np.where(pairs > 0, copies, 0))
    counts = -(-pairs[shown] // capacity)
    documents = np.repeat(shown, counts)
    nth = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = nth * capacity
    sizes = np.minimum(capacity, pairs[documents] - starts)

    keys = random_keys(2 * len(documents), seed, epoch, 1)
    shuffled = np.argsort(keys[: len(documents)], kind="stable")
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]  # longest first, equal lengths in random order
    row_of_piece = np.empty(len(documents), np.int64)
    row_of_piece[order] = best_fit(sizes[order], capacity)

    count = int(row_of_piece.max()) + 1 if len(documents) else 0
    place = np.empty(count, np.int64)  # rows in random order, else the full ones would all come first
    place[np.argsort(random_keys(count, seed, epoch, 2), kind="stable")] = np.arange(count)
    rows = place[row_of_piece]
    by_row = np.lexsort((keys[len(documents) :], rows))
    ends = np.cumsum(np.bincount(rows, minlength=count))
    return Plan(
        documents[by_row].astype(np.uint32),
        starts[by_row],
        sizes[by_row].astype(np.uint16),
        np.concatenate([[0], ends]).astype(np.int64),
    )


def best_fit(lengths: Integers, capacity: int) -> Integers:
    """The row of each piece, [pieces], when each goes into the row with the least room that still suffices.

    `lengths` must not increase and lie in 1…capacity. Pieces of one length are placed together: a row with
    room r takes r // length of them before the next row, just as one by one. The rows with some room are
    found through the lowest set bit of an integer whose bit r says that a row with room r exists, so a step
    costs O(capacity / 64), and there are at most as many steps as pieces, far fewer where lengths repeat.
    """
    row_of_piece = np.empty(len(lengths), np.int64)
    rooms: list[list[Integers]] = [[] for _ in range(capacity + 1)]
    existing = rows = 0
    values, counts = np.unique(lengths, return_counts=True)
    at = 0
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        end = at + count
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
                    rooms[left].append(some)
                    existing |= 1 << left
    return row_of_piece


def random_keys(count: int, *seeds: int) -> NDArray[Any]:
    """`count` random 64-bit integers. NumPy keeps the raw stream of a bit generator equal in all versions."""
    return np.asarray(np.random.PCG64(seeds).random_raw(count), dtype=np.uint64)
