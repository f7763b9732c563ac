"""The repetition rules of Gopher (Rae et al. 2021, table A1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.filters.verdict import Verdict, share
from groundup.corpus.lines import Lines
from groundup.corpus.spans import Repeats, find_equal_spans, find_repeats, ngram_hashes, sum_within
from groundup.corpus.words import Words, ngram_places
from groundup.recipe.filters import GopherRepetitionSection

_TOP = (2, 3, 4)
_DUPLICATE = (5, 6, 7, 8, 9, 10)
_LETTERS = 3  # of Thai and its like, that count as one word


class GopherRepetitionFilter:
    """Refuses text that repeats itself.

    Definitions where the paper leaves them open:

    - paragraphs stand between empty lines, lines between line ends, empty ones left out; a duplicate is one equal to an
      earlier one of its text, byte by byte; shares of characters are of all characters of the text;
    - of the runs of n = 2, 3, 4 words that are most frequent the first counts: characters of its words and of n − 1
      spaces, times how often it occurs, of all characters (overlaps could make it more than all, it is then 1);
    - runs of n = 5 to 10 words are read from the first word on: one that was read before counts with the characters of
      its words and reading goes on behind it; one that was not is remembered and reading goes on at the next word;
    - a text most of whose words are letters of Thai, Lao, Burmese or Khmer is read in runs of 3n letters.
    """

    name = "gopher_repetition"
    rules = (
        "max_duplicate_paragraphs",
        "max_duplicate_paragraph_characters",
        "max_duplicate_lines",
        "max_duplicate_line_characters",
        *(f"max_top_{n}gram" for n in _TOP),
        *(f"max_duplicate_{n}gram" for n in _DUPLICATE),
    )

    def __init__(self, section: GopherRepetitionSection) -> None:
        self.section = section

    def __call__(self, batch: Batch) -> Outcome:
        verdict = Verdict(self.rules, len(batch))
        self._judge_lines(verdict, batch.lines)
        words = batch.words
        partial = 2 * sum_within(words.partial, words.offsets) > words.counts
        for scale, chosen in ((1, ~partial), (_LETTERS, partial)):
            if chosen.any():
                self._judge_runs(verdict, words, scale, chosen)
        return verdict.outcome()

    def _judge_runs(self, verdict: Verdict, words: Words, scale: int, chosen: np.ndarray) -> None:
        """The rules on runs of `scale` · n words, for the texts chosen, bool [n]."""
        before = np.concatenate(([0], np.cumsum(words.lengths)))  # characters of all words before each
        for n, runs in _repeated_runs(words, scale, chosen):
            rule = f"max_top_{n}gram" if n in _TOP else f"max_duplicate_{n}gram"
            limit = getattr(self.section, rule)
            if n in _TOP:
                values = _top_share(words, before, runs, n - 1)
            else:
                values = _duplicate_share(words, before, runs, chosen & verdict.passing, limit)
            verdict.refuse(rule, chosen & (values > limit), values)

    def _judge_lines(self, verdict: Verdict, lines: Lines) -> None:
        """The rules on paragraphs and lines."""
        section, size = self.section, lines.words.text_lengths
        count, again, characters = _duplicates(lines.words, *lines.paragraphs)
        verdict.at_most("max_duplicate_paragraphs", share(again, count), section.max_duplicate_paragraphs)
        verdict.at_most(
            "max_duplicate_paragraph_characters", share(characters, size), section.max_duplicate_paragraph_characters
        )
        full = lines.ends > lines.starts
        count, again, characters = _duplicates(lines.words, lines.starts[full], lines.ends[full], lines.documents[full])
        verdict.at_most("max_duplicate_lines", share(again, count), section.max_duplicate_lines)
        verdict.at_most("max_duplicate_line_characters", share(characters, size), section.max_duplicate_line_characters)


class _Runs(NamedTuple):
    """Runs of `size` words that occur more than once in their text; their numbers in `repeats` are those in `first`.

    Args:
        first: int64 [k], the first word of each run looked at, ascending.
    """

    size: int
    first: np.ndarray
    repeats: Repeats


def _repeated_runs(words: Words, scale: int, chosen: np.ndarray) -> Iterator[tuple[int, _Runs]]:
    """n from 2 to 10, and the repeated runs of `scale` · n words in the texts chosen, bool [n].

    A run can only be repeated where it begins and ends with repeated runs of `scale` · (n − 1) words.
    """
    first = ngram_places(words, 2 * scale)
    if not chosen.all():
        first = first[chosen[words.documents[first]]]
    for n in range(2, _DUPLICATE[-1] + 1):
        repeats = find_repeats(ngram_hashes(words.hashes, first, scale * n), words.documents[first])
        yield n, _Runs(scale * n, first, repeats)
        repeated = np.zeros(len(words) + scale, bool)
        repeated[first[repeats.heads]] = True
        repeated[first[repeats.later]] = True
        first = np.flatnonzero(repeated[:-scale] & repeated[scale:])


def _duplicates(
    words: Words, starts: np.ndarray, ends: np.ndarray, documents: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64 [n] three times: spans of each text, those equal to an earlier one, and the characters of these."""
    later = np.sort(find_equal_spans(words.source, starts, ends, documents))
    lengths = words.source.lengths(starts[later], ends[later])
    size = len(words.counts)
    again = np.bincount(documents[later], minlength=size)
    characters = np.bincount(documents[later], lengths, size).astype(np.int64)
    return np.bincount(documents, minlength=size), again, characters


def _top_share(words: Words, before: np.ndarray, runs: _Runs, spaces: int) -> np.ndarray:
    """float64 [n]: share of each text's characters in its most frequent run, the first of those equally frequent.

    A run has so many `spaces` besides its words.
    """
    size, repeats = runs.size, runs.repeats
    times = np.where(words.counts >= size, 1, 0)
    place = np.minimum(words.offsets[:-1], max(len(words) - size, 0))
    heads = runs.first[repeats.heads]
    often = np.bincount(repeats.groups, minlength=len(heads)) + 1
    best = np.zeros(len(times), np.int64)  # often · 2^32 + how early: the greatest is the one that counts
    owners = words.documents[heads]
    np.maximum.at(best, owners, (often << 32) + (2**32 - 1 - (heads - words.offsets[owners])))
    some = best > 0
    times[some] = best[some] >> 32
    place[some] = words.offsets[:-1][some] + 2**32 - 1 - (best[some] & (2**32 - 1))
    characters = before[np.minimum(place + size, len(words))] - before[place] + spaces
    return np.asarray(np.minimum(share(characters * times, words.text_lengths), 1))


def _duplicate_share(words: Words, before: np.ndarray, runs: _Runs, passing: np.ndarray, limit: float) -> np.ndarray:
    """float64 [n]: share of each text's characters in runs that were read before; exact where above the limit.

    Reading is a matter of one step after the other. It is done only for the few texts in which all words of repeated
    runs, each counted once, come to more than the limit: what reading finds is never more than that.
    """
    later = np.sort(runs.first[runs.repeats.later])
    owners = words.documents[later]
    ends = later + runs.size
    ends[:-1] = np.minimum(ends[:-1], later[1:])  # overlaps once
    bound = np.bincount(owners, before[ends] - before[later], len(passing)).astype(np.int64)
    values = share(bound, words.text_lengths)
    doubtful = passing & (values > limit)
    if doubtful.any():
        found = _read(words, before, runs, doubtful)
        values[doubtful] = share(found[doubtful], words.text_lengths[doubtful])
    return values


def _read(words: Words, before: np.ndarray, runs: _Runs, chosen: np.ndarray) -> np.ndarray:
    """int64 [n]: characters of the runs that were read before, in the texts that are chosen, bool [n]."""
    repeats = runs.repeats
    items = np.concatenate((repeats.heads, repeats.later))
    groups = np.concatenate((np.arange(len(repeats.heads)), repeats.groups))
    inside = chosen[words.documents[runs.first[items]]]
    items, groups = items[inside], groups[inside]
    order = np.argsort(items)
    places = runs.first[items[order]]
    found = np.zeros(len(chosen), np.int64)
    read: set[int] = set()
    resume = 0
    hits = []
    for place, group in zip(places.tolist(), groups[order].tolist(), strict=True):
        if place < resume:
            continue
        if group in read:
            hits.append(place)
            resume = place + runs.size
        else:
            read.add(group)
    at = np.array(hits, np.int64)
    np.add.at(found, words.documents[at], before[at + runs.size] - before[at])
    return found
