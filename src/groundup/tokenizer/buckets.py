"""Padded buckets: a document a row, rows of similar length together, each update padded to its bucket's length.

For models or comparisons that want no two documents in a row. A document of more pairs than a row holds is cut into
consecutive pieces, as in packing; nothing is discarded. What padding costs is known before training (`padding`).
"""

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from groundup.run import UserError
from groundup.tokenizer.epochs import Epochs, Schedule
from groundup.tokenizer.loader import checked_rank, share
from groundup.tokenizer.packing import Batch, Reader, check
from groundup.tokenizer.plan import Integers, Plan, cut_documents, piece_counts, random_keys, sorted_by
from groundup.tokenizer.shards import TokenShards
from groundup.tokenizer.sizes import UpdateSizes

BUCKETS = 8
CANDIDATES = 256
MULTIPLE = 8  # lengths that matrix units like


def bucket_lengths(pairs: Integers, longest: int, buckets: int = BUCKETS) -> list[int]:
    """The row lengths of at most `buckets` buckets, rising, that leave the fewest places empty; the last holds all.

    Found exactly by dynamic programming over the multiples of 8 (and `longest`), or where those are more than 256,
    over so many at quantiles of the pieces' lengths, each piece counted by its length.

    Args:
        pairs: pairs of each document, [documents]; those below 1 count for nothing.
        longest: the most pairs a row may hold.
    """
    whole, rest = np.divmod(pairs[pairs > 0], longest)
    pieces = np.bincount(rest, minlength=longest + 1)
    pieces[0], pieces[longest] = 0, int(whole.sum())
    tokens = np.cumsum(pieces * np.arange(longest + 1))
    most = int(np.flatnonzero(pieces)[-1])
    lengths = np.minimum(np.arange(MULTIPLE, most + MULTIPLE, MULTIPLE), longest)
    if len(lengths) > CANDIDATES:
        wanted = tokens[-1] * np.arange(1, CANDIDATES + 1) // CANDIDATES
        lengths = lengths[np.unique(np.searchsorted(tokens[lengths], wanted))]
    held = np.cumsum(pieces)[lengths]  # pieces that a row of each length can hold

    places = held * lengths  # of the cheapest buckets that hold all those pieces, the last one of that length
    before = [np.full(len(lengths), -1)]
    for _ in range(min(buckets, len(lengths)) - 1):
        further = places[:, None] + (held[None, :] - held[:, None]) * lengths[None, :]  # [last but one, last]
        further[np.tril_indices(len(lengths))] = np.iinfo(np.int64).max
        best = np.argmin(further, axis=0)
        cheaper = further[best, np.arange(len(lengths))] < places
        before.append(np.where(cheaper, best, -2))
        places = np.where(cheaper, further[best, np.arange(len(lengths))], places)
    chosen, at, level = [], len(lengths) - 1, len(before) - 1
    while at >= 0:
        if before[level][at] == -2:  # one bucket more is no gain here
            level -= 1
            continue
        chosen.append(int(lengths[at]))
        at, level = int(before[level][at]), level - 1
    return chosen[::-1]


class Buckets:
    """Updates of rows that hold one piece each. Update `step` is a pure function of (seed, step), as with Loader.

    An update has ``tokens_per_update // length`` rows (at least one) of its bucket's length, so that its places are
    about the same in number; the last update of a bucket in an epoch has what is left. The updates of an epoch come
    in random order, and so do the pieces of a bucket. `rank` and `world` share an update's rows as Loader does.
    `end` is the update at which training ends, where that is known: no epoch beyond is planned ahead of its need. A
    `ramp` can't be read without it: (share of the updates until which it holds, tokens of an update), both rising, each
    size dividing the next. Its updates are equal parts of those without it; one has no rows where the last update of a
    bucket has fewer than parts.
    Memory: 16 bytes a piece for each of two epochs.
    """

    def __init__(
        self,
        shards: TokenShards,
        sequence_length: int,
        tokens_per_update: int,
        seed: int,
        *,
        buckets: int = BUCKETS,
        ramp: Sequence[tuple[float, int]] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Raises UserError for a length outside 1…2^20, an update below 1 token, shards with nothing to predict,
        ValueError for a rank outside 0…world - 1 and for a ramp that is none.
        """
        check(shards, sequence_length)
        if tokens_per_update < 1:
            raise UserError(f"an update has {tokens_per_update} tokens", expected="tokens_per_update of at least 1")
        self.end: int | None = None
        self.rank, self.world = checked_rank(rank, world)
        self.sequence_length, self.tokens_per_update = sequence_length, tokens_per_update
        self.sizes = UpdateSizes(tokens_per_update, ramp, nested=True)
        self.lengths = bucket_lengths(shards.lengths - 1, sequence_length, buckets)
        per_update = np.maximum(1, tokens_per_update // np.array(self.lengths))

        def make(epoch: int, copies: Integers) -> Plan:
            return plan_buckets(shards.lengths, copies, self.lengths, per_update, seed, epoch)

        def count(copies: Integers) -> int:
            pieces = np.cumsum(piece_counts(shards.lengths, copies, self.lengths[-1]))[self.lengths]
            return int((-(-np.diff(pieces, prepend=0) // per_update)).sum())

        self.epochs = Epochs(Schedule(shards, seed), make, count, "updates")
        self._reader = Reader(shards, sequence_length)

    def update(self, step: int) -> Batch:
        """This process's rows of one update, [rows, bucket length]; `step` counts from 0.

        Raises UserError where the sources' `epochs` are used up.
        """
        size = self.tokens_per_update
        begin, end = (self.sizes.taken(updates, self.end) for updates in (step, step + 1))
        planned = begin // size
        epoch, update = self.epochs.locate(planned)
        self.epochs.plan_ahead(planned, None if self.end is None else -(-self.sizes.taken(self.end, self.end) // size))
        plan = self.epochs.plan(epoch)
        length = self.lengths[int(np.searchsorted(self.lengths, plan.lengths[plan.rows[update]]))]
        rows = plan.some(update, update + 1).one_by_one()
        first, last = (len(rows) * (at - planned * size) // size for at in (begin, end))
        mine = share(last - first, self.rank, self.world)
        return self._reader.batch(rows.some(first + mine.start, first + mine.stop), length)

    def passes(self, step: int) -> float:
        """Passes over the data in the first ``step`` updates."""
        planned, part = divmod(self.sizes.taken(step, self.end), self.tokens_per_update)
        before = self.epochs.passes(self.epochs.clip(planned))
        if not part:
            return before
        after = self.epochs.passes(self.epochs.clip(planned + 1))
        return before + part / self.tokens_per_update * (after - before)

    def first_updates(self, steps: int) -> int:
        """`steps`, or of how many updates a training can be where that is less. No epoch beyond those is planned."""
        wanted = -(-self.sizes.taken(steps, steps) // self.tokens_per_update)
        there = self.epochs.clip(wanted)
        return steps if there == wanted else self.sizes.fewest(there * self.tokens_per_update / self.sizes.whole)

    def of_size(self, tokens: int) -> Self:
        """The same rows in updates of one size, which divides ``tokens_per_update``."""
        other = copy.copy(self)
        other.sizes, other.end = UpdateSizes(tokens), None
        return other

    def tokens(self, epoch: int = 0) -> int:
        """The inputs of an epoch, padding not counted."""
        return int(self.epochs.plan(epoch).lengths.sum(dtype=np.int64))

    def padding(self, epoch: int = 0) -> float:
        """The share of an epoch's places that hold no token."""
        lengths = self.epochs.plan(epoch).lengths
        places = int(np.array(self.lengths)[np.searchsorted(self.lengths, lengths)].sum())
        return 1 - self.tokens(epoch) / places if places else 0.0


def plan_buckets(
    lengths: Integers, copies: Integers, buckets: list[int], per_update: NDArray[np.int64], seed: int, epoch: int
) -> Plan:
    """One epoch's updates in random order: a Plan whose `rows` are updates, and whose pieces are rows.

    Args:
        lengths, copies: as in `plan_epoch`.
        buckets: lengths of rows, rising; the last one is that of the longest piece.
        per_update: rows of an update of each bucket.
        seed, epoch: with the above, all that the plan depends on.
    """
    pieces = cut_documents(lengths, copies, buckets[-1])
    bucket = np.searchsorted(buckets, pieces.lengths)
    order = sorted_by(bucket, random_keys(len(pieces), seed, epoch, 1), len(buckets))
    counts = np.bincount(bucket, minlength=len(buckets))
    updates = -(-counts // per_update)
    number = np.arange(int(updates.sum())) - np.repeat(np.cumsum(updates) - updates, updates)
    sizes = np.minimum(
        np.repeat(per_update, updates), np.repeat(counts, updates) - number * np.repeat(per_update, updates)
    )
    begins = np.cumsum(sizes) - sizes
    shuffled = np.argsort(random_keys(len(sizes), seed, epoch, 2), kind="stable")
    ends = np.cumsum(sizes[shuffled])
    within = np.arange(len(pieces)) - np.repeat(ends - sizes[shuffled], sizes[shuffled])
    order = order[np.repeat(begins[shuffled], sizes[shuffled]) + within]
    return Plan(
        pieces.documents[order],
        pieces.starts[order],
        pieces.lengths[order],
        np.concatenate([[0], ends]).astype(np.int64),
    )
