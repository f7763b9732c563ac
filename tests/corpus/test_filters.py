"""Filters: each rule against a slow reading of its definition, known values on both sides of every threshold."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus import characters as kind
from groundup.corpus.characters import IN_WORD, kinds_of_characters
from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.filters import build_filters
from groundup.corpus.words import Words, find_words
from groundup.recipe.base import Section
from groundup.recipe.filters import (
    FiltersSection,
    FineWebSection,
    GopherQualitySection,
    GopherRepetitionSection,
    LengthSection,
    SymbolsSection,
)

LINES = [
    "The cat sat on the mat, and the dog ran.", "- a bullet", "• another bullet", "And so on...",
    "and more…", "Short.", "the the the the", "of the people by the people for the people",
    "Buy now! Buy now! Buy now!", "12 345 6789", "# # #", "", "", "  ", "Trailing space. ",
    "“To be,” he said, “with you.”", "See https://a.org/b-c now.", "SHOUTING ALOUD", "日本語の文章です。",
    "ภาษาไทย", "one two three four five six seven eight nine ten eleven",
    "Use of cookies is fine here.", "Please enable JavaScript now.", "Lorem ipsum dolor sit amet.",
    "if (x) { return; }.", "It has [1] two [citation needed] notes.[12]", "No end",
    "What? Yes! No. Maybe so.",
]  # fmt: skip
lines = st.sampled_from(LINES)
texts = st.lists(lines, max_size=14).map("\n".join)
Reading = tuple[str, float]
KINDS = kinds_of_characters()


def batch_of(*items: str) -> Batch:
    return Batch({"text": pa.array(items, pa.large_string())})


def judge(section: Section, *items: str) -> list[Reading]:
    """(broken rule or "", value) of each text."""
    [apply] = build_filters(FiltersSection.model_validate({name_of(section): section}))
    outcome = apply(batch_of(*items))
    assert outcome.failed.dtype == np.int16
    assert (np.isnan(outcome.value) == (outcome.failed < 0)).all()
    return [("" if f < 0 else apply.rules[f], v) for f, v in zip(outcome.failed, outcome.value, strict=True)]


def name_of(section: Section) -> str:
    return next(
        name for name, field in FiltersSection.model_fields.items() if type(section) in field.annotation.__args__
    )


def words_in(text: str) -> list[str]:
    words: Words = find_words(pa.array([text], pa.large_string()))
    return [words.source.data[s:e].decode() for s, e in zip(words.starts, words.ends, strict=True)]


def is_word(word: str) -> bool:
    return any(IN_WORD[KINDS[ord(c)]] for c in word)


def first_broken(section: Section, measured: dict[str, float]) -> Reading:
    """The first rule of `measured` that the section's field of the same name says is broken."""
    for rule, value in measured.items():
        limit = getattr(section, rule)
        if limit is not None and not np.isnan(value) and (value < limit if rule.startswith("min") else value > limit):
            return rule, value
    return "", np.nan


# Definitions, one text at a time.


def read_length(text: str, section: Section) -> Reading:
    full = [line for line in text.split("\n") if line.strip()]
    words = len([word for word in words_in(text) if is_word(word)])
    measured = {
        "min_characters": len(text), "max_characters": len(text), "min_words": words, "max_words": words,
        "min_lines": len(full), "max_lines": len(full), "max_line_characters": max(map(len, text.split("\n"))),
        "max_mean_line_characters": sum(map(len, full)) / len(full) if full else 0,
    }  # fmt: skip
    return first_broken(section, measured)


def read_symbols(text: str, section: Section) -> Reading:
    visible = [c for c in text if not c.isspace()]
    letters = [c for c in text if c.isalpha()]
    addresses = re.findall(r"(?:https?://|www\.)\S*", text)
    measured = {
        "max_digits": over(sum(c.isnumeric() for c in visible), len(visible)),
        "max_capitals": over(sum(c.isupper() for c in letters), len(letters)),
        "max_symbols": over(sum(not IN_WORD[KINDS[ord(c)]] for c in visible), len(visible)),
        "max_addresses": over(sum(map(len, addresses)), len(visible)),
    }
    return first_broken(section, measured)


def read_quality(text: str, section: GopherQualitySection) -> Reading:
    words = words_in(text)
    plain = [word for word in words if is_word(word)]
    rows = text.split("\n")
    mean = over(sum(map(len, plain)), len(plain))
    if 2 * sum(KINDS[ord(word[0])] == kind.ALONE for word in plain) > len(plain):
        mean = np.nan
    measured = {
        "min_words": len(plain), "max_words": len(plain), "min_mean_word_length": mean, "max_mean_word_length": mean,
        "max_hashes": over(text.count("#"), len(words)),
        "max_ellipses": over(text.count("...") + text.count("…"), len(words)),
        "max_bullet_lines": over(sum(row.lstrip().startswith(("•", "-")) for row in rows), len(rows)),
        "max_ellipsis_lines": over(sum(row.rstrip().endswith(("...", "…")) for row in rows), len(rows)),
        "min_alphabetic_words": over(sum(any(c.isalpha() for c in word) for word in words), len(words)),
        "min_stop_words": len(set(section.stop_words) & set(words)),
    }  # fmt: skip
    return first_broken(section, measured)


def read_repetition(text: str, section: Section) -> Reading:
    paragraphs = [each.strip("\n") for each in re.split(r"\n{2,}", text) if each.strip("\n")]
    rows = [row for row in text.split("\n") if row]
    words = words_in(text)
    measured = {
        "max_duplicate_paragraphs": over(len(again(paragraphs)), len(paragraphs)),
        "max_duplicate_paragraph_characters": over(sum(map(len, again(paragraphs))), len(text)),
        "max_duplicate_lines": over(len(again(rows)), len(rows)),
        "max_duplicate_line_characters": over(sum(map(len, again(rows))), len(text)),
    }
    letters = sum(KINDS[ord(word[0])] == kind.ALONE and ord(word[0]) < 0x2000 for word in words)
    scale = 3 if 2 * letters > len(words) else 1
    for n in (2, 3, 4):
        grams = Counter(tuple(words[i : i + scale * n]) for i in range(len(words) - scale * n + 1))
        top, often = max(grams.items(), key=lambda item: item[1]) if grams else ((), 0)
        measured[f"max_top_{n}gram"] = min(1, over((len("".join(top)) + n - 1) * often, len(text)))
    for n in range(5, 11):
        read, repeated, i = set(), 0, 0
        while i + scale * n <= len(words):
            gram = tuple(words[i : i + scale * n])
            if gram in read:
                repeated += sum(map(len, gram))
                i += scale * n
            else:
                read.add(gram)
                i += 1
        measured[f"max_duplicate_{n}gram"] = over(repeated, len(text))
    return first_broken(section, measured)


def read_fineweb(text: str, section: FineWebSection) -> Reading:
    rows = [row for row in text.split("\n") if row.strip()]
    stops = [KINDS[ord(row.rstrip()[-1])] in (kind.DOT, kind.TERMINAL) for row in rows]
    measured = {
        "min_line_punctuation": over(sum(stops), len(rows)),
        "max_short_lines": over(sum(len(row) <= section.short_line for row in rows), len(rows)),
        "max_duplicate_line_characters": over(sum(map(len, again(rows))), len(text.replace("\n", ""))),
        "max_lines_per_word": over(text.count("\n"), len(words_in(text))),
    }
    return first_broken(section, measured)


def over(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def again(items: list[str]) -> list[str]:
    return [item for i, item in enumerate(items) if item in items[:i]]


READERS: dict[type[Section], Callable[..., Reading]] = {
    LengthSection: read_length, SymbolsSection: read_symbols, GopherQualitySection: read_quality,
    GopherRepetitionSection: read_repetition, FineWebSection: read_fineweb,
}  # fmt: skip
# Each rule alone, at a threshold that decides about many of the texts.
ALONE: dict[type[Section], dict[str, float]] = {
    LengthSection: {
        "min_characters": 100, "max_characters": 200, "min_words": 20, "max_words": 30, "min_lines": 4, "max_lines": 6,
        "max_line_characters": 40, "max_mean_line_characters": 25,
    },
    SymbolsSection: {"max_digits": 0.05, "max_capitals": 0.1, "max_symbols": 0.1, "max_addresses": 0.05},
    GopherQualitySection: {
        "min_words": 20, "max_words": 30, "min_mean_word_length": 3.7, "max_mean_word_length": 3.9, "max_hashes": 0.05,
        "max_ellipses": 0.03, "max_bullet_lines": 0.2, "max_ellipsis_lines": 0.1, "min_alphabetic_words": 0.75,
        "min_stop_words": 4,
    },
    GopherRepetitionSection: {
        "max_duplicate_paragraphs": 0.1, "max_duplicate_paragraph_characters": 0.1, "max_duplicate_lines": 0.2,
        "max_duplicate_line_characters": 0.15, "max_top_2gram": 0.1, "max_top_3gram": 0.1, "max_top_4gram": 0.1,
        **{f"max_duplicate_{n}gram": 0.1 for n in range(5, 11)},
    },
    FineWebSection: {
        "min_line_punctuation": 0.6, "max_short_lines": 0.5, "max_duplicate_line_characters": 0.1,
        "max_lines_per_word": 0.15,
    },
}  # fmt: skip
OFF = {
    GopherQualitySection: {
        "min_words": 0, "max_words": 10**9, "min_mean_word_length": 0, "max_mean_word_length": 1e9, "max_hashes": 1e9,
        "max_ellipses": 1e9, "max_bullet_lines": 1, "max_ellipsis_lines": 1,
        "min_alphabetic_words": 0, "min_stop_words": 0,
    },
    GopherRepetitionSection: dict.fromkeys(ALONE[GopherRepetitionSection], 1),
    FineWebSection: {
        "min_line_punctuation": 0, "max_short_lines": 1, "max_duplicate_line_characters": 1, "max_lines_per_word": 1e9,
    },
    SymbolsSection: dict.fromkeys(ALONE[SymbolsSection], 1),
    LengthSection: {},
}  # fmt: skip
RULES = [(section, rule) for section, rules in ALONE.items() for rule in rules]


def only(section: type[Section], rule: str) -> Section:
    """The section with this rule on and all others off."""
    return section.model_validate({**OFF[section], rule: ALONE[section][rule]})


def check(section: Section, items: list[str]) -> None:
    for text, (rule, value) in zip(items, judge(section, *items), strict=True):
        expected = READERS[type(section)](text, section)
        assert (rule, expected[0]) == (expected[0], rule), text
        assert value == pytest.approx(expected[1], abs=1e-9, rel=0, nan_ok=True)


@pytest.mark.parametrize(("section", "rule"), RULES)
@given(items=st.lists(texts, min_size=1, max_size=5))
@settings(max_examples=12)
def test_each_rule_alone(section: type[Section], rule: str, items: list[str]) -> None:
    check(only(section, rule), items)


@pytest.mark.parametrize("section", list(ALONE))
@given(items=st.lists(texts, min_size=1, max_size=5))
@settings(max_examples=12)
def test_all_rules_together(section: type[Section], items: list[str]) -> None:
    check(section.model_validate(ALONE[section]), items)
    check(section(), items)


@pytest.fixture(scope="module")
def real_texts(real_data: Path) -> list[str]:
    """Articles, a novel, technical documents and sentences of three scripts, 60 kB each at most."""
    found = []
    with gzip.open(real_data / "wikipedia_random" / "docs.jsonl.gz", "rt", encoding="utf-8") as file:
        found += [json.loads(next(file))["text"] for _ in range(60)]
    for path in [*sorted((real_data / "techdocs").rglob("*.*"))[:6], *sorted((real_data / "books").iterdir())[:2]]:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found.append(data.decode("utf-8-sig")[:12000])
    for code in ("ja", "th", "ru"):
        data = gzip.decompress((real_data / "languages" / f"{code}.txt.gz").read_bytes())
        found.append(data.decode()[:3000])
    return [text.replace("\r", "").strip()[:20000] for text in found]


@pytest.mark.parametrize("section", list(ALONE))
def test_real_texts(section: type[Section], real_texts: list[str]) -> None:
    check(section(), real_texts)
    check(
        section.model_validate({**OFF[section], list(ALONE[section])[-1]: ALONE[section][list(ALONE[section])[-1]]}),
        real_texts,
    )


@given(st.lists(texts, min_size=1, max_size=8), st.integers(0, 8))
@settings(max_examples=30)
def test_borders_of_batches_do_not_matter(items: list[str], cut: int) -> None:
    section = FiltersSection.model_validate(
        {name_of(kind()): ALONE[kind] for kind in ALONE} | {"c4": {"min_sentences": 2}}
    )
    for apply in build_filters(section):
        whole = apply(batch_of(*items))
        parts = [apply(batch_of(*part)) for part in (items[:cut], items[cut:])]
        assert whole.failed.tolist() == [f for part in parts for f in part.failed.tolist()]
        np.testing.assert_array_equal(whole.value, np.concatenate([part.value for part in parts]))
        left = [t for part, its in zip(parts, (items[:cut], items[cut:]), strict=True) for t in left_of(part, its)]
        passing = whole.failed < 0
        assert [t for t, ok in zip(left_of(whole, items), passing, strict=True) if ok] == [
            t for t, ok in zip(left, passing, strict=True) if ok
        ]


def left_of(outcome: Outcome, items: list[str]) -> list[str]:
    return items if outcome.texts is None else outcome.texts.to_pylist()
