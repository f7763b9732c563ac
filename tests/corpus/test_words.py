"""Words, lines and repeated runs: against hand-made splits and a slow reader of one character after the other."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus import characters as kind
from groundup.corpus.characters import IN_WORD, find_characters, kinds_of_characters
from groundup.corpus.documents import Batch
from groundup.corpus.lines import find_lines
from groundup.corpus.words import Words, find_words, ngram_places, normalised_words

PIECES = [
    "the", "The", "NASA", "U.S.", "Mr.", "e.g.", "don't", "DON'T", "she's", "we'll", "I’m", "well-known",
    "1,000", "3.5", "10-20", "and/or", "http://a-b.org/x-y?z=1:k", "(www.a-b.com).", "end.Start", "...",
    "....", "--", "---", "…", "“word”", "(a)", "[1]", "$5", "5%", "+3", "3+", "C++", "a=b", "x:y", "foo,bar",
    "#tag", "@me", "a_b", "•", "- item", "!", "?!", "'", "’s", "n't", "日本語", "東京で", "ภาษาไทย", "กิ,abc",
    "བོད་ཡིག", "naïve", "É.", "x.", "1990s.", "Ünï-cödé", "שלום", "नमस्ते।", "😀", "ok😀ok", "\u00a0", " ",
    "  ", "\n", "\n\n", "\t", "\u0301", "\u200d", "\x00", ".", ",", "\"", "^2", "2^2", "a.b", "a...b", "1.",
    "%", "€5", "5€", "—", "x—y", "~", "`code`",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=30)


def column(*items: str) -> pa.LargeStringArray:
    return pa.array(items, pa.large_string())


def strings(words: Words, document: int = 0) -> list[str]:
    bounds = range(words.offsets[document], words.offsets[document + 1])
    return [words.source.data[words.starts[i] : words.ends[i]].decode() for i in bounds]


def split(text: str) -> list[str]:
    return strings(find_words(column(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's well-known, isn't it?", "It|'s|well|-|known|,|is|n't|it|?"),
        ("“Don’t!” she’d said; WE'LL see...", "“|Do|n’t|!|”|she|’d|said|;|WE|'LL|see|..."),
        ("Mr. Smith vs. Dr. Who. The end.", "Mr.|Smith|vs.|Dr.|Who|.|The|end|."),
        ("the U.S. and NASA. Plan b. (e.g., at 5 p.m.)", "the|U.S.|and|NASA|.|Plan|b.|(|e.g.|,|at|5|p.m.|)"),
        ("1,000.50 or 3.5% of $20, 10-20, -5 +3", "1,000.50|or|3.5|%|of|$|20|,|10|-|20|,|-5|+3"),
        ("and/or a:b 2010–11 x–y", "and|/|or|a|:|b|2010–11|x|–|y"),
        ("see https://a-b.org/c-d:ee. (www.x-y.com)", "see|https://a-b.org/c-d:ee|.|(|www.x-y.com|)"),
        ("one.Two foo.bar wait....what", "one|.|Two|foo.bar|wait|....|what"),
        ("東京で2010年", "東|京|で|2010|年"),
        ("ภาษา (ไทย)", "ภ|า|ษ|า|(|ไ|ท|ย|)"),
        ("བོད་ཡིག", "བོད|ཡིག"),
        ("नमस्ते।", "नमस्ते|।"),
        ("e\u0301te\u0301 a\u00a0b \U0001f600ok", "e\u0301te\u0301|a|b|\U0001f600|ok"),
        ("1990s. Plan's.", "1990s|.|Plan|'s|."),
        ("", ""),
    ],
)
def test_words_by_hand(text: str, expected: str) -> None:
    assert "|".join(split(text)) == expected


def test_kinds() -> None:
    kinds = kinds_of_characters()
    expected = {
        "aßжאन": kind.LOWER, "AÉЖ": kind.UPPER, "1٣½": kind.DIGIT, "漢かカㄅก\U00020000": kind.ALONE,
        "\u0301\u200d\x00": kind.MARK,
        "ิ\u3099": kind.CLINGING, " \u00a0\u3000\x85་": kind.SPACE, "。！।؟": kind.TERMINAL, "“«": kind.QUOTE,
        "’'": kind.APOSTROPHE,
        "–—": kind.DASH, "€$%": kind.UNIT, "😀©": kind.ICON, "(¿·": kind.PLAIN, "…": kind.ELLIPSIS, "×|": kind.OTHER,
    }  # fmt: skip
    for characters, value in expected.items():
        assert {character: int(kinds[ord(character)]) for character in characters} == dict.fromkeys(characters, value)
    every = np.array([chr(code).isspace() for code in range(0xD800)])
    assert (kinds[:0xD800] == kind.SPACE).nonzero()[0].tolist() == sorted([*every.nonzero()[0].tolist(), 0xF0B, 0xF0C])
    letters = np.array([chr(code).isalpha() for code in range(0xD800)])
    assert np.isin(kinds[:0xD800], (kind.LOWER, kind.UPPER, kind.ALONE)).tolist() == letters.tolist()


# The slow reader.

ALWAYS = {kind.PLAIN, kind.STAR, kind.COMMA, kind.RELATION, kind.DASH, kind.QUOTE, kind.APOSTROPHE, kind.ELLIPSIS,
          kind.TERMINAL, kind.ICON}  # fmt: skip
LETTER, SPACELESS = {kind.LOWER, kind.UPPER}, {kind.ALONE, kind.CLINGING}
QUOTES = {kind.QUOTE, kind.APOSTROPHE}
ABBREVIATIONS = (
    " mr mrs ms dr prof st mt jr sr rev gen gov sen rep adm col capt lt sgt messrs co corp inc ltd bros vs v.s e.g i.e "
    "a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec "
)


def slow_words(text: str) -> list[str]:
    """The rules of `groundup.corpus.words`, read character by character."""
    kinds = [int(kinds_of_characters()[ord(character)]) for character in text]
    units: list[tuple[str, int]] = []
    for character, each in zip(text, kinds, strict=True):
        if units and each in (kind.DOT, kind.HYPHEN) and units[-1][0][-1] == character:
            units[-1] = (units[-1][0] + character, kind.ELLIPSIS if each == kind.DOT else each)
        else:
            units.append((character, each))
    cuts = slow_cuts([(" ", kind.SPACE), *units, *[(" ", kind.SPACE)] * 3])
    words, word = [], ""
    for number, (characters, each) in enumerate(units, 1):
        if word and (number in cuts or each == kind.SPACE):
            words.append(word)
            word = ""
        if each != kind.SPACE:
            word += characters
    return [*words, word] if word else words


def slow_cuts(units: list[tuple[str, int]]) -> set[int]:
    """Before which units a word begins, beside white space."""
    kinds = [each for _, each in units]
    is_mark = [each > kind.CLINGING for each in kinds]
    cuts: set[int] = set()
    for i, each in enumerate(kinds):
        if each == kind.ALONE:
            cuts.add(i)
        if each in SPACELESS and kinds[i + 1] not in (kind.CLINGING, kind.MARK):
            cuts.add(i + 1)
        if not is_mark[i]:
            continue
        first = last = i
        while is_mark[first - 1]:
            first -= 1
        while is_mark[last + 1]:
            last += 1
        leading = kinds[first - 1] in SPACELESS | {kind.SPACE} and all(before(units, j) for j in range(first, i + 1))
        trailing = kinds[last + 1] in SPACELESS | {kind.SPACE} and all(behind(units, j) for j in range(i, last + 1))
        inside = divides(units, i) and not in_address(units, i)
        if leading or trailing or inside:
            cuts |= {i, i + 1}
        elif each == kind.APOSTROPHE and kinds[i - 1] in LETTER | {kind.DIGIT} and kinds[i + 1] in LETTER:
            tail = ""
            for characters, after in units[i + 1 :]:
                if not IN_WORD[after]:
                    break
                tail += characters
            if tail.lower() in ("s", "d", "m", "ll", "re", "ve") and tail.isascii():
                cuts.add(i)
            if tail in "tT" and units[i - 1][0] in "nN" and kinds[i - 2] in LETTER:
                cuts.add(i - 1)
    return cuts


def before(units: list[tuple[str, int]], i: int) -> bool:
    each = units[i][1]
    return each in ALWAYS | {kind.EQUALS, kind.UNIT} or (each == kind.PLUS and units[i + 1][1] != kind.DIGIT)


def behind(units: list[tuple[str, int]], i: int) -> bool:
    each, previous = units[i][1], units[i - 1][1]
    if each != kind.DOT:
        return each in ALWAYS or (each in (kind.UNIT, kind.PLUS) and previous == kind.DIGIT)
    if previous == kind.UPPER:
        if units[i - 2][1] != kind.UPPER and len(units[i - 1][0].encode()) == 1:
            return False
    elif previous not in ALWAYS | {kind.LOWER, kind.DIGIT, kind.MARK, kind.UNIT, kind.PLUS, kind.HYPHEN}:
        return False
    word, j = "", i - 1
    while j > 0 and (units[j][1] in LETTER or units[j][1] in (kind.DOT, kind.ELLIPSIS) and set(units[j][0]) == {"."}):
        word, j = units[j][0] + word, j - 1
    if previous not in LETTER or units[j][1] in (kind.DIGIT, kind.MARK, kind.APOSTROPHE):
        return True
    return f" {word.lower()} " not in ABBREVIATIONS and len(word.encode()) != 1


def divides(units: list[tuple[str, int]], i: int) -> bool:
    each, previous, after = units[i][1], units[i - 1][1], units[i + 1][1]
    between = (kind.HYPHEN, kind.DASH, kind.SLASH, kind.RELATION, kind.EQUALS)
    return (
        (each in between and previous in LETTER | {kind.DIGIT} and after in LETTER)
        or (each == kind.COMMA and previous in LETTER and after in LETTER)
        or (each in (kind.HYPHEN, kind.PLUS, kind.STAR, kind.CARET) and previous == kind.DIGIT
            and after in (kind.DIGIT, kind.HYPHEN))
        or (each == kind.DOT and previous in QUOTES | {kind.LOWER} and after in QUOTES | {kind.UPPER})
        or each in (kind.ICON, kind.ELLIPSIS)
    )  # fmt: skip


def in_address(units: list[tuple[str, int]], i: int) -> bool:
    """The stretch between white space is an address: its first mark that is not stripped begins it."""
    first = last = i
    while units[first - 1][1] != kind.SPACE:
        first -= 1
    while units[last + 1][1] != kind.SPACE:
        last += 1
    for j in range(first, last + 1):
        if units[j][1] <= kind.CLINGING:
            continue
        stretch = "".join(characters for characters, _ in units[j : j + 4])
        back = "".join(characters for characters, _ in units[max(j - 3, 0) : j])
        if stretch.startswith("://") or (units[j][0] == "." and back == "www"):
            return True
        row = j
        while units[row - 1][1] > kind.CLINGING:
            row -= 1
        edge = units[row - 1][1] in SPACELESS | {kind.SPACE}
        if not (edge and all(before(units, k) for k in range(row, j + 1))):
            return False
    return False


@given(texts)
@settings(max_examples=300)
def test_words_as_a_slow_reader_finds_them(text: str) -> None:
    assert split(text) == slow_words(text)


def test_words_of_real_text(real_data: Path) -> None:
    sample = (real_data / "small" / "the-verdict.txt").read_text(encoding="utf-8")[:20000]
    assert split(sample) == slow_words(sample)


@given(st.lists(texts, max_size=6))
@settings(max_examples=60)
def test_words_do_not_depend_on_the_texts_beside(items: list[str]) -> None:
    together = find_words(column(*items))
    for number, text in enumerate(items):
        alone = find_words(column(text))
        mine = slice(together.offsets[number], together.offsets[number + 1])
        assert strings(together, number) == strings(alone)
        for field in ("hashes", "lengths", "alphabetic", "symbols", "unspaced"):
            assert getattr(together, field)[mine].tolist() == getattr(alone, field).tolist()
        assert together.text_lengths[number] == len(text)
    assert together.documents.tolist() == [i for i, text in enumerate(items) for _ in split(text)]


@given(texts)
@settings(max_examples=100)
def test_what_is_said_of_words(text: str) -> None:
    words = find_words(column(text))
    found = strings(words)
    kinds = kinds_of_characters()
    assert words.lengths.tolist() == [len(word) for word in found]
    assert words.alphabetic.tolist() == [any(c.isalpha() for c in word) for word in found]
    assert words.symbols.tolist() == [not any(IN_WORD[kinds[ord(c)]] for c in word) for word in found]
    assert "".join(found) == "".join(c for c in text if kinds[ord(c)] != kind.SPACE)


def test_equal_words_have_equal_hashes() -> None:
    items = [
        "a",
        "A",
        "b",
        "aa",
        "abcdefgh",
        "abcdefgi",
        "abcdefgha",
        "abcdefghi" * 5,
        "abcdefghi" * 6,
        "Äpfel",
        "äpfel",
    ]
    words = find_words(column(" ".join(items * 2), *items))
    byte_strings = [words.source.data[s:e] for s, e in zip(words.starts, words.ends, strict=True)]
    assert len(set(words.hashes.tolist())) == len(items)
    seen: dict[bytes, int] = {}
    for text, value in zip(byte_strings, words.hashes.tolist(), strict=True):
        assert seen.setdefault(text, value) == value
    assert len(set(seen.values())) == len(seen)


def test_lower_case_beyond_ascii() -> None:
    text = "ÀÉÎ ŻÓŁĆ ЖЩ ΑΩ İ ẞ \u212a 𐐀 straße 漢"
    lower = find_characters(column(text)).lower
    # İ, ẞ and the Kelvin sign have small letters of another length in UTF-8.
    assert lower.data[lower.starts[0] : lower.ends[0]].decode() == "àéî żółć жщ αω İ ẞ \u212a 𐐨 straße 漢"


@given(st.lists(texts, min_size=1, max_size=4))
@settings(max_examples=60)
def test_normalised_words(items: list[str]) -> None:
    words = normalised_words(column(*items))
    kinds = kinds_of_characters()
    for number, text in enumerate(items):
        expected, word, previous = [], "", kind.SPACE
        small = find_characters(column(text)).lower
        for character in small.data[small.starts[0] : small.ends[0]].decode():
            each = kinds[ord(character)]
            ends = not IN_WORD[each] or each == kind.ALONE
            if (previous in SPACELESS) and each not in (kind.CLINGING, kind.MARK):
                ends = True
            if ends and word:
                expected.append(word)
                word = ""
            word += character if IN_WORD[each] else ""
            previous = each
        assert strings(words, number) == ([*expected, word] if word else expected)


def test_normalised_words_meet_without_case_and_punctuation() -> None:
    one, two = "“The CAT—sat”, on (the) mat!", "the cat sat on the mat"
    words = normalised_words(column(one, two))
    assert strings(words, 0) == strings(words, 1) == two.split()


@given(st.lists(texts, max_size=5), st.integers(1, 6))
@settings(max_examples=40)
def test_ngrams_stay_within_texts(items: list[str], n: int) -> None:
    words = find_words(column(*items))
    first = ngram_places(words, n)
    counts = [max(0, len(split(text)) - n + 1) for text in items]
    assert words.documents[first].tolist() == [i for i, count in enumerate(counts) for _ in range(count)]
    assert words.documents[first + n - 1].tolist() == words.documents[first].tolist()
    assert len(set(first.tolist())) == len(first)


@given(st.lists(texts, max_size=6), st.randoms())
@settings(max_examples=40)
def test_taking_documents_takes_their_words(items: list[str], rng: random.Random) -> None:
    keep = np.array([rng.random() < 0.5 for _ in items], bool)
    batch = Batch({"text": column(*items)})
    _ = batch.words.alphabetic, batch.lines
    taken = batch.take(keep)
    fresh = find_words(taken.texts)
    assert [strings(taken.words, i) for i in range(len(taken))] == [strings(fresh, i) for i in range(len(taken))]
    for field in ("hashes", "lengths", "offsets", "alphabetic", "symbols", "text_lengths", "documents"):
        assert getattr(taken.words, field).tolist() == getattr(fresh, field).tolist()
    assert taken.lines.lengths.tolist() == find_lines(fresh).lengths.tolist()
    assert batch.with_columns(more=1).words is batch.words
    assert batch.with_columns(text=batch.texts).words is not batch.words


def test_slices_of_columns() -> None:
    whole = column("one two", "three", "", "four é")
    for part in (
        whole.slice(1),
        whole.slice(1, 2),
        whole.slice(4),
        pa.concat_arrays([whole.slice(3), whole.slice(0, 1)]),
    ):
        words = find_words(part)
        assert [strings(words, i) for i in range(len(part))] == [text.split() for text in part.to_pylist()]


def test_a_long_word_and_none() -> None:
    words = find_words(column("x" * 300_000, "", " \n "))
    assert words.lengths.tolist() == [300_000]
    assert words.counts.tolist() == [1, 0, 0]
    assert find_words(column()).offsets.tolist() == [0]
