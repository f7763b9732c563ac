"""64-bit hashes of the lines and words of a batch of texts, vectorised over code points.

A stretch with normalised code points c₀ … c₍ₖ₋₁₎ has the polynomial hash Σ cᵢ·Bⁱ mod 2⁶⁴ (Karp and Rabin, 1987), mixed
with its length. With F the running sum of cᵢ·Bⁱ over all texts joined, the hash of a stretch from s to e is
(F(e) − F(s))·B⁻ˢ, so one pass gives those of every stretch, however long. Memory is about 40 bytes for each
character of a block, whatever the length of a text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

BLOCK = 2**16  # characters worked on at a time: the arrays of a block stay in a core's cache

_BASE = 0x9E3779B97F4A7C15  # any odd number has an inverse modulo 2**64; this one is 2**64 / golden ratio
_INVERSE = pow(_BASE, -1, 2**64)
_CODE = np.uint32(0x1FFFFF)
_LETTER = 1 << 22  # of a code point in the tables below: a letter or mark
_ALONE = 1 << 23  # a word by itself: a character of a script that puts no spaces between words

# Thai, Lao, Tibetan; Myanmar; Khmer; Han and its radicals; kana and bopomofo; half-width kana; rare Han.
UNSPACED = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FFF), (0x3005, 0x3007), (0x3040, 0x312F),
    (0x31A0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D), (0x20000, 0x31FFF),
)  # fmt: skip


def mixed(values: np.ndarray) -> np.ndarray:
    """Spread uint64 values so that every bit depends on all (the finaliser of MurmurHash3); a bijection."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return np.asarray(values ^ (values >> np.uint64(33)))


def hash_lines(text: str, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hash stretches of a text as lines are compared (after CCNet, Wenzek et al. 2020): in lower case, every decimal
    digit as 0, without white space and punctuation.

    Args:
        text: may be many texts joined.
        starts, ends: int64 [s], the characters where the stretches begin and end; sorted, none overlaps the next.

    Returns:
        uint64 [s] hashes, and int64 [s] how many letters and marks each stretch has.
    """
    cuts = np.stack((starts, ends), axis=1).ravel()
    sums, kept, letters = np.zeros(len(cuts), np.uint64), np.zeros(len(cuts), np.int64), np.zeros(len(cuts), np.int64)
    powers = _powers(_BASE)
    total, count, letter_count, done = 0, 0, 0, 0
    for start, codes in _blocks(text):
        values = _line_table()[codes]
        places = np.flatnonzero(values)
        values = values[places]
        upto = int(np.searchsorted(cuts, start + len(codes), "right"))
        here = np.searchsorted(places, cuts[done:upto] - start)
        running = _running((values & _CODE).astype(np.uint64) * powers[: len(values)])
        scale = pow(_BASE, count, 2**64)
        sums[done:upto] = running[here] * np.uint64(scale) + np.uint64(total)
        kept[done:upto] = here + count
        running_letters = np.concatenate(([0], np.cumsum(values >= _LETTER)))
        letters[done:upto] = running_letters[here] + letter_count
        total = (total + int(running[-1]) * scale) % 2**64
        count += len(values)
        letter_count += int(running_letters[-1])
        done = upto
    hashes = _difference(sums[0::2], sums[1::2], kept[0::2], kept[1::2])
    return hashes, letters[1::2] - letters[0::2]


class Words(NamedTuple):
    """Some words of a text, in order: uint64 [w] hashes, int64 [w] first characters and characters after the last."""

    hashes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def hash_words(text: str) -> Iterator[Words]:
    """The words of a text, block by block: runs of letters, marks and numbers, in lower case.

    In scripts without spaces between words (`UNSPACED`) every character is a word.
    """
    powers = _powers(_BASE)
    total, last = 0, 0
    open_sum, open_start = np.zeros(0, np.uint64), np.zeros(0, np.int64)  # of the word that a block's end cuts
    for start, codes in _blocks(text + "\n"):
        values = _word_table()[codes]
        before = np.concatenate((np.array([last], np.uint32), values[:-1]))
        is_word, was_word = values != 0, before != 0
        breaks = is_word != was_word
        alone = (values | before) >= _ALONE
        if alone.any():
            breaks |= alone
        scale = np.uint64(pow(_BASE, start, 2**64))
        running = _running((values & _CODE).astype(np.uint64) * powers[: len(values)]) * scale + np.uint64(total)
        begun, ended = np.flatnonzero(breaks & is_word), np.flatnonzero(breaks & was_word)
        starts = np.concatenate((open_start, begun + start))
        sums = np.concatenate((open_sum, running[begun]))
        n = len(ended)
        ends = ended + start
        yield Words(_difference(sums[:n], running[ended], starts[:n], ends), starts[:n], ends)
        open_start, open_sum = starts[n:], sums[n:]
        total, last = int(running[-1]), int(values[-1])


def _blocks(text: str) -> Iterator[tuple[int, np.ndarray]]:
    """(where it begins, uint32 code points) of every block of a text."""
    for start in range(0, len(text), BLOCK):
        data = text[start : start + BLOCK].encode("utf-32-le", "surrogatepass")
        yield start, np.frombuffer(data, "<u4")


def _running(values: np.ndarray) -> np.ndarray:
    """uint64 [n + 1] sums of the first 0, 1, … n values, modulo 2**64."""
    sums = np.empty(len(values) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(values, out=sums[1:])
    return sums


def _difference(first: np.ndarray, last: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Hashes of stretches from the running sums at their ends and the powers of B at which they begin and end."""
    inverse = _powers(_INVERSE)[begin % BLOCK]
    blocks = begin // BLOCK
    if len(blocks) and blocks[-1]:
        high = [pow(_INVERSE, BLOCK * block, 2**64) for block in range(int(blocks[0]), int(blocks[-1]) + 1)]
        inverse = inverse * np.array(high, np.uint64)[blocks - blocks[0]]
    lengths = (end - begin).astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    return mixed((last - first) * inverse + lengths)


@cache
def _powers(base: int) -> np.ndarray:
    """uint64 [BLOCK + 1] base⁰, base¹, … modulo 2**64."""
    powers = np.ones(BLOCK + 1, np.uint64)
    powers[1:] = np.uint64(base)
    return np.multiply.accumulate(powers)


@cache
def _line_table() -> np.ndarray:
    """uint32 [0x110000]: what a code point counts as in a line, with _LETTER; 0 where it is dropped."""
    table = _table("LMNS")
    digits = [code for code in range(0x20000) if unicodedata.category(chr(code)) == "Nd"]
    table[digits] = ord("0")
    return table


@cache
def _word_table() -> np.ndarray:
    """uint32 [0x110000]: what a code point counts as in a word, with _LETTER and _ALONE; 0 where it divides words."""
    table = _table("LMN")
    for first, last in UNSPACED:
        stretch = table[first : last + 1]
        stretch[stretch != 0] |= _ALONE
    return table


def _table(classes: str) -> np.ndarray:
    """Lower-case code points of the Unicode classes (first letters of general categories); 0 for all others."""
    table = np.zeros(0x110000, np.uint32)
    for code in range(0x20000):
        character = chr(code)
        kind = unicodedata.category(character)[0]
        if kind in classes:
            table[code] = ord(character.lower()[0]) | (_LETTER if kind in "LM" else 0)
    rare_han = np.arange(0x20000, 0x32000, dtype=np.uint32)
    table[0x20000:0x32000] = rare_han | _LETTER
    return table
