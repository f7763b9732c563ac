"""Limits of length."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from groundup.corpus.columns import as_numpy
from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.filters.verdict import Verdict, share
from groundup.corpus.spans import sum_within
from groundup.recipe.filters import LengthSection


class LengthFilter:
    """Refuses what is too short or too long: characters, words, lines, and the lines themselves.

    Words are those of `groundup.corpus.words` that are no punctuation; lines are those that are not blank.
    """

    name = "length"
    rules = (
        "min_characters",
        "max_characters",
        "min_words",
        "max_words",
        "min_lines",
        "max_lines",
        "max_line_characters",
        "max_mean_line_characters",
    )

    def __init__(self, section: LengthSection) -> None:
        self.section = section

    def __call__(self, batch: Batch) -> Outcome:
        section, verdict = self.section, Verdict(self.rules, len(batch))
        self._limit(verdict, "characters", as_numpy(pc.utf8_length(batch.texts)))
        if section.min_words or section.max_words is not None:
            self._limit(verdict, "words", sum_within(~batch.words.symbols, batch.words.offsets))
        if section.min_lines or section.max_lines is not None:
            self._limit(verdict, "lines", sum_within(~batch.lines.blank, batch.lines.offsets))
        if section.max_line_characters is not None:
            # Every text has a line at least, so that no stretch is empty.
            longest = np.maximum.reduceat(batch.lines.lengths, batch.lines.offsets[:-1]) if len(batch) else np.zeros(0)
            verdict.at_most("max_line_characters", longest, section.max_line_characters)
        if section.max_mean_line_characters is not None:
            full, offsets = ~batch.lines.blank, batch.lines.offsets
            mean = share(sum_within(batch.lines.lengths * full, offsets), sum_within(full, offsets))
            verdict.at_most("max_mean_line_characters", mean, section.max_mean_line_characters)
        return verdict.outcome()

    def _limit(self, verdict: Verdict, unit: str, values: np.ndarray) -> None:
        verdict.at_least(f"min_{unit}", values, getattr(self.section, f"min_{unit}"))
        most = getattr(self.section, f"max_{unit}")
        if most is not None:
            verdict.at_most(f"max_{unit}", values, most)
