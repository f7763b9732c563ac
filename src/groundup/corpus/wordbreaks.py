"""Where one word ends and the next begins beside white space: punctuation, contractions, scripts without spaces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from groundup.corpus import characters as kind
from groundup.corpus.characters import IN_WORD, Characters, extra_bytes

# A full stop that ends one of these is part of it, as in any single letter.
_ABBREVIATIONS = (
    "mr mrs ms dr prof st mt jr sr rev gen gov sen rep adm col capt lt sgt messrs co corp inc ltd bros vs v.s e.g i.e "
    "a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec"
)


def _kinds(*members: int) -> np.ndarray:
    return np.isin(np.arange(kind.KINDS), members)


_EDGE = _kinds(kind.SPACE, kind.ALONE, kind.CLINGING)  # what ends a stretch of letters and punctuation
_LETTER = _kinds(kind.LOWER, kind.UPPER)
_LETTER_OR_DIGIT = _kinds(kind.LOWER, kind.UPPER, kind.DIGIT)
_IN_ABBREVIATION = _kinds(kind.LOWER, kind.UPPER, kind.DOT)
_NO_ABBREVIATION_AFTER = _kinds(kind.DIGIT, kind.MARK, kind.APOSTROPHE)
_QUOTES = _kinds(kind.QUOTE, kind.APOSTROPHE)
_IN_ROWS = _kinds(kind.DOT, kind.HYPHEN)
_BETWEEN_LETTERS = _kinds(kind.HYPHEN, kind.DASH, kind.SLASH, kind.RELATION, kind.EQUALS)
_OPERATOR = _kinds(kind.HYPHEN, kind.PLUS, kind.STAR, kind.CARET)
# What stands alone at both edges of a stretch; before it too; after it too where a digit comes before.
_ALWAYS = _kinds(kind.PLAIN, kind.STAR, kind.COMMA, kind.RELATION, kind.DASH, kind.QUOTE, kind.APOSTROPHE,
                 kind.ELLIPSIS, kind.TERMINAL, kind.ICON)  # fmt: skip
_BEFORE_WORD = _ALWAYS | _kinds(kind.EQUALS, kind.UNIT, kind.PLUS)
_AFTER_DIGIT = _kinds(kind.UNIT, kind.PLUS)
_BEFORE_STOP = _ALWAYS | _kinds(kind.LOWER, kind.DIGIT, kind.MARK, kind.UNIT, kind.PLUS, kind.HYPHEN)

_CASE = 0x2020202020202020  # makes ASCII letters small, eight at a time; every pattern below is made so too
_KNOWN = np.array([int.from_bytes(each.encode(), "little") | _CASE for each in _ABBREVIATIONS.split()], np.uint64)
_ONE_LETTER = np.array([ord(each) for each in "sdm"], np.uint64)
_TWO_LETTERS = np.array([int.from_bytes(each, "little") for each in (b"ll", b"re", b"ve")], np.uint64)
_LONGEST = 5  # characters of an abbreviation without its last full stop


class _Marks(NamedTuple):
    """Punctuation and symbols: single characters, but a row of full stops or of hyphens counts as one.

    Args:
        starts, ends: int64 [p], in bytes.
        kinds: uint8 [p].
        before, after: uint8 [p], the kinds of the characters next to it.
    """

    starts: np.ndarray
    ends: np.ndarray
    kinds: np.ndarray
    before: np.ndarray
    after: np.ndarray


def mark_alone(border: np.ndarray, source: Characters) -> None:
    """Set borders around letters of scripts that write no spaces; marks stay with the letter before them.

    Args:
        border: bool [N], true at the places in `source.data` where something begins or ends.
    """
    kinds = source.kinds[source.leads]
    alone = source.leads[(kinds == kind.ALONE) | (kinds == kind.CLINGING)]
    if len(alone):
        border[alone[source.kinds[alone] == kind.ALONE]] = True
        after = alone + 1 + extra_bytes(source.octets[alone])
        border[after[~_kinds(kind.CLINGING, kind.MARK)[source.kinds[after]]]] = True


def mark_punctuation(border: np.ndarray, source: Characters) -> None:
    """Set borders around the punctuation that stands alone, and in contractions."""
    marks = _find_marks(source)
    if not len(marks.starts):
        return
    leading, trailing = _at_edges(marks, source)
    divides = _divides_inside(marks) & ~_in_addresses(marks, leading, source) | leading | trailing
    border[marks.starts[divides]] = True
    border[marks.ends[divides]] = True
    border[_contractions(marks, ~divides, source)] = True


def _find_marks(source: Characters) -> _Marks:
    starts = np.flatnonzero(source.kinds > kind.CLINGING)
    first = source.octets[starts]
    ends = starts + 1
    if len(source.leads):
        leads = (first & 0xC0) != 0x80
        starts, first = starts[leads], first[leads]
        ends = starts + 1 + extra_bytes(first)
    kinds = source.kinds[starts]
    new = np.ones(len(starts), bool)
    new[1:] = (starts[1:] != ends[:-1]) | (first[1:] != first[:-1]) | ~_IN_ROWS[kinds[1:]]
    begins = np.flatnonzero(new)
    lasts = np.append(begins[1:], len(starts))[: len(begins)] - 1
    starts, ends, kinds = starts[begins], ends[lasts], kinds[begins]
    kinds[(kinds == kind.DOT) & (ends - starts > 1)] = kind.ELLIPSIS
    return _Marks(starts, ends, kinds, source.kinds[starts - 1], source.kinds[ends])


def _divides_inside(marks: _Marks) -> np.ndarray:
    """bool [p]: the mark divides the letters or digits that it stands between."""
    letter_after = _LETTER[marks.after]
    divides = _BETWEEN_LETTERS[marks.kinds] & _LETTER_OR_DIGIT[marks.before] & letter_after
    divides |= (marks.kinds == kind.COMMA) & _LETTER[marks.before] & letter_after
    number_after = (marks.after == kind.DIGIT) | (marks.after == kind.HYPHEN)
    divides |= _OPERATOR[marks.kinds] & (marks.before == kind.DIGIT) & number_after
    sentence = (marks.before == kind.LOWER) | _QUOTES[marks.before]
    sentence &= (marks.after == kind.UPPER) | _QUOTES[marks.after]
    divides |= (marks.kinds == kind.DOT) & sentence
    divides |= (marks.kinds == kind.ICON) | (marks.kinds == kind.ELLIPSIS)
    return np.asarray(divides)


def _in_addresses(marks: _Marks, leading: np.ndarray, source: Characters) -> np.ndarray:
    """bool [p]: the mark stands in an address on the web, which begins its stretch as "https://" or "www."."""
    before_and_after = source.eights[marks.starts - 3]
    begins = (marks.kinds == kind.RELATION) & (
        before_and_after >> np.uint64(24) & np.uint64(0xFFFFFF) == 0x2F2F3A
    )  # ://
    begins |= (marks.kinds == kind.DOT) & (before_and_after & np.uint64(0xFFFFFF) == 0x777777)  # www
    numbers = np.flatnonzero(begins)
    inside = np.zeros(len(marks.starts) + 1, np.int64)
    if len(numbers):
        gaps = np.flatnonzero(source.kinds == kind.SPACE)
        following = np.searchsorted(gaps, marks.starts[numbers])
        first = np.searchsorted(marks.starts, gaps[following - 1])
        beyond = np.searchsorted(marks.starts, gaps[following])
        before = np.concatenate(([0], np.cumsum(leading)))
        only = before[numbers] - before[first] == numbers - first  # leading marks alone come before it
        np.add.at(inside, first[only], 1)
        np.add.at(inside, beyond[only], -1)
    return np.asarray(np.cumsum(inside[:-1]) > 0)


def _at_edges(marks: _Marks, source: Characters) -> tuple[np.ndarray, np.ndarray]:
    """bool [p] twice: the mark stands alone before a stretch of letters, or after one; rows of marks are peeled."""
    apart = marks.starts[1:] != marks.ends[:-1]
    first, last = np.concatenate(([True], apart)), np.concatenate((apart, [True]))
    row = np.cumsum(first) - 1

    stays = ~_BEFORE_WORD[marks.kinds] | ((marks.kinds == kind.PLUS) & (marks.after == kind.DIGIT))
    count = np.cumsum(stays)
    leading = _EDGE[marks.before[first]][row] & (count == (count - stays)[first][row])

    stays = ~_ALWAYS[marks.kinds] & ~(_AFTER_DIGIT[marks.kinds] & (marks.before == kind.DIGIT))
    stops = np.flatnonzero(marks.kinds == kind.DOT)
    stays[stops] = ~_stands_alone(marks.starts[stops], marks.before[stops], source)
    count = np.cumsum(stays)
    trailing = _EDGE[marks.after[last]][row] & (count == count[last][row]) & ~stays
    return leading, trailing


def _stands_alone(stops: np.ndarray, before: np.ndarray, source: Characters) -> np.ndarray:
    """bool [k]: the full stops that are no part of the word before them, given their places and what comes before."""
    alone = _BEFORE_STOP[before] | ((before == kind.UPPER) & (source.kinds[stops - 2] == kind.UPPER))
    doubtful = np.flatnonzero(alone & _LETTER[before])
    places = stops[doubtful]
    size, open_ = np.zeros(len(places), np.int64), np.ones(len(places), bool)
    for step in range(1, _LONGEST + 2):
        open_ &= _IN_ABBREVIATION[source.kinds[places - step]]
        size += open_
    short = (size <= _LONGEST) & ~_NO_ABBREVIATION_AFTER[source.kinds[places - size - 1]]
    doubtful, places, size = doubtful[short], places[short], size[short]
    word = source.eights[places - 8] >> ((8 - size) << 3).view(np.uint64) | np.uint64(_CASE)
    alone[doubtful[np.isin(word, _KNOWN) | (size == 1)]] = False
    return np.asarray(alone)


def _contractions(marks: _Marks, within: np.ndarray, source: Characters) -> np.ndarray:
    """int64: where contractions are divided, given which marks stand within words, bool [p]."""
    marked = within & (marks.kinds == kind.APOSTROPHE) & _LETTER_OR_DIGIT[marks.before] & _LETTER[marks.after]
    starts, ends = marks.starts[marked], marks.ends[marked]
    tail = source.eights[ends] | np.uint64(_CASE)
    one, two = tail & np.uint64(0xFF), tail & np.uint64(0xFFFF)
    ends_one, ends_two = ~IN_WORD[source.kinds[ends + 1]], ~IN_WORD[source.kinds[ends + 2]]
    clitic = ends_one & np.isin(one, _ONE_LETTER) | ends_two & np.isin(two, _TWO_LETTERS)
    head = source.octets[starts - 1] | 0x20
    negated = ends_one & (one == ord("t")) & (head == ord("n")) & _LETTER[source.kinds[starts - 2]]
    return np.concatenate((starts[clitic], starts[negated] - 1))
