"""The quality rules of Gopher (Rae et al. 2021, section A.1.1)."""

from __future__ import annotations

import numpy as np

from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.filters.verdict import Verdict, share
from groundup.corpus.lines import Lines
from groundup.corpus.sizes import as_texts
from groundup.corpus.spans import count_between, sum_within
from groundup.corpus.words import Words, find_words
from groundup.recipe.filters import GopherQualitySection

_ELLIPSIS = int.from_bytes("…".encode(), "little")
_DOTS = int.from_bytes(b"...", "little")
_BULLET = int.from_bytes("•".encode(), "little")
_THREE = np.uint64(0xFFFFFF)


class GopherQualityFilter:
    """Refuses what is unlike running text.

    Number and mean length are those of words; the other shares of words are of words and punctuation marks together.
    Lines are all lines, blank ones too. The mean length is not asked of a text most of whose words are letters of a
    script without spaces: it would always be about 1.
    """

    name = "gopher_quality"
    rules = (
        "min_words",
        "max_words",
        "min_mean_word_length",
        "max_mean_word_length",
        "max_hashes",
        "max_ellipses",
        "max_bullet_lines",
        "max_ellipsis_lines",
        "min_alphabetic_words",
        "min_stop_words",
    )

    def __init__(self, section: GopherQualitySection) -> None:
        self.section = section
        self._stop_words = find_words(as_texts(section.stop_words))

    def __call__(self, batch: Batch) -> Outcome:
        words, lines, section = batch.words, batch.lines, self.section
        verdict = Verdict(self.rules, len(batch))
        plain = ~words.symbols
        count = sum_within(plain, words.offsets)
        verdict.at_least("min_words", count, section.min_words)
        verdict.at_most("max_words", count, section.max_words)
        mean = share(sum_within(words.lengths * plain, words.offsets), count)
        spaced = 2 * sum_within(words.unspaced, words.offsets) <= count
        verdict.refuse("min_mean_word_length", spaced & (mean < section.min_mean_word_length), mean)
        verdict.refuse("max_mean_word_length", spaced & (mean > section.max_mean_word_length), mean)
        verdict.at_most("max_hashes", share(_hashes(words), words.counts), section.max_hashes)
        verdict.at_most("max_ellipses", share(_ellipses(words), words.counts), section.max_ellipses)
        verdict.at_most("max_bullet_lines", _of_lines(lines, _has_bullet(lines)), section.max_bullet_lines)
        verdict.at_most("max_ellipsis_lines", _of_lines(lines, _ends_in_ellipsis(lines)), section.max_ellipsis_lines)
        alphabetic = share(sum_within(words.alphabetic, words.offsets), words.counts)
        verdict.at_least("min_alphabetic_words", alphabetic, section.min_alphabetic_words)
        verdict.at_least("min_stop_words", self._count_stop_words(words), section.min_stop_words)
        return verdict.outcome()

    def _count_stop_words(self, words: Words) -> np.ndarray:
        """int64 [n]: how many of the stop words occur in each text. One may be several words, as in Chinese."""
        stop = self._stop_words
        found = np.zeros(len(words.counts), np.int64)
        for first, end in zip(stop.offsets[:-1], stop.offsets[1:], strict=True):
            pattern = stop.hashes[first:end]
            if not len(pattern) or len(pattern) > len(words):
                continue
            places = np.flatnonzero(words.hashes[: len(words) - len(pattern) + 1] == pattern[0])
            for step in range(1, len(pattern)):
                places = places[words.hashes[places + step] == pattern[step]]
            inside = places[words.documents[places] == words.documents[places + len(pattern) - 1]]
            here = np.zeros(len(found), bool)
            here[words.documents[inside]] = True
            found += here
        return found


def _hashes(words: Words) -> np.ndarray:
    """int64 [n]: signs # in each text."""
    return count_between(np.flatnonzero(words.source.octets == ord("#")), words.text_starts, words.text_ends)


def _ellipses(words: Words) -> np.ndarray:
    """int64 [n]: "…" and "..." in each text; a row of k full stops has ⌊k / 3⌋."""
    source = words.source
    dots = np.flatnonzero(source.octets == ord("."))
    begins = np.flatnonzero(np.diff(dots, prepend=-1) != 1)
    rows = np.diff(np.append(begins, len(dots))) // 3
    places = np.searchsorted(dots[begins], np.stack((words.text_starts, words.text_ends)))
    total = np.concatenate(([0], np.cumsum(rows)))
    single = source.leads[source.eights[source.leads] & _THREE == _ELLIPSIS]
    return np.asarray(total[places[1]] - total[places[0]] + count_between(single, words.text_starts, words.text_ends))


def _of_lines(lines: Lines, chosen: np.ndarray) -> np.ndarray:
    return share(sum_within(chosen, lines.offsets), np.diff(lines.offsets))


def _has_bullet(lines: Lines) -> np.ndarray:
    """bool [l]: the line begins with a bullet."""
    starts = lines.stripped[0]
    head = lines.words.source.eights[starts] & _THREE
    return np.asarray(~lines.blank & ((head == _BULLET) | (lines.words.source.octets[starts] == ord("-"))))


def _ends_in_ellipsis(lines: Lines) -> np.ndarray:
    """bool [l]: the line ends with an ellipsis. What stands before a short line is a line end, never a full stop."""
    tail = lines.words.source.eights[lines.stripped[1] - 3] & _THREE
    return np.asarray(~lines.blank & ((tail == _ELLIPSIS) | (tail == _DOTS)))
