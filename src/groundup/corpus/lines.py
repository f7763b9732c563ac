"""Lines and paragraphs of a batch of texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from groundup.corpus.words import Words

_NEWLINE = 10


@dataclass(frozen=True)
class Lines:
    """The l lines of a batch of n texts: what stands between "\\n"; a text has one more line than it has "\\n".

    Args:
        words: the words of the texts.
        starts, ends: int64 [l], where each line begins and ends in `words.source.data`, in bytes.
        offsets: int64 [n + 1]; lines offsets[i] to offsets[i + 1] are those of text i.
    """

    words: Words
    starts: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def documents(self) -> np.ndarray:
        """int64 [l]: the number of the text each line stands in."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [l]: characters of each line."""
        return self.words.source.lengths(self.starts, self.ends)

    @cached_property
    def word_offsets(self) -> np.ndarray:
        """int64 [l + 1]: words word_offsets[i] to word_offsets[i + 1] are those of line i."""
        return np.append(np.searchsorted(self.words.starts, self.starts), len(self.words))

    @cached_property
    def blank(self) -> np.ndarray:
        """bool [l]: nothing but white space."""
        return np.asarray(self.word_offsets[1:] == self.word_offsets[:-1])

    @cached_property
    def stripped(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 [l] twice: where each line begins and ends without the white space around; of blank ones its start."""
        full = ~self.blank
        starts, ends = self.starts.copy(), self.starts.copy()
        starts[full] = self.words.starts[self.word_offsets[:-1][full]]
        ends[full] = self.words.ends[self.word_offsets[1:][full] - 1]
        return starts, ends

    @cached_property
    def paragraphs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64 [p] three times: starts and ends of what stands between empty lines, and the number of its text."""
        full = np.flatnonzero(self.ends > self.starts)
        apart = (full[1:] != full[:-1] + 1) | (self.documents[full[1:]] != self.documents[full[:-1]])
        first, last = np.concatenate(([True], apart)), np.concatenate((apart, [True]))
        if not len(full):
            return full, full, full
        return self.starts[full[first]], self.ends[full[last]], self.documents[full[first]]


def find_lines(words: Words) -> Lines:
    """The lines of the texts whose words these are."""
    newlines = np.flatnonzero(words.source.octets == _NEWLINE)  # one stands before and after each text too
    first = np.searchsorted(newlines, words.text_starts)
    counts = np.searchsorted(newlines, words.text_ends) - first + 1
    offsets = np.concatenate(([0], np.cumsum(counts)))
    ends = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], counts)
    return Lines(words, newlines[ends - 1] + 1, newlines[ends], offsets)
