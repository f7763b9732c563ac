"""Which near-duplicates go: candidates are compared, and a document goes only if it equals a kept one nearly enough.

The rule. Documents have an order (`near.keep_ranks`). From the best on, each stays unless it was compared with a
better one that stays and found a near-duplicate of it. So every document that goes is near to one that stays: a chain
of pages, each like the next, never collapses into one, as it would if near-duplicates of near-duplicates went too. In
terms of graphs, what stays is the lexicographically first maximal independent set of the verified pairs.

What is compared. Documents that share a band are a bucket. Comparing all pairs of a bucket of n takes n² steps, so
its best document leads: all others are compared with it. Then the best of those that were near to no leader leads,
and so on for up to `ROUNDS` leaders. That is at most `ROUNDS` comparisons a row, whatever the buckets. A bucket that
has more leaders in it is of pages made from one template, which share a band because all its rows come from the
template. They are less alike than the threshold s, so that is true of fewer than s^rows of their bands (one in eight
at the defaults): a page's near-duplicates meet it in other, small buckets.

How sure it is. Similarity is estimated, with the standard error that `needed` states. At 256 hashes, six of which a
shared band makes equal, and a threshold of 0.7, one compared pair in 800 of true similarity 0.6 is taken for
near-duplicates, and one in 28,000 of 0.57.

Nothing here depends on the order of rows or on how they were divided among tasks.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterator

import numpy as np

from groundup.corpus.dedup.groups import distinct, firsts, sizes
from groundup.corpus.dedup.near import FINISHED, in_buckets
from groundup.corpus.kernels import with_spaces
from groundup.corpus.sizes import as_texts
from groundup.recipe.dedup import NearSection

ROUNDS = 32
ROWS_AT_ONCE = 2**19  # whose fingerprints are in memory together
PAIRS_AT_ONCE = 2**15

Lookup = Callable[[np.ndarray], np.ndarray]
"""Fingerprints, uint8 [m, hashes], of documents given by their ordinals, uint64 [m] in rising order."""


def near_pairs(rows: np.ndarray, lookup: Lookup, section: NearSection) -> np.ndarray:
    """Compare the documents of a partition that share a band.

    Args:
        rows: uint64 [n, 3] of (band's key, rank, ordinal), all that the corpus has of these keys; in any order.
        lookup: gives fingerprints.

    Returns:
        verified pairs, uint64 [e, 4] of (better ordinal, its rank, worse ordinal, its rank), sorted, equal ones once.
        No pair has two documents of finished corpora.
    """
    found = [_compare(part, lookup, section) for part in _parts(in_buckets(rows, section))]
    return distinct(np.concatenate([np.empty((0, 4), np.uint64), *found]))


def choose(pairs: np.ndarray, lookup: Lookup, section: NearSection) -> np.ndarray:
    """Which documents go, by the rule above.

    A document that was compared only with one that goes may still be near to what replaced that one, or to others
    that were left so: those are compared too, until nothing new is found.

    Args:
        pairs: uint64 [e, 4], those of all partitions (`near_pairs`); in any order, equal ones may repeat.

    Returns:
        uint64 [m, 2] of (ordinal of a document that goes, ordinal of the one that stays for it), sorted.
    """
    pairs = distinct(pairs)
    while True:
        ranks, ordinals, better, worse = _numbered(pairs)
        keeper = _keepers(better, worse, len(ordinals))
        left = (keeper[better] >= 0) & (keeper[worse] < 0)
        groups = np.concatenate((better[left], np.unique(better[left])))
        members = np.concatenate((worse[left], keeper[np.unique(better[left])]))
        rows = np.stack((groups.astype(np.uint64), ranks[members], ordinals[members]), axis=1)
        rows = distinct(rows)
        found = [_compare(part, lookup, section) for part in _parts(rows)]
        more = distinct(np.concatenate([pairs, *found]))
        if len(more) == len(pairs):
            gone = np.flatnonzero(keeper >= 0)
            return distinct(np.stack((ordinals[gone], ordinals[keeper[gone]]), axis=1))
        pairs = more


def needed(hashes: int, threshold: float) -> int:
    """How many of the fingerprints' numbers have to agree for an estimated Jaccard similarity of `threshold`.

    With similarity s a number agrees with probability s + (1 − s)/256. The estimate's standard error is about
    √(s(1 − s)/hashes).
    """
    return math.ceil(hashes * (threshold + (1 - threshold) / 256) - 1e-9)


def exact_jaccard(first: str, second: str, ngram: int) -> float:
    """The Jaccard similarity that signatures estimate: shared word n-grams over all, words as in `kernels.minhash`.

    Texts without any word have similarity 0 to all.
    """
    one, two = shingles(first, ngram), shingles(second, ngram)
    return len(one & two) / len(one | two) if one and two else 0.0


def shingles(text: str, ngram: int) -> set[tuple[str, ...]]:
    """The word n-grams of a text, or all its words where they are fewer."""
    spaced = with_spaces(as_texts([text]))[0].as_py()
    words = spaced.translate(_NO_PUNCTUATION).lower().split()
    if len(words) <= ngram:
        return {tuple(words)} if words else set()
    return {tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)}


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _numbered(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The documents of pairs in their order: ranks and ordinals, uint64 [d], and for each pair int64 [e] the places of
    the better and the worse one."""
    documents = distinct(np.concatenate((pairs[:, [1, 0]], pairs[:, [3, 2]])))
    ranks, ordinals = documents[:, 0], documents[:, 1]
    by_ordinal = np.argsort(ordinals)
    better, worse = (by_ordinal[np.searchsorted(ordinals[by_ordinal], pairs[:, column])] for column in (0, 2))
    return ranks, ordinals, better, worse


def _keepers(better: np.ndarray, worse: np.ndarray, documents: int) -> np.ndarray:
    """int64 [documents]: the place of the first kept document that each is near to, −1 for those that stay."""
    order = np.argsort(better, kind="stable")
    keeper = [-1] * documents
    for start in range(0, len(order), 2**16):
        some = order[start : start + 2**16]
        for one, two in zip(better[some].tolist(), worse[some].tolist(), strict=True):
            if keeper[one] < 0 and keeper[two] < 0:
                keeper[two] = one
    return np.array(keeper, np.int64)


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows sorted by key in parts of at most ROWS_AT_ONCE, cut between buckets; a larger bucket is cut itself."""
    starts = np.flatnonzero(firsts(rows[:, 0]))
    start = 0
    while start < len(rows):
        end = min(start + ROWS_AT_ONCE, len(rows))
        if end < len(rows):
            border = int(starts[np.searchsorted(starts, end, "right") - 1])
            end = border if border > start else end
        yield rows[start:end]
        start = end


def _compare(rows: np.ndarray, lookup: Lookup, section: NearSection) -> np.ndarray:
    """Verified pairs (as `near_pairs`) of rows of (key, rank, ordinal), which are sorted."""
    ordinals, documents = np.unique(rows[:, 2], return_inverse=True)
    prints = lookup(ordinals)
    enough = needed(prints.shape[1], section.threshold)

    pairs = _lead(rows[:, 0], rows[:, 1] != FINISHED, documents, prints, enough)
    leaders, members = pairs.T
    return np.concatenate((rows[leaders][:, [2, 1]], rows[members][:, [2, 1]]), axis=1)


def _lead(buckets: np.ndarray, own: np.ndarray, documents: np.ndarray, prints: np.ndarray, enough: int) -> np.ndarray:
    """Let the best row of each bucket that is near to no leader yet lead, up to ROUNDS times.

    Args:
        buckets: uint64 [r], rising; within one the best row comes first.
        own, documents: bool and int64 [r], whether a row's document may go, and its place in `prints`.

    Returns:
        int64 [e, 2], verified pairs of rows (better, worse).
    """
    active, free = np.arange(len(buckets)), np.ones(len(buckets), bool)
    pairs = [np.empty((0, 2), np.int64)]
    for _ in range(ROUNDS):
        if not len(active):
            break
        new = firsts(buckets[active])
        count = sizes(new)
        group = np.cumsum(new) - 1
        lead = np.minimum.reduceat(np.where(free[active], active, len(buckets)), np.flatnonzero(new))
        lead[count == 1] = len(buckets)
        keep = lead[group] < len(buckets)
        active, leaders = active[keep], lead[group[keep]]
        others = active != leaders
        active, leaders = active[others], leaders[others]
        compared = np.flatnonzero(own[active] | own[leaders])  # so a finished corpus's document always leads
        agreeing = _agreement(prints, documents[leaders[compared]], documents[active[compared]])
        near = compared[agreeing >= enough]
        pairs.append(np.sort(np.stack((leaders[near], active[near]), axis=1), axis=1))
        free[active[near]] = False
    return np.concatenate(pairs)


def _agreement(prints: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int64 [k]: in how many numbers the fingerprints agree, of pairs given by their rows."""
    counts = np.empty(len(first), np.int64)
    for start in range(0, len(first), PAIRS_AT_ONCE):
        some = slice(start, start + PAIRS_AT_ONCE)
        counts[some] = (prints[first[some]] == prints[second[some]]).sum(axis=1, dtype=np.uint16)
    return counts
