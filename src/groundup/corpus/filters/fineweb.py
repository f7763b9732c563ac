"""The rules of FineWeb (Penedo et al. 2024, section 3.6)."""

from __future__ import annotations

import numpy as np

from groundup.corpus.characters import DOT, TERMINAL
from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.filters.verdict import Verdict, share
from groundup.corpus.lines import Lines
from groundup.corpus.spans import find_equal_spans, sum_within
from groundup.recipe.filters import FineWebSection


class FineWebFilter:
    """Refuses lists and fragments.

    Lines are those that are not blank; duplicates are compared byte by byte, and their characters are of all characters
    but line ends. The last rule takes words and punctuation marks together.
    """

    name = "fineweb"
    rules = ("min_line_punctuation", "max_short_lines", "max_duplicate_line_characters", "max_lines_per_word")

    def __init__(self, section: FineWebSection) -> None:
        self.section = section

    def __call__(self, batch: Batch) -> Outcome:
        lines, words, section = batch.lines, batch.words, self.section
        full = ~lines.blank
        count = sum_within(full, lines.offsets)
        verdict = Verdict(self.rules, len(batch))
        punctuated = share(sum_within(_ends_sentence(lines) & full, lines.offsets), count)
        verdict.at_least("min_line_punctuation", punctuated, section.min_line_punctuation)
        short = share(sum_within(full & (lines.lengths <= section.short_line), lines.offsets), count)
        verdict.at_most("max_short_lines", short, section.max_short_lines)
        breaks = np.diff(lines.offsets) - 1
        again = np.zeros(len(lines), np.int64)
        later = find_equal_spans(words.source, lines.starts[full], lines.ends[full], lines.documents[full])
        later = np.flatnonzero(full)[later]
        again[later] = lines.lengths[later]
        duplicate = share(sum_within(again, lines.offsets), words.text_lengths - breaks)
        verdict.at_most("max_duplicate_line_characters", duplicate, section.max_duplicate_line_characters)
        verdict.at_most("max_lines_per_word", share(breaks, words.counts), section.max_lines_per_word)
        return verdict.outcome()


def _ends_sentence(lines: Lines) -> np.ndarray:
    """bool [l]: the line's last character but white space ends a sentence."""
    last = lines.words.source.kinds[lines.stripped[1] - 1]
    return np.asarray((last == DOT) | (last == TERMINAL))
