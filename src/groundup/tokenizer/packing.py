"""Rows of packed documents: any row, recomputed from its position alone.

Training reads row 0, 1, 2, … without end; epoch after epoch is planned as its rows are asked for. A row
depends on (shards, sequence_length, packing, seed, position) and on nothing read before, so a cursor is one number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.run import UserError
from groundup.tokenizer.epochs import Epochs, Schedule
from groundup.tokenizer.plan import Integers, Plan, count_rows, plan_epoch
from groundup.tokenizer.shards import TokenShards

IGNORED = -100  # the target where nothing is learned, as in PyTorch's cross-entropy
LONGEST_ROW = 2**20
Int32 = NDArray[np.int32]


class Piece(NamedTuple):
    """`length` consecutive inputs of a document, from token `start` on; each target is one token further."""

    document: int
    start: int
    length: int


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents, each array int32 [rows, length].

    ids        inputs; <|pad|> behind the last document
    targets    the next token of the same document; -100 at padding and where the loss mask is off
    positions  0, 1, 2, … from the start of each piece
    documents  1, 2, 3, … for the pieces of a row, 0 at padding: what may attend to what
    """

    ids: Int32
    targets: Int32
    positions: Int32
    documents: Int32

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def length(self) -> int:
        """Places in a row."""
        return int(self.ids.shape[1])

    @property
    def tokens(self) -> int:
        """Inputs that are no padding."""
        return int(np.count_nonzero(self.documents))

    @property
    def supervised(self) -> int:
        """Targets that count towards the loss."""
        return int(np.count_nonzero(self.targets != IGNORED))

    def slice(self, start: int, end: int) -> "Batch":
        """Rows `start` to `end` (excluded), as views: a micro-batch."""
        return Batch(
            self.ids[start:end],
            self.targets[start:end],
            self.positions[start:end],
            self.documents[start:end],
        )

    def shortened(self, length: int) -> "Batch":
        """The same tokens and targets in rows of `length`, pieces cut at the new borders, where they begin anew.

        Raises ValueError where `length` does not divide the length of the rows.
        """
        if length < 1 or self.length % length:
            raise ValueError(f"rows of {self.length} places can't be shown as rows of {length}")
        positions, documents = (column.reshape(-1, length) for column in (self.positions, self.documents))
        first = documents[:, :1]
        return Batch(
            self.ids.reshape(-1, length),
            self.targets.reshape(-1, length),
            np.where(documents == first, positions - positions[:, :1], positions),
            np.where(documents > 0, documents - first + 1, 0),
        )


class Reader:
    """Builds batches from pieces of documents. Memory: 8 bytes a document.

    Every token is copied once from the mapped file and once from inputs to targets; the rest is arithmetic on
    whole arrays. A piece costs about 0.6 µs (a view of the file, and a miss of the processor's caches) and a token
    3 ns (16 bytes written), so documents of fewer than 200 tokens are bound by their number.
    """

    def __init__(self, shards: TokenShards, longest: int) -> None:
        """`longest` is the greatest length of a row."""
        counts = [shard["documents"] for shard in shards.index["shards"] if shard["documents"]]
        sizes = [shard["tokens"] for shard in shards.index["shards"] if shard["documents"]]
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)  # document each shard begins with
        starts = list(zip(self._first[:-1].tolist(), sizes, strict=True))
        # Padding is one more shard, so that a row's gap is filled as its documents are.
        self._ids: list[NDArray[Any]] = [shards.span(number, 0, size) for number, size in starts]
        self._ids.append(np.full(longest + 1, shards.pad_id, np.int32))
        masks = [shards.mask_span(number, 0, size) for number, size in starts]
        self._masks = [mask for mask in masks if mask is not None] if shards.with_mask else []
        self._masks.append(np.zeros(longest + 1, np.bool_))
        self._with_mask = shards.with_mask
        offsets = np.concatenate([[0], np.cumsum(shards.lengths)])
        self._places = offsets[:-1] - np.repeat(offsets[self._first[:-1]], counts)  # of a document within its shard

    def batch(self, pieces: Plan, length: int) -> Batch:
        """The rows of a plan, each at most `length` pairs, filled up with padding."""
        rows = len(pieces)
        if not rows:
            return Batch(*np.zeros((4, 0, length), np.int32))
        sizes = pieces.lengths.astype(np.int64)
        files = np.searchsorted(self._first, pieces.documents, side="right") - 1
        begins = self._places[pieces.documents] + pieces.starts
        numbers = (np.arange(len(sizes)) - np.repeat(pieces.rows[:-1], np.diff(pieces.rows)) + 1).astype(np.int32)
        gaps = length - np.diff(np.concatenate([[0], np.cumsum(sizes)])[pieces.rows])
        padded = np.flatnonzero(gaps)
        if len(padded):
            at = pieces.rows[1:][padded]
            sizes, files = np.insert(sizes, at, gaps[padded]), np.insert(files, at, len(self._ids) - 1)
            begins, numbers = np.insert(begins, at, 0), np.insert(numbers, at, 0)
        ends = np.cumsum(sizes)

        # One allocation: four smaller ones go back to the system each time, and their page faults cost more than this.
        columns = np.empty((4, rows, length), np.int32)
        ids, targets, positions, documents = columns.reshape(4, -1)
        np.concatenate(_spans(self._ids, files, begins, begins + sizes), out=ids)
        targets[:-1] = ids[1:]
        targets[ends - 1] = self._ids_at(files, begins + sizes)
        np.subtract(
            np.arange(rows * length, dtype=np.int32), np.repeat((ends - sizes).astype(np.int32), sizes), positions
        )
        documents[:] = np.repeat(numbers, sizes)
        if self._with_mask:
            learned = np.concatenate(_spans(self._masks, files, begins + 1, begins + sizes + 1))
            targets[~learned] = IGNORED
        if len(padded):
            empty = np.flatnonzero(documents == 0)
            targets[empty], positions[empty] = IGNORED, 0
        return Batch(*columns)

    def _ids_at(self, files: Integers, places: Integers) -> Int32:
        """One id of a file for each (file, place), [places]."""
        found = np.empty(len(files), np.int32)
        by_file = np.argsort(files.astype(np.uint16), kind="stable")
        for some in np.split(by_file, np.flatnonzero(np.diff(files[by_file])) + 1):
            found[some] = self._ids[files[some[0]]][places[some]]
        return found


def _spans(arrays: Sequence[NDArray[Any]], files: Integers, begins: Integers, ends: Integers) -> list[NDArray[Any]]:
    """A view of one of the arrays for each (file, begin, end)."""
    places = zip(files.tolist(), begins.tolist(), ends.tolist(), strict=True)
    return [arrays[file][begin:end] for file, begin, end in places]


class PackedRows:
    """The endless sequence of rows over token shards, and the finite one of each epoch.

    packing "packed": as few rows as can be. Of the places of an epoch less than 0.1 % stay empty, or less than one
        row where that is more; for that, some documents are cut that a row could have held (`cuts`).
    packing "best_fit": a document that fits in a row is never cut; `padding` says what that costs.

    Either way every token but a document's first is a target exactly once in an epoch (for each time the document
    is shown). Two epochs' plans are kept: 16 bytes a piece each. Safe to use from several threads.
    """

    def __init__(
        self,
        shards: TokenShards,
        sequence_length: int,
        seed: int,
        *,
        packing: Literal["packed", "best_fit"] = "packed",
    ) -> None:
        """Raises UserError for a length outside 1…2^20, and for shards with nothing to predict, ValueError for a
        packing of another name.
        """
        if packing not in ("packed", "best_fit"):
            raise ValueError(f"packing is {packing!r}, neither 'packed' nor 'best_fit'")
        check(shards, sequence_length)
        self.shards, self.sequence_length, self.seed, self.packing = shards, sequence_length, seed, packing
        whole = packing == "best_fit"

        def make(epoch: int, copies: Integers) -> Plan:
            return plan_epoch(shards.lengths, copies, sequence_length, seed, epoch, whole=whole)

        def count(copies: Integers) -> int:
            return count_rows(shards.lengths, copies, sequence_length, whole=whole)

        self.epochs = Epochs(Schedule(shards, seed), make, count)
        self._reader = Reader(shards, sequence_length)

    def rows(self, epoch: int) -> int:
        """How many rows an epoch has. It differs between epochs that show different documents."""
        return self.epochs.count(epoch)

    def rows_in(self, epochs: float) -> int:
        """Rows in the first `epochs` epochs; of a broken one its share, rounded up.

        Raises UserError where the sources' `epochs` are used up before the last of them begins.
        """
        return self.epochs.count_in(epochs)

    def padding(self, epoch: int = 0) -> float:
        """The share of an epoch's places that hold no token."""
        plan = self.plan(epoch)
        places = len(plan) * self.sequence_length
        return 1 - float(plan.lengths.sum(dtype=np.int64)) / places if places else 0.0

    def cuts(self, epoch: int = 0) -> int:
        """How often a document (or the rest of a longer one) was cut although a row could have held it."""
        return self.plan(epoch).cuts

    def pieces(self, position: int) -> list[Piece]:
        """What stands in a row, in order."""
        plan = self._rows([position])
        columns = (plan.documents.tolist(), plan.starts.tolist(), plan.lengths.tolist())
        return [Piece(*piece) for piece in zip(*columns, strict=True)]

    def row(self, position: int) -> Batch:
        """One row, arrays [1, sequence_length]."""
        return self.batch([position])

    def batch(self, positions: Sequence[int]) -> Batch:
        """The rows at `positions`, arrays [len(positions), sequence_length]."""
        return self._reader.batch(self._rows(positions), self.sequence_length)

    def epoch_batches(self, rows: int, epoch: int = 0) -> Iterator[Batch]:
        """One epoch in batches of `rows` rows, the last one shorter: for validation."""
        first, end = self.epochs.first(epoch), self.epochs.first(epoch + 1)
        for start in range(first, end, rows):
            yield self.batch(range(start, min(end, start + rows)))

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch, made anew where it is not one of the last two used."""
        return self.epochs.plan(epoch)

    def _rows(self, positions: Sequence[int]) -> Plan:
        """The rows at `positions`, copied from their epochs' plans run by run of consecutive ones."""
        wanted = np.asarray(positions, np.int64)
        parts: list[Plan] = []
        for run in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1):
            at, end = (int(run[0]), int(run[-1]) + 1) if len(run) else (0, 0)
            while at < end:
                epoch, row = self.epochs.locate(at)
                count = min(end - at, self.rows(epoch) - row)
                parts.append(self.plan(epoch).some(row, row + count))
                at += count
        return Plan.joined(parts)


def check(shards: TokenShards, sequence_length: int) -> None:
    """Raises UserError for a length outside 1…2^20, and for shards with nothing to predict."""
    if not 1 <= sequence_length <= LONGEST_ROW:
        raise UserError(f"sequence_length is {sequence_length}", expected=f"1 to {LONGEST_ROW}")
    if not np.any(shards.lengths > 1):
        raise UserError("there is nothing to learn from: no document has two tokens", where=str(shards.directory))
