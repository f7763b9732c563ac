"""The rules of C4 (Raffel et al. 2020, section 2.2): lines that are no sentences go, and documents with few left."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.corpus.characters import APOSTROPHE, DOT, QUOTE, TERMINAL
from groundup.corpus.columns import as_numpy
from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.filters.verdict import Verdict
from groundup.corpus.lines import Lines, find_lines
from groundup.corpus.spans import sum_within
from groundup.corpus.words import Words, find_words
from groundup.recipe.filters import C4Section

_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
_POLICIES = (
    b"terms of use",
    b"privacy policy",
    b"cookie policy",
    b"uses cookies",
    b"use of cookies",
    b"use cookies",
)
_DOTS = int.from_bytes(b"...", "little")
_NEWLINE = 10


class C4Filter:
    """Drops lines and refuses documents.

    First citations go. A line is kept if it has words enough and none too long, and if it ends as a sentence does; in
    the lines kept so far lorem ipsum and curly brackets are looked for; then lines about JavaScript and policies go.
    What is kept loses the white space around it. Words are counted between white space, in scripts without spaces by
    letter; a sentence is what a full stop, a question or an exclamation mark ends and a word follows, and the rest of
    a line.
    """

    name = "c4"
    rules = ("lorem_ipsum", "curly_brackets", "min_sentences", "no_lines")

    def __init__(self, section: C4Section) -> None:
        self.section = section

    def __call__(self, batch: Batch) -> Outcome:
        section, verdict = self.section, Verdict(self.rules, len(batch))
        lines = self._lines(batch)
        kept = self._sentences(lines)
        if section.lorem_ipsum:
            _refuse_with(verdict, "lorem_ipsum", lines, kept & _holding(lines, (b"lorem ipsum",)))
        if section.curly_brackets:
            _refuse_with(verdict, "curly_brackets", lines, kept & _holding(lines, (b"{",)))
        if section.javascript:
            kept &= ~_holding(lines, (b"javascript",))
        if section.policies:
            kept &= ~_holding(lines, _POLICIES)
        sentences = sum_within(_count_sentences(lines) * kept, lines.offsets)
        verdict.at_least("min_sentences", sentences, section.min_sentences)
        count = sum_within(kept, lines.offsets)
        verdict.refuse("no_lines", count == 0, count)
        texts = _joined(lines, kept & verdict.passing[lines.documents])
        changed = as_numpy(pc.binary_length(texts)) != as_numpy(pc.binary_length(batch.texts))
        return verdict.outcome(texts if (changed & verdict.passing).any() else None)  # nothing is ever added

    def _lines(self, batch: Batch) -> Lines:
        """The lines of the texts without their citations."""
        if self.section.citations:
            texts = pc.replace_substring_regex(batch.texts, _CITATION, "")
            if not texts.equals(batch.texts):
                return find_lines(find_words(texts))
        return batch.lines

    def _sentences(self, lines: Lines) -> np.ndarray:
        """bool [l]: the line looks like sentences: its words and its end."""
        section, words, source = self.section, lines.words, lines.words.source
        begins, lengths = _between_spaces(words)
        kept = ~lines.blank & (sum_within(begins, lines.word_offsets) >= section.min_line_words)
        long = words.starts[np.flatnonzero(begins)[lengths > section.max_word_characters]]
        kept[np.searchsorted(lines.starts, long, "right") - 1] = False
        if section.terminal_punctuation:
            ends = lines.stripped[1]
            kept &= np.isin(source.kinds[ends - 1], (DOT, TERMINAL, QUOTE, APOSTROPHE))
            kept &= source.eights[ends - 3] & np.uint64(0xFFFFFF) != _DOTS
        return np.asarray(kept)


def _between_spaces(words: Words) -> tuple[np.ndarray, np.ndarray]:
    """What stands between white space: at which words it begins, bool [w], and the lengths, in characters.

    A letter of a script without spaces stands for itself.
    """
    begins = np.ones(len(words), bool)
    alone = words.unspaced
    begins[1:] = (words.starts[1:] > words.ends[:-1]) | alone[1:] | alone[:-1]
    if not len(words):
        return begins, words.lengths
    return begins, np.add.reduceat(words.lengths, np.flatnonzero(begins))


def _holding(lines: Lines, phrases: tuple[bytes, ...]) -> np.ndarray:
    """bool [l]: the line has one of the phrases, which are in lower case, in any case."""
    small = lines.words.source.small
    places = []
    for phrase in phrases:
        place = small.find(phrase)
        while place >= 0:
            places.append(place)
            place = small.find(phrase, place + len(phrase))
    found = np.zeros(len(lines), bool)
    if places and len(lines):
        at = np.array(places, np.int64)
        line = np.maximum(np.searchsorted(lines.starts, at, "right") - 1, 0)
        found[line[(at >= lines.starts[line]) & (at < lines.ends[line])]] = True
    return found


def _refuse_with(verdict: Verdict, rule: str, lines: Lines, chosen: np.ndarray) -> None:
    count = sum_within(chosen, lines.offsets)
    verdict.refuse(rule, count > 0, count)


def _count_sentences(lines: Lines) -> np.ndarray:
    """int64 [l]: one for each line that is not blank, and one for each word behind the end of a sentence in it."""
    words = lines.words
    ends = (words.first_kinds == TERMINAL) | ((words.first_kinds == DOT) & (words.lengths == 1))
    told = np.flatnonzero(ends | ~words.symbols)  # commas, quotes and the like stand aside
    line = np.repeat(np.arange(len(lines)), np.diff(lines.word_offsets))[told]
    begins = ends[told[:-1]] & ~ends[told[1:]] & (line[1:] == line[:-1])
    return np.asarray(np.bincount(line[1:][begins], minlength=len(lines)) + ~lines.blank)


def _joined(lines: Lines, kept: np.ndarray) -> pa.LargeStringArray:
    """The texts of the lines kept, bool [l], stripped."""
    source = lines.words.source
    starts, ends = (each[kept] for each in lines.stripped)
    documents = lines.documents[kept]
    followed = np.zeros(len(starts), bool)
    followed[:-1] = documents[1:] == documents[:-1]
    sizes = ends - starts + followed
    inside = np.zeros(len(source.octets) + 1, np.int8)
    inside[starts] = 1
    inside[ends + followed] -= 1
    data = source.octets[np.cumsum(inside[:-1], dtype=np.int8).view(bool)]
    data[np.cumsum(sizes)[followed] - 1] = _NEWLINE  # a space may have stood there
    offsets = np.concatenate(([0], np.cumsum(np.bincount(documents, sizes, len(lines.offsets) - 1)))).astype(np.int64)
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))
