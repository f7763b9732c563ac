"""Stretches of bytes and runs of words as 64-bit hashes, and where equal ones stand in a text again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from groundup.corpus.characters import Characters

_SALT = np.uint64(0xA0761D6478BD642F)
_FACTORS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_NGRAM = np.uint64(0xE7037ED1A0B428DB)


class Repeats(NamedTuple):
    """The g groups of equal items, those that stand in their text more than once.

    Args:
        heads: int64 [g], the number of each group's first item.
        later: int64 [r], the numbers of all further items, group by group, in ascending order within a group.
        groups: int64 [r], the group of each of them.
    """

    heads: np.ndarray
    later: np.ndarray
    groups: np.ndarray


def find_repeats(hashes: np.ndarray, documents: np.ndarray) -> Repeats:
    """Which items equal an earlier one of the same text.

    Args:
        hashes: uint64 [k], of the items in the order of the texts.
        documents: int64 [k], the number of the text of each, ascending.

    Hashes are sorted with the items' numbers in their lowest bits, which is several times faster than sorting indices.
    Where two different hashes agree in all other bits the slow sort decides, so that the result is always exact.
    """
    bits = np.uint64(max(len(hashes) - 1, 0).bit_length())
    numbers = np.arange(len(hashes), dtype=np.uint64)
    keys = hashes >> bits << bits | numbers
    keys.sort()
    follow = np.flatnonzero(keys[1:] >> bits == keys[:-1] >> bits) + 1
    order = (keys & ((np.uint64(1) << bits) - np.uint64(1))).view(np.int64)
    before, this = order[follow - 1], order[follow]
    if not np.array_equal(hashes[before], hashes[this]):
        order = np.argsort(hashes, kind="stable")
        follow = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]]) + 1
        before, this = order[follow - 1], order[follow]
    same = documents[before] == documents[this]
    follow, before, later = follow[same], before[same], this[same]
    first = np.ones(len(follow), bool)
    first[1:] = follow[1:] != follow[:-1] + 1
    return Repeats(before[first], later, np.cumsum(first) - 1)


def find_equal_spans(source: Characters, starts: np.ndarray, ends: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """int64 [r]: the numbers of the spans that are equal, byte by byte, to an earlier one of the same text.

    Args:
        starts, ends: int64 [k], where the spans begin and end; they are in the order of the texts.
        documents: int64 [k], the number of the text of each, ascending.

    Most spans differ already in their size, their first or their last eight bytes; only the others are hashed whole.
    """
    sizes = ends - starts
    ending = np.minimum(sizes, 8)
    ends_hashed = _scatter(_load(source, ends - ending, ending), sizes)
    alike = find_repeats(_scatter(_load(source, starts, sizes) ^ ends_hashed, sizes), documents)
    doubtful = np.sort(np.concatenate((alike.heads, alike.later)))
    hashes = hash_spans(source, starts[doubtful], ends[doubtful])
    return np.asarray(doubtful[find_repeats(hashes, documents[doubtful]).later])


def ngram_hashes(hashes: np.ndarray, first: np.ndarray, n: int) -> np.ndarray:
    """uint64 [m]: hashes of the runs of `n` words that begin at the words `first`, int64 [m].

    They are the polynomial Σ h_i · c^(n−1−i) mod 2^64 of the words' `hashes` (Karp & Rabin 1987).
    """
    found = hashes[first]
    for step in range(1, n):
        found *= _NGRAM
        found += hashes[first + step]
    return np.asarray(found)


def hash_spans(source: Characters, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """uint64 [k]: hashes of the bytes from `starts` to `ends`, int64 [k] each; equal bytes have equal hashes.

    Eight bytes at a time are scattered by multiplications and shifts (as in Steele et al. 2014) together with their
    place, and summed.
    """
    sizes = ends - starts
    found = _scatter(_load(source, starts, sizes), sizes)
    long = np.flatnonzero(sizes > 8)
    if len(long):
        pieces = (sizes[long] - 1) >> 3  # beyond the first eight bytes
        first = np.cumsum(pieces) - pieces
        number = np.arange(1, first[-1] + pieces[-1] + 1) - np.repeat(first, pieces)
        left = np.repeat(sizes[long], pieces) - 8 * number
        rest = _load(source, np.repeat(starts[long], pieces) + 8 * number, left)
        found[long] += np.add.reduceat(_scatter(rest, number << 32), first)
    return found


def _load(source: Characters, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """uint64 [k]: up to eight bytes from each start on, as many as `sizes` says, at the upper end of the number."""
    loaded = source.eights[starts]
    if len(sizes) and sizes.min() <= 0:  # a shift by 64 is not defined
        loaded[sizes <= 0] = 0
    loaded <<= (np.clip(8 - sizes, 0, 7) << 3).view(np.uint64)
    return np.asarray(loaded)


def _scatter(values: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """Scatter uint64 [k], each with its salt, int64 [k]; `values` is changed in place."""
    values ^= salt.view(np.uint64) * _SALT
    for factor in _FACTORS:
        values ^= values >> np.uint64(32)
        values *= factor
    values ^= values >> np.uint64(29)
    return values


def places_in(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every place in the spans, one span after the other, and where each span (none is empty) begins among them."""
    sizes = ends - starts
    first = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) + np.repeat(starts - first, sizes), first


def sum_within(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64 [n]: sums of values[offsets[i] : offsets[i + 1]]; `values` are integers or booleans [k]."""
    total = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]])


def count_between(places: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """int64 [n]: how many of the places, int64 [p] ascending, lie in each span."""
    return np.asarray(np.searchsorted(places, ends) - np.searchsorted(places, starts))
