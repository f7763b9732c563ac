"""Lines and paragraphs that many documents share (after CCNet, Wenzek et al. 2020), and taking lines out of texts.

A decision is a table of removals, uint64 [m, 2] of (ordinal, key), sorted: this line of this document goes. So a
worker needs only the removals of the documents that it has before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.corpus.columns import flags
from groundup.corpus.dedup.groups import distinct, firsts, repeated, sizes
from groundup.corpus.dedup.stretches import hash_lines, mixed
from groundup.corpus.sizes import as_texts
from groundup.recipe.dedup import LinesSection

Unit = Literal["line", "paragraph"]

_BLANK = re.compile(r"\n[ \t]*\n\s*")


class Lines(NamedTuple):
    """The lines (or paragraphs) of a batch that count, in order; blank ones and those of too few letters don't.

    Args:
        hashes: uint64 [k].
        documents: int64 [k], of which text of the batch.
        numbers: int64 [k], which line of that text, from 0 and with those that don't count.
    """

    hashes: np.ndarray
    documents: np.ndarray
    numbers: np.ndarray


def find_lines(texts: Sequence[str], unit: Unit = "line", min_letters: int = 1) -> Lines:
    """Hash the lines of texts that have at least so many letters (see `stretches.hash_lines` for what is equal)."""
    starts: list[int] = []
    ends: list[int] = []
    counts = []
    offset = 0
    for text in texts:
        begun, ended = _borders(text, unit)
        starts += [start + offset for start in begun]
        ends += [end + offset for end in ended]
        counts.append(len(begun))
        offset += len(text) + 1
    hashes, letters = hash_lines("\n".join(texts), np.array(starts, np.int64), np.array(ends, np.int64))
    documents = np.repeat(np.arange(len(texts)), counts)
    first = np.cumsum([0, *counts[:-1]]) if counts else np.zeros(0, np.int64)
    numbers = np.arange(len(documents)) - np.repeat(first, counts)
    counting = np.flatnonzero(letters >= max(1, min_letters))
    return Lines(hashes[counting], documents[counting], numbers[counting])


def line_keys(texts: pa.LargeStringArray, section: LinesSection) -> tuple[np.ndarray, np.ndarray]:
    """What each document's lines are known by: uint64 [k] hashes and int64 [k] the document's place in the batch.

    A line that a document has twice is listed once. Lines without a letter, such as rows of a table of numbers, or
    with fewer than `min_characters`, aren't listed: they are never removed.
    """
    found = find_lines(texts.to_pylist(), section.unit, section.min_characters)
    return pairs_once(found.hashes, found.documents)


def pairs_once(keys: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (key uint64, document int64), equal ones once, by document."""
    rows = distinct(np.stack((documents.astype(np.uint64), keys), axis=1))
    return np.ascontiguousarray(rows[:, 1]), rows[:, 0].astype(np.int64)


def surplus_lines(rows: np.ndarray, section: LinesSection) -> np.ndarray:
    """Where shared lines go: in all documents but the first `max_documents` that have them.

    Args:
        rows: uint64 [n, 2] of (hash, ordinal), all that the corpus has of these hashes, no two equal; in any order.

    Returns:
        removals, uint64 [m, 2] of (ordinal, hash), sorted.
    """
    shared = rows[repeated(rows[:, 0])]
    shared = shared[np.lexsort((shared[:, 1], shared[:, 0]))]
    new = firsts(shared[:, 0])
    earlier = np.arange(len(shared)) - np.repeat(np.flatnonzero(new), sizes(new))
    return distinct(shared[earlier >= section.max_documents][:, ::-1])


def remove_lines(
    texts: pa.LargeStringArray, ordinals: np.ndarray, removals: np.ndarray, section: LinesSection
) -> tuple[pa.LargeStringArray, np.ndarray]:
    """Take the lines out that `surplus_lines` named.

    Args:
        texts: the texts from which the keys were made.
        ordinals: uint64 [n] of the documents.
        removals: uint64 [m, 2], sorted; of these documents at least.

    Returns:
        the texts, and int64 [n] how many lines (or paragraphs) each has lost. A text may be left empty.
    """

    def find(some: list[str], rows: np.ndarray) -> Lines:
        return find_lines(some, section.unit, section.min_characters)

    return take_out(texts, ordinals, removals, find, section.unit)


def take_out(
    texts: pa.LargeStringArray,
    ordinals: np.ndarray,
    removals: np.ndarray,
    find: Callable[[list[str], np.ndarray], Lines],
    unit: Unit = "line",
) -> tuple[pa.LargeStringArray, np.ndarray]:
    """Remove the lines that `removals` name, as `remove_lines` does.

    `find` is called with the texts that have removals and their int64 places in the batch; the `hashes` of what it
    returns are the keys.
    """
    lost = np.zeros(len(texts), np.int64)
    if not len(texts):
        return texts, lost
    low, high = np.searchsorted(removals[:, 0], [ordinals.min(), ordinals.max() + np.uint64(1)])
    removals = removals[low:high]
    mask = np.isin(ordinals, removals[:, 0])
    if not mask.any():
        return texts, lost
    rows = np.flatnonzero(mask)
    some = texts.filter(flags(mask)).to_pylist()
    found = find(some, rows)
    both = mixed(ordinals[rows][found.documents]) + found.hashes
    goes = np.isin(both, mixed(removals[:, 0]) + removals[:, 1])
    documents, numbers = found.documents[goes], found.numbers[goes]
    lost[rows] = np.bincount(documents, minlength=len(rows))
    cuts = np.searchsorted(documents, np.arange(len(rows) + 1))
    edited = [
        _without(text, unit, set(numbers[start:end].tolist()))
        for text, start, end in zip(some, cuts[:-1], cuts[1:], strict=True)
    ]
    return pc.replace_with_mask(texts, flags(mask), as_texts(edited)), lost


def _borders(text: str, unit: Unit) -> tuple[list[int], list[int]]:
    """Where the lines (or paragraphs) of a text begin and end."""
    if unit == "line":
        ends = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=-1))
        return [end + 1 for end in ends[:-1]], ends[1:]
    blanks = [match.span() for match in _BLANK.finditer(text)]
    return [0, *(end for _, end in blanks)], [*(start for start, _ in blanks), len(text)]


def _without(text: str, unit: Unit, goes: set[int]) -> str:
    """The text less the lines (or paragraphs) of the given numbers; two blank lines that so meet become one."""
    if not goes:
        return text
    starts, _ = _borders(text, unit)
    kept: list[str] = []
    after_removal = False
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True)):
        if number in goes:
            after_removal = True
            continue
        piece = text[start:end]
        if not piece.isspace():
            after_removal = False
        elif after_removal and (not kept or kept[-1].isspace()):
            continue
        kept.append(piece)
    return "".join(kept).strip()
