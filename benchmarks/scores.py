"""The yardsticks: exact Jaccard similarity of word shingles, near-duplicate recall and precision, F1 of texts.

They share no code with either side of a comparison. Words are runs of letters, digits and underscores in lower case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser

import numpy as np

WIDTH = 5  # words in a shingle
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


class Shingler:
    """Texts to sets of 64-bit hashes of `WIDTH` words in a row; equal words get equal hashes within one shingler."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._codes: dict[str, int] = {}
        self._pool: list[int] = []

    def __call__(self, text: str) -> np.ndarray:
        """uint64 [m], sorted, each once; a text of fewer than `WIDTH` words has one shingle, an empty one none."""
        codes = np.array([self._code(word) for word in words(text)], dtype=np.uint64)
        if not len(codes):
            return codes
        width = min(WIDTH, len(codes))
        count = len(codes) - width + 1
        hashes = np.zeros(count, dtype=np.uint64)
        for offset in range(width):  # Σ code · oddᵒ modulo 2⁶⁴: codes are random, so equal sums are equal shingles
            hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + count]
        return np.unique(hashes)

    def _code(self, word: str) -> int:
        code = self._codes.get(word)
        if code is None:
            if not self._pool:
                self._pool = self._random.integers(0, 2**64, 1 << 16, dtype=np.uint64).tolist()
            code = self._codes[word] = self._pool.pop()
        return code


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|a ∩ b| / |a ∪ b| of two sets as `Shingler` gives them; 0 where both are empty."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0


@dataclass(frozen=True)
class Neighbours:
    """All pairs of n documents from some similarity on: first < second, int64 [m], and their Jaccard, float64 [m]."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


def neighbours(texts: Iterable[str], threshold: float = 0.5) -> Neighbours:
    """Every pair of the texts with exact Jaccard similarity ≥ `threshold` (at least 0.5), by an inverted index.

    Of two such sets, i in common, i ≥ (a + b)/3 holds, and so i ≥ a/2: a document fewer than half of whose shingles
    occur elsewhere has no such neighbour and is passed over.
    """
    shingler = Shingler()
    sets = [shingler(text) for text in texts]
    sizes = np.array([len(each) for each in sets], dtype=np.int64)
    owner = np.repeat(np.arange(len(sets)), sizes)
    order = np.argsort(np.concatenate(sets), kind="stable")  # within a shingle, documents in their order
    hashes, posts = np.concatenate(sets)[order], owner[order]
    begins = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
    counts = np.diff(np.append(begins, len(hashes)))
    group = np.empty(len(hashes), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(begins)), counts)  # of every shingle of every document
    ends = np.cumsum(sizes)
    found: list[tuple[np.ndarray, ...]] = []
    for document, end in enumerate(ends):
        mine = group[end - sizes[document] : end]
        mine = mine[counts[mine] > 1]
        if not len(mine) or 2 * len(mine) < sizes[document]:
            continue
        spans = counts[mine]
        into = np.repeat(begins[mine] - (np.cumsum(spans) - spans), spans) + np.arange(spans.sum())
        shared = np.bincount(posts[into], minlength=len(sets))
        shared[: document + 1] = 0
        others = np.flatnonzero(shared)
        similarity = shared[others] / (sizes[document] + sizes[others] - shared[others])
        near = similarity >= threshold
        found.append((np.full(near.sum(), document), others[near], similarity[near]))
    if not found:
        return Neighbours(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Neighbours(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def recall(pairs: Neighbours, kept: np.ndarray, lowest: float) -> tuple[float | None, int]:
    """(share of the pairs with similarity ≥ `lowest` of which not both are kept, their number). `kept`: bool [n]."""
    wanted = pairs.similarity >= lowest
    both = kept[pairs.first[wanted]] & kept[pairs.second[wanted]]
    return (None, 0) if not len(both) else (1 - float(both.mean()), len(both))


def precision(pairs: Neighbours, kept: np.ndarray, lowest: float) -> tuple[float | None, int]:
    """(share of removed documents that are similar by ≥ `lowest` to one that is kept, number removed).

    Strict: what a chain of pairs carried away from all that is kept counts as wrongly removed.
    """
    wanted = pairs.similarity >= lowest
    first, second = pairs.first[wanted], pairs.second[wanted]
    stands_for = np.zeros(len(kept), dtype=bool)
    stands_for[first[kept[second]]] = True
    stands_for[second[kept[first]]] = True
    removed = ~kept
    return (None, 0) if not removed.any() else (float(stands_for[removed].mean()), int(removed.sum()))


def agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(share of equal decisions, Cohen's kappa: 0 is chance, 1 is perfect) of two boolean arrays [n]."""
    equal = float((a == b).mean())
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return equal, 1.0 if chance == 1 else float((equal - chance) / (1 - chance))


def text_f1(found: str, gold: str) -> float:
    """F1 of a text against the true one, over runs of four words (fewer in shorter texts), with their counts."""
    ours, theirs = _runs(words(found)), _runs(words(gold))
    shared = sum((ours & theirs).values())
    total = sum(ours.values()) + sum(theirs.values())
    return 2 * shared / total if total else 1.0


def _runs(tokens: Sequence[str], width: int = 4) -> Counter[tuple[str, ...]]:
    width = min(width, len(tokens)) or 1
    return Counter(tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1))


class _TextOfHtml(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in ("script", "style")
        if tag not in _INLINE:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0
        if tag not in _INLINE:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


_INLINE = frozenset(
    ("a", "abbr", "b", "bdi", "bdo", "cite", "code", "em", "font", "i", "kbd", "mark", "q", "s", "samp", "small",
     "span", "strong", "sub", "sup", "u", "var")
)  # fmt: skip


def text_of_html(page: str) -> str:
    """All text of a clean page, as of the expected results in the gold data; block elements end lines."""
    parser = _TextOfHtml()
    parser.feed(page)
    parser.close()
    return "".join(parser.parts)
