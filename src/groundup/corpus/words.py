"""Words of a batch of texts, found on their bytes by numpy.

A text falls into words much as the Penn Treebank divides English (Marcus et al. 1993) and as spaCy's tokenizer does by
its rules for English, on which the thresholds of the filters were set:

- white space divides; it is part of no word;
- punctuation, quotes and pictures at the edges of what remains are words of their own, character by character; a row of
  dots is one word, a hyphen or a slash at an edge stays with its word;
- a full stop stays with an abbreviation, a single letter, "U.S."; otherwise it stands alone;
- inside, hyphens and dashes, slashes, colons and commas between letters divide ("well-known" is three words, "1,000"
  and "3.5" are one each), and so does a full stop between a small and a capital letter; addresses on the web are left
  whole;
- contractions are divided: do|n't, she|'s, we|'ll;
- in scripts that write no spaces (Han, kana, Thai, Lao, Burmese, Khmer) each letter with its marks is a word; in
  Tibetan each syllable is.

What the words of a text are never depends on the texts beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from groundup.corpus.characters import ALONE, ALPHABETIC, IN_WORD, SPACE, Characters, find_characters
from groundup.corpus.spans import hash_spans, places_in
from groundup.corpus.wordbreaks import mark_alone, mark_punctuation


@dataclass(frozen=True)
class Words:
    """The w words of a batch of n texts.

    Args:
        source: the characters they were found in.
        text_starts, text_ends: int64 [n], where the texts begin and end in `source.data`, in bytes.
        starts, ends: int64 [w], the same of the words.
        offsets: int64 [n + 1]; words offsets[i] to offsets[i + 1] are those of text i.
        first_kinds: uint8 [w], the kind of each one's first character (see `groundup.corpus.characters`).
        lengths: int64 [w], in characters.
        hashes: uint64 [w], of the words as written; equal words have equal hashes in every batch.
    """

    source: Characters
    text_starts: np.ndarray
    text_ends: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    first_kinds: np.ndarray
    lengths: np.ndarray
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 [n]: words of each text."""
        return np.diff(self.offsets)

    @cached_property
    def documents(self) -> np.ndarray:
        """int64 [w]: the number of the text each word stands in."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def text_lengths(self) -> np.ndarray:
        """int64 [n]: characters of each text."""
        return self.source.lengths(self.text_starts, self.text_ends)

    @cached_property
    def _holds(self) -> tuple[np.ndarray, np.ndarray]:
        """bool [w] twice: has a letter; has a letter, digit or mark."""
        alphabetic, written = ALPHABETIC[self.first_kinds], IN_WORD[self.first_kinds]
        unsure = np.flatnonzero(~alphabetic & (self.ends - self.starts > 1))
        if len(unsure):
            places, first = places_in(self.starts[unsure], self.ends[unsure])
            kinds = self.source.kinds[places]
            alphabetic[unsure] = np.logical_or.reduceat(ALPHABETIC[kinds], first)
            written[unsure] = np.logical_or.reduceat(IN_WORD[kinds], first)
        return alphabetic, written

    @property
    def alphabetic(self) -> np.ndarray:
        """bool [w]: the word has a letter."""
        return self._holds[0]

    @property
    def symbols(self) -> np.ndarray:
        """bool [w]: the word is punctuation or a symbol: it has no letter, digit or mark."""
        return np.asarray(~self._holds[1])

    @property
    def unspaced(self) -> np.ndarray:
        """bool [w]: the word is a letter of a script that writes no spaces."""
        return np.asarray(self.first_kinds == ALONE)

    @property
    def partial(self) -> np.ndarray:
        """bool [w]: the word is a letter of Thai, Lao, Burmese or Khmer, of which it takes several to make a word."""
        # These scripts stand below U+2000, where UTF-8 has no first byte from 0xE2 on; Han and kana stand above.
        return np.asarray(self.unspaced & (self.source.octets[self.starts] < 0xE2))

    def take(self, keep: np.ndarray) -> Words:
        """The words of the texts at which `keep`, bool [n], is true."""
        turns = np.flatnonzero(np.diff(keep, prepend=False, append=False))
        stretches = [slice(first, end) for first, end in self.offsets[turns].reshape(-1, 2).tolist()]

        def cut(values: np.ndarray) -> np.ndarray:  # whole stretches are copied faster than words are chosen
            return np.concatenate([values[:0], *(values[stretch] for stretch in stretches)])

        taken = replace(
            self,
            text_starts=self.text_starts[keep],
            text_ends=self.text_ends[keep],
            starts=cut(self.starts),
            ends=cut(self.ends),
            offsets=np.concatenate(([0], np.cumsum(self.counts[keep]))),
            first_kinds=cut(self.first_kinds),
            lengths=cut(self.lengths),
            hashes=cut(self.hashes),
        )
        if "_holds" in self.__dict__:
            taken.__dict__["_holds"] = tuple(cut(each) for each in self._holds)
        return taken


def find_words(texts: pa.LargeStringArray) -> Words:
    """The words of `texts`, large_string [n] without nulls."""
    source = find_characters(texts)
    return _words(source, source.kinds != SPACE, punctuation=True)


def normalised_words(texts: pa.LargeStringArray) -> Words:
    """Runs of letters, digits and marks, whatever stands between them; their hashes are those of their lower case.

    It is how texts are compared (contamination, lists of words): punctuation, case and white space play no part. In
    scripts that write no spaces each letter is a word, as in `find_words`. `texts` is large_string [n] without nulls.
    """
    source = find_characters(texts).lower
    return _words(source, IN_WORD[source.kinds], punctuation=False)


def ngram_places(words: Words, n: int) -> np.ndarray:
    """int64 [m]: the first word of each run of `n` words that lies within one text, in ascending order."""
    runs = np.maximum(words.counts - n + 1, 0)
    before = np.cumsum(runs) - runs
    return np.asarray(np.arange(runs.sum()) + np.repeat(words.offsets[:-1] - before, runs))


def _words(source: Characters, inside: np.ndarray, punctuation: bool) -> Words:
    """The words within the bytes that are `inside`, bool [N], divided at punctuation too where that is asked for."""
    border = np.empty(len(inside), bool)
    border[0] = False
    np.not_equal(inside[1:], inside[:-1], out=border[1:])
    mark_alone(border, source)
    if punctuation:
        mark_punctuation(border, source)
    starts = np.flatnonzero(border & inside)
    border[1:] &= inside[:-1]
    ends = np.flatnonzero(border)
    offsets = np.append(np.searchsorted(starts, source.starts), len(starts))
    lengths = ends - starts - _extra_within(source, starts, ends)
    hashes = hash_spans(source, starts, ends)
    return Words(source, source.starts, source.ends, starts, ends, offsets, source.kinds[starts], lengths, hashes)


def _extra_within(source: Characters, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """int64 [w] (or 0): bytes of each word beyond one a character."""
    if not len(source.leads) or not len(starts):
        return np.zeros(len(starts), np.int64)
    word = np.searchsorted(starts, source.leads, "right") - 1
    within = (word >= 0) & (source.leads < ends[word])
    return np.bincount(word[within], source.extra[within], len(starts)).astype(np.int64)
