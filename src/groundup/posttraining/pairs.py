"""Preference pairs as packed rows in which the two answers of a pair share their prompt.

A pair is one document of a row: the prompt without its last token, then two branches that do not see each other,

    prompt[:-1] | prompt[-1] chosen[:-1] | prompt[-1] rejected[:-1]

The prompt's last token stands in both branches, because it predicts the first token of both answers. The prompt is
computed once, and each answer gets exactly what it would get alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.tokenizer import IGNORED

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a pair. Both answers end with <|end|>; the prompt ends with <|assistant|>."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def places(self) -> int:
        """Inputs that the pair takes in a row."""
        return len(self.prompt) - 1 + len(self.chosen) + len(self.rejected)


def fit(pair: EncodedPair, length: int) -> EncodedPair | None:
    """The pair with its prompt cut from the left, for both answers alike, to fit a row; None where answers don't."""
    excess = pair.places - length
    if excess <= 0:
        return pair
    if excess > len(pair.prompt) - 1:
        return None
    return EncodedPair(pair.prompt[excess:], pair.chosen, pair.rejected)


@dataclass(frozen=True)
class PairBatch:
    """Packed pairs. Token arrays are [rows, T]; pair arrays are [rows, K], K the most pairs of any row.

    ids, targets, positions, documents: as in the tokenizer's Batch.
    branches: 0 in the shared prompt, 1 in the chosen and 2 in the rejected answer.
    slots: 2k for the chosen and 2k + 1 for the rejected answer of the row's pair k; 0 where nothing is scored.
    reference_chosen, reference_rejected: float32 log-probabilities of the reference model.
    present: whether the row has a pair k.
    """

    ids: Integers
    targets: Integers
    positions: Integers
    documents: NDArray[np.int32]
    branches: NDArray[np.int32]
    slots: Integers
    reference_chosen: NDArray[np.float32]
    reference_rejected: NDArray[np.float32]
    present: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def length(self) -> int:
        """Places in a row."""
        return int(self.ids.shape[1])

    @property
    def tokens(self) -> int:
        return int(np.count_nonzero(self.documents))

    def slice(self, start: int, end: int) -> PairBatch:
        """Rows ``start`` to ``end`` (excluded)."""
        return PairBatch(*(getattr(self, name)[start:end] for name in self.__dataclass_fields__))


def pack(pairs: Sequence[EncodedPair], length: int) -> list[list[int]]:
    """Best fit, longest first: rows of indices into ``pairs`` whose places sum to at most ``length``."""
    order = sorted(range(len(pairs)), key=lambda i: (-pairs[i].places, i))
    rows: list[list[int]] = []
    room: list[int] = []
    for index in order:
        need = pairs[index].places
        fitting = [r for r in range(len(rows)) if room[r] >= need]
        if fitting:
            row = min(fitting, key=lambda r: room[r])
            rows[row].append(index)
            room[row] -= need
        else:
            rows.append([index])
            room.append(length - need)
    return rows


def batch_of(
    pairs: Sequence[EncodedPair],
    references: NDArray[np.float32],
    *,
    length: int,
    most: int,
    multiple: int,
    pad_id: int,
) -> PairBatch:
    """Pack pairs into rows, filled up with empty rows to a multiple of ``multiple``.

    Args:
        pairs: at most what fits; each has ``places <= length``.
        references: [pairs, 2] log-probabilities of the chosen and rejected answers.
        most: K, pairs a row may have.
    """
    packed = pack(pairs, length)
    packed = [row[at : at + most] for row in packed for at in range(0, len(row), most)]
    count = -(-len(packed) // multiple) * multiple
    batch = PairBatch(
        ids=np.full((count, length), pad_id, np.int64),
        targets=np.full((count, length), IGNORED, np.int64),
        positions=np.zeros((count, length), np.int64),
        documents=np.zeros((count, length), np.int32),
        branches=np.zeros((count, length), np.int32),
        slots=np.zeros((count, length), np.int64),
        reference_chosen=np.zeros((count, most), np.float32),
        reference_rejected=np.zeros((count, most), np.float32),
        present=np.zeros((count, most), np.bool_),
    )
    for row, members in enumerate(packed):
        at = 0
        for number, index in enumerate(members):
            at = _place(batch, row, at, number, pairs[index])
            batch.reference_chosen[row, number], batch.reference_rejected[row, number] = references[index]
            batch.present[row, number] = True
    return batch


def _place(batch: PairBatch, row: int, at: int, number: int, pair: EncodedPair) -> int:
    """Write one pair into a row from place ``at`` on; returns the place after it."""
    trunk, last = pair.prompt[:-1], pair.prompt[-1]
    begin, end = at, at + len(trunk)
    batch.ids[row, at:end] = trunk
    batch.positions[row, at:end] = np.arange(len(trunk))
    for branch, answer in ((1, pair.chosen), (2, pair.rejected)):
        at, end = end, end + len(answer)
        batch.ids[row, at:end] = (last, *answer[:-1])
        batch.targets[row, at:end] = answer
        batch.positions[row, at:end] = np.arange(len(trunk), len(trunk) + len(answer))
        batch.branches[row, at:end] = branch
        batch.slots[row, at:end] = 2 * number + branch - 1
    batch.documents[row, begin:end] = number + 1
    return end


class PairSource:
    """Updates of a fixed number of pairs; update ``step`` is a pure function of (seed, step)."""

    def __init__(
        self,
        pairs: Sequence[EncodedPair],
        references: NDArray[np.float32],
        *,
        per_update: int,
        length: int,
        multiple: int,
        pad_id: int,
        seed: int,
    ) -> None:
        self.pairs, self.references = pairs, references
        self.per_update, self.length, self.multiple = per_update, length, multiple
        self.pad_id, self.seed = pad_id, seed
        self.most = max(1, length // min(pair.places for pair in pairs))

    def chosen_pairs(self, step: int) -> list[int]:
        """Numbers of the pairs of an update: each epoch is a new permutation, and none is left out."""
        total = len(self.pairs)
        numbers = []
        for position in range(step * self.per_update, (step + 1) * self.per_update):
            epoch, place = divmod(position, total)
            numbers.append(int(self._order(epoch)[place]))
        return numbers

    def _order(self, epoch: int) -> Integers:
        cached: tuple[int, Integers] | None = getattr(self, "_cached", None)
        if cached is None or cached[0] != epoch:
            cached = (epoch, np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(len(self.pairs)))
            self._cached = cached
        return cached[1]

    def passes(self, step: int) -> float:
        """Passes over the pairs in the first ``step`` updates."""
        return step * self.per_update / len(self.pairs)

    def update(self, step: int) -> PairBatch:
        """The rows of one update."""
        return self.batch(self.chosen_pairs(step))

    def batch(self, numbers: Sequence[int]) -> PairBatch:
        """The rows of the pairs with these numbers."""
        return batch_of(
            [self.pairs[n] for n in numbers],
            self.references[list(numbers)],
            length=self.length,
            most=self.most,
            multiple=self.multiple,
            pad_id=self.pad_id,
        )
