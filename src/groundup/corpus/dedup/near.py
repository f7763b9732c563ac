"""Near-duplicates by MinHash and locality-sensitive hashing: signatures, bands, and which documents to compare."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from groundup.corpus.dedup.groups import repeated
from groundup.corpus.dedup.stretches import mixed
from groundup.corpus.kernels import minhash
from groundup.recipe.dedup import NearSection

FINISHED = 0  # the rank of a document of a finished corpus

_NO_WORDS = np.uint32(2**32 - 1)


def sign(texts: pa.LargeStringArray, section: NearSection) -> np.ndarray:
    """MinHash signatures, uint32 [n, section.signature]: see `kernels.minhash` for what a word is."""
    return minhash(texts, section.signature, section.ngram)


def fingerprints(signatures: np.ndarray) -> np.ndarray:
    """The lowest eight bits of every hash, uint8 of the same shape: all that comparing documents needs.

    Two hashes that differ agree in these bits with probability 1/256, for which `clusters.needed` corrects (b-bit
    minwise hashing, Li and König 2010).
    """
    return signatures.astype(np.uint8)


def band_keys(signatures: np.ndarray, section: NearSection) -> np.ndarray:
    """Hashes of the bands: uint64 [n, bands] from uint32 [n, ≥ bands · rows].

    Documents equal in all rows of a band have its key in common; keys of different bands differ.
    """
    bands = signatures[:, : section.bands * section.rows].reshape(len(signatures), section.bands, section.rows)
    keys = np.broadcast_to(mixed(np.arange(1, section.bands + 1, dtype=np.uint64)), bands.shape[:2])
    for row in range(section.rows):
        keys = mixed(keys + bands[:, :, row])
    return np.asarray(keys)


def keep_ranks(
    section: NearSection, lengths: np.ndarray, quality: np.ndarray | None = None, *, finished: bool = False
) -> np.ndarray:
    """The order in which documents are kept: of near-duplicates that of the lowest rank stays, then lowest ordinal.

    Args:
        section: `keep` says what counts.
        lengths: int64 [n], the size of each text.
        quality: float [n], higher is better; NaN (or None for all) where no classifier scored a text: then its length
            counts, and any text with a score is better.
        finished: the documents belong to finished corpora, which always win.

    Returns:
        uint64 [n], from 1; `FINISHED` for documents of finished corpora.
    """
    if finished:
        return np.full(len(lengths), FINISHED, np.uint64)
    if section.keep == "first":
        return np.ones(len(lengths), np.uint64)
    by_length = np.uint64(2**63) - lengths.astype(np.uint64)
    if section.keep == "longest" or quality is None:
        return np.asarray(by_length)
    bits = quality.astype(np.float32).view(np.uint32)
    sign = np.uint32(2**31)
    rising = np.where(bits < sign, bits | sign, ~bits)  # IEEE numbers as integers in the same order
    return np.asarray(np.where(np.isnan(quality), by_length, np.uint64(2**32) - rising))


def in_buckets(rows: np.ndarray, section: NearSection) -> np.ndarray:
    """The rows that share their band with another document.

    Args:
        rows: uint64 [n, 3] of (band's key, rank, ordinal), all that the corpus has of these keys; in any order.

    Returns:
        uint64 [m, 3], sorted by key, then rank, then ordinal. Documents without any word are left out.
    """
    empty = band_keys(np.full((1, section.bands * section.rows), _NO_WORDS), section)
    shared = rows[repeated(rows[:, 0])]
    shared = shared[~np.isin(shared[:, 0], empty)]
    return np.asarray(shared[np.lexsort((shared[:, 2], shared[:, 1], shared[:, 0]))])
