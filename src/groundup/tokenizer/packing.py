"""Rows of packed documents: any row, recomputed from its position alone.

Training reads row 0, 1, 2, … without end; epoch after epoch is planned as its rows are asked for. A row
depends on (shards, sequence_length, seed, position) and on nothing read before, so a cursor is one number.
"""

import math
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundup.run import UserError
from groundup.tokenizer.plan import Plan, Schedule, plan_epoch
from groundup.tokenizer.shards import TokenShards
from groundup.tokenizer.special import NAMED, PAD

IGNORED = -100  # the target where nothing is learned, as in PyTorch's cross-entropy
PAD_ID = NAMED.index(PAD)
LONGEST_ROW = 2**16 - 1


class Piece(NamedTuple):
    """`length` consecutive inputs of a document, from token `start` on; each target is one token further."""

    document: int
    start: int
    length: int


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents, each array [rows, sequence_length].

    ids        int64  inputs; <|pad|> behind the last document
    targets    int64  the next token of the same document; -100 at padding and where the loss mask is off
    positions  int64  0, 1, 2, … from the start of each piece
    documents  int32  1, 2, 3, … for the pieces of a row, 0 at padding: what may attend to what
    """

    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    positions: NDArray[np.int64]
    documents: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

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

    def micro_batches(self, rows: int) -> Iterator["Batch"]:
        """The batch in parts of at most `rows` rows."""
        for start in range(0, len(self), rows):
            yield self.slice(start, start + rows)


class PackedRows:
    """The endless sequence of rows over token shards, and the finite one of each epoch.

    Two epochs' plans are kept: 14 bytes a piece. Safe to use from several threads.
    """

    def __init__(self, shards: TokenShards, sequence_length: int, seed: int, *, pad_id: int = PAD_ID) -> None:
        """Raises UserError for a length outside 1…65,535, and for shards with nothing to predict."""
        if not 1 <= sequence_length <= LONGEST_ROW:
            raise UserError(f"sequence_length is {sequence_length}", expected=f"1 to {LONGEST_ROW}")
        if not np.any(shards.lengths > 1):
            raise UserError("there is nothing to learn from: no document has two tokens", where=str(shards.directory))
        self.shards, self.sequence_length, self.seed, self.pad_id = shards, sequence_length, seed, pad_id
        self._schedule = Schedule(shards.source_numbers, shards.sources, seed)
        self._last = self._schedule.last_epoch()
        self._first = [0]  # position of the first row of each epoch known so far
        self._plans: dict[int, Plan] = {}
        self._lock = threading.Lock()

    def rows(self, epoch: int) -> int:
        """How many rows an epoch has. It differs a little between epochs."""
        self._know(epoch)
        return self._first[epoch + 1] - self._first[epoch]

    def rows_in(self, epochs: float) -> int:
        """Rows in the first `epochs` epochs; of a broken one its share, rounded up."""
        whole = int(epochs)
        self._know(math.ceil(epochs) - 1)
        share = epochs - whole
        return self._first[whole] + (math.ceil(self.rows(whole) * share) if share else 0)

    def available(self) -> int | None:
        """All rows there will ever be; None where a source may be repeated without limit."""
        return None if self._last is None else self.rows_in(self._last)

    def padding(self, epoch: int = 0) -> float:
        """The share of an epoch's places that hold no token."""
        plan = self.plan(epoch)
        return 1 - float(plan.lengths.sum(dtype=np.int64)) / max(1, len(plan) * self.sequence_length)

    def epoch_of(self, position: int) -> tuple[int, int]:
        """(epoch, row within it) of a position. Raises UserError where the sources' `epochs` are used up."""
        if position < 0:
            raise ValueError(f"position is {position}; rows count from 0")
        while position >= self._first[-1]:
            epoch = len(self._first) - 1
            if self._last is not None and epoch >= self._last:
                raise UserError(
                    f"the corpus is used up after {self._first[-1]} rows",
                    expected="training that ends before its sources' `epochs` are over",
                    mend="train for fewer steps, raise `epochs` in corpus.sources, or add text",
                )
            self._know(epoch)
        epoch = bisect_right(self._first, position) - 1
        return epoch, position - self._first[epoch]

    def pieces(self, position: int) -> list[Piece]:
        """What stands in a row, in order."""
        epoch, row = self.epoch_of(position)
        plan = self.plan(epoch)
        some = slice(int(plan.rows[row]), int(plan.rows[row + 1]))
        columns = (plan.documents[some].tolist(), plan.starts[some].tolist(), plan.lengths[some].tolist())
        return [Piece(*piece) for piece in zip(*columns, strict=True)]

    def row(self, position: int) -> Batch:
        """One row, arrays [1, sequence_length]."""
        return self.batch([position])

    def batch(self, positions: Sequence[int]) -> Batch:
        """The rows at `positions`, arrays [len(positions), sequence_length]."""
        shape = (len(positions), self.sequence_length)
        batch = Batch(
            np.full(shape, self.pad_id, np.int64),
            np.full(shape, IGNORED, np.int64),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int32),
        )
        count = np.arange(self.sequence_length)
        for row, position in enumerate(positions):
            at = 0
            for number, (document, start, length) in enumerate(self.pieces(position), 1):
                end = at + length
                tokens = self.shards.span(document, start, start + length + 1)
                batch.ids[row, at:end] = tokens[:-1]
                batch.targets[row, at:end] = tokens[1:]
                batch.positions[row, at:end] = count[:length]
                batch.documents[row, at:end] = number
                learned = self.shards.mask_span(document, start + 1, start + length + 1)
                if learned is not None:
                    batch.targets[row, at:end][~learned] = IGNORED
                at = end
        return batch

    def epoch_batches(self, rows: int, epoch: int = 0) -> Iterator[Batch]:
        """One epoch in batches of `rows` rows, the last one shorter: for validation."""
        self._know(epoch)
        first, end = self._first[epoch : epoch + 2]
        for start in range(first, end, rows):
            yield self.batch(range(start, min(end, start + rows)))

    def _know(self, epoch: int) -> None:
        """Count the rows of every epoch up to `epoch`, which takes planning each once."""
        while (known := len(self._first) - 1) <= epoch:
            end = self._first[known] + len(self.plan(known))
            with self._lock:
                if len(self._first) - 1 == known:  # another thread may have come first
                    self._first.append(end)

    def plan(self, epoch: int) -> Plan:
        """The plan of an epoch, made anew where it is not one of the last two used."""
        with self._lock:
            plan = self._plans.pop(epoch, None)
            if plan is None:
                copies = self._schedule.copies(epoch)
                plan = plan_epoch(self.shards.lengths, copies, self.sequence_length, self.seed, epoch)
            while len(self._plans) > 1:
                self._plans.pop(next(iter(self._plans)))
            self._plans[epoch] = plan
            return plan
