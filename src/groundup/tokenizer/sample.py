"""The text that merges are learned from: a bounded sample of the corpus that the documents' digests draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from groundup.tokenizer.encode import count_documents, document_batches, text_size

TOLD = 2**20  # bytes of text between two words about how far reading is
SPARE = 64  # documents looked at beyond those that a fair share is likely to hold


class Sample:
    """Training texts of at most `limit` bytes, in the corpus's order; reading it again gives the same.

    Documents are taken by their digests, lowest first, as long as they fit: all of them where the corpus is no larger.
    The digest's second half decides; its first half has already decided the split. Of a first document larger than the
    limit its beginning is taken. Memory: 16 bytes for each of about twice the documents taken.

    Args:
        total: bytes of text in the split.
        say: is told how many bytes have been read.

    Attributes:
        bytes: of the sample's texts.
    """

    def __init__(self, corpus: Path, total: int, limit: int, say: Callable[[float], None]) -> None:
        self.corpus, self.limit, self.say = corpus, limit, say
        self.bytes = total
        self._last: int | None = None  # the greatest key that is taken; None: all
        if total > limit:
            self.bytes, self._last = self._draw(limit / total)

    def __iter__(self) -> Iterator[str]:
        read = told = 0
        for identities, texts in document_batches(self.corpus, "train", ["id", "text"]):
            taken = (
                range(len(texts)) if self._last is None else np.flatnonzero(_keys(identities) <= self._last).tolist()
            )
            for place in taken:
                text = texts[place].as_py()
                size = text_size(text)
                if size > self.limit:
                    text, size = text.encode()[: self.limit].decode("utf-8", "ignore"), self.limit
                read += size
                yield text
                if read - told >= TOLD:
                    told = read
                    self.say(min(read, self.bytes))

    def _draw(self, share: float) -> tuple[int, int]:
        """The bytes of the documents that fit, and the greatest key among them."""
        keys, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        documents = count_documents(self.corpus, "train")
        bound = min(1.0, 2 * share + SPARE / documents) * 2.0**48
        for identities, texts in document_batches(self.corpus, "train", ["id", "text"]):
            found = _keys(identities)
            near = found < bound
            keys.append(found[near])
            sizes.append(pc.binary_length(texts).to_numpy(zero_copy_only=False)[near].astype(np.int64))
        key, size = np.concatenate(keys), np.concatenate(sizes)
        order = np.argsort(key, kind="stable")
        ends = np.cumsum(size[order])
        count = max(1, int(np.searchsorted(ends, self.limit, side="right")))
        return min(int(ends[count - 1]), self.limit), int(key[order[count - 1]])


def _keys(identities: Any) -> np.ndarray:
    """The second half of digests (an Arrow array), 48 bits of it: uint64 [documents]."""
    digests = bytes.fromhex("".join(identities.to_pylist()))
    words = np.frombuffer(digests, ">u8").reshape(-1, 2)[:, 1]
    return (words >> np.uint64(16)).astype(np.uint64)
