"""Exact duplicates: documents that equal an earlier one but for case and white space."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from groundup.corpus.dedup.groups import firsts, repeated


def exact_keys(texts: pa.LargeStringArray) -> np.ndarray:
    """The first 128 bits of BLAKE2b of every text in lower case, with runs of white space as one space.

    Returns:
        uint64 [n, 2]. 128 bits leave no room for chance: among 10¹² texts two differing ones share a key with
        probability 10⁻¹⁵.
    """
    digests = [_digest(text) for text in texts.to_pylist()]
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2).astype(np.uint64, copy=False)


def _digest(text: str) -> bytes:
    plain = " ".join(text.lower().split())
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def first_of_each(keys: np.ndarray, ordinals: np.ndarray) -> np.ndarray:
    """Which documents stay: of those with equal keys the one of the lowest ordinal.

    Documents of finished corpora have the lowest ordinals, so that they win.

    Args:
        keys: uint64 [n, 2].
        ordinals: uint64 [n], no two equal; in any order.

    Returns:
        bool [n].
    """
    stays = np.ones(len(keys), bool)
    rows = repeated(keys[:, 0])
    rows = rows[np.lexsort((ordinals[rows], keys[rows, 1], keys[rows, 0]))]
    stays[rows] = firsts(keys[rows, 0], keys[rows, 1])
    return stays
