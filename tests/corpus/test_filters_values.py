"""Filters: known values on both sides of every threshold, odd texts, other scripts, the order of the filters."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from groundup.corpus.documents import Batch
from groundup.corpus.filters import build_filters
from groundup.recipe.base import Section
from groundup.recipe.corpus import CorpusSection
from groundup.recipe.filters import (
    BadWordsSection,
    C4Section,
    FiltersSection,
    FineWebSection,
    GopherQualitySection,
    GopherRepetitionSection,
    LengthSection,
    SymbolsSection,
)

Reading = tuple[str, float]
# Thresholds that nothing breaks.
OFF = {
    GopherQualitySection: {
        "min_words": 0, "max_words": 10**9, "min_mean_word_length": 0, "max_mean_word_length": 1e9, "max_hashes": 1e9,
        "max_ellipses": 1e9, "max_bullet_lines": 1, "max_ellipsis_lines": 1,
        "min_alphabetic_words": 0, "min_stop_words": 0,
    },
    GopherRepetitionSection: dict.fromkeys(GopherRepetitionSection.model_fields, 1),
    FineWebSection: {
        "min_line_punctuation": 0, "max_short_lines": 1, "max_duplicate_line_characters": 1, "max_lines_per_word": 1e9,
    },
    SymbolsSection: dict.fromkeys(SymbolsSection.model_fields, 1),
    LengthSection: {},
}  # fmt: skip


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


PASSES = ("", pytest.approx(np.nan, nan_ok=True))
SHORT = "thirty characters, and no more"
FIVE = "abc def ghi jkl mno"  # 15 letters
ROW = "a line without an end that is not at all short"
SIDES: list[tuple[type[Section], str, str, str, float]] = [
    (GopherQualitySection, "min_words", "word, " * 50, "word, " * 49, 49),
    (GopherQualitySection, "max_words", "w. " * 100_000, "w. " * 100_001, 100_001),
    (GopherQualitySection, "min_mean_word_length", "the of , next", "the of an", 7 / 3),
    (GopherQualitySection, "max_mean_word_length", "the . of " + "x" * 25, "the of " + "x" * 26, 31 / 3),
    (GopherQualitySection, "max_hashes", "# " + "word " * 9, "# " + "word " * 8, 1 / 9),
    (GopherQualitySection, "max_ellipses", "…" + " word" * 9, "word " * 17 + "......", 2 / 18),
    (GopherQualitySection, "max_bullet_lines", "\n".join(["- a"] * 9 + ["b"]), "\n".join([" • a"] * 10), 1.0),
    (GopherQualitySection, "max_ellipsis_lines", "a...\n" * 3 + "b\n" * 6 + "b", "a… \n" * 4 + "b\n" * 5 + "b", 0.4),
    (GopherQualitySection, "min_alphabetic_words", "the land of man 1", "the land of 1", 0.75),
    (GopherQualitySection, "min_stop_words", "the land of the man", "the land then went the The", 1),
    (GopherRepetitionSection, "max_duplicate_lines", "a\nb\nc\nd\ne\nf\ng\na\na\na", "a\nb\n\na", 1 / 3),
    (GopherRepetitionSection, "max_duplicate_line_characters", "abcd\nhi\nhi", "abc\nhi\nhi", 2 / 9),
    (GopherRepetitionSection, "max_duplicate_paragraphs", "\n\n".join("abcdefghhhh"[1:]), "a\n\nb\n\na", 1 / 3),
    (GopherRepetitionSection, "max_duplicate_paragraph_characters", "wx\n\nab\n\nab", "a\nb\n\na\nb", 3 / 8),
    (GopherRepetitionSection, "max_top_2gram", "ab ab cdefghijklmnopqrstu", "ab ab cdefghijklmnopqrst", 5 / 24),
    (GopherRepetitionSection, "max_duplicate_5gram", f"{FIVE} {'k' * 60} {FIVE}", f"{FIVE} {'k' * 59} {FIVE}", 15 / 99),
    (FineWebSection, "min_line_punctuation", "End.\n" * 3 + f"{ROW}\n" * 22, "End?\n" + f"{ROW}\n" * 9, 0.1),
    (FineWebSection, "max_short_lines", f"{SHORT}\n" * 67 + f"{SHORT}x\n" * 33, f"{SHORT}\n" * 3 + f"{SHORT}x", 0.75),
    (FineWebSection, "max_duplicate_line_characters", "a\na\n" + "b" * 98, "a\na\n" + "b" * 97, 1 / 99),
    (FineWebSection, "max_lines_per_word", "a b c d\ne f g\nh i\nj", "a b c d\ne f\ng\nh i", 3 / 9),
    (SymbolsSection, "max_digits", "abcd 1", "abc 1", 0.25),
    (SymbolsSection, "max_capitals", "ab cAB1", "abAB 1", 0.5),
    (SymbolsSection, "max_symbols", "abc .", "ab .", 1 / 3),
    (SymbolsSection, "max_addresses", f"{'x' * 28} www.a.b", "xhttps://a.b and no more than here", 11 / 29),
]  # fmt: skip


@pytest.mark.parametrize(("section", "rule", "at", "beyond", "value"), SIDES, ids=[rule for _, rule, *_ in SIDES])
def test_thresholds_have_two_sides(section: type[Section], rule: str, at: str, beyond: str, value: float) -> None:
    """A document at the default threshold passes, and one beyond it does not."""
    alone = section.model_validate({**OFF[section], rule: getattr(section(), rule)})
    assert judge(alone, at.strip(), beyond.strip()) == [PASSES, (rule, pytest.approx(value, abs=1e-12))]


def test_scripts_without_spaces_are_judged_sensibly(real_data: Path) -> None:
    """Sentences in other scripts pass the rules that do not name English words."""
    for code in ("zh", "ja", "th", "ko", "ru", "ar", "hi"):
        sentences = gzip.decompress((real_data / "languages" / f"{code}.txt.gz").read_bytes()).decode().split("\n")
        documents = ["\n".join(sentences[i : i + 20]) for i in range(0, 400, 20)]
        quality = GopherQualitySection(
            min_stop_words=0, min_alphabetic_words=0.7
        )  # so short, they have many full stops
        assert sum(rule == "" for rule, _ in judge(quality, *documents)) >= 18, code
        assert sum(rule == "" for rule, _ in judge(GopherRepetitionSection(), *documents)) >= 18, code


def test_stop_words_of_several_letters() -> None:
    section = GopherQualitySection(min_words=0, min_alphabetic_words=0, stop_words=("我们", "的"))
    assert [rule for rule, _ in judge(section, "我们的书。", "我的们书。", "我\n们的")] == ["", "min_stop_words", ""]


def test_order_and_presets() -> None:
    every = FiltersSection.model_validate(
        {name: {} for name in FiltersSection.model_fields if name not in ("bad_words", "classifier")}
    )
    names = ["language", "c4", "length", "symbols", "gopher_repetition", "gopher_quality", "fineweb"]
    assert [each.name for each in build_filters(every)] == names
    assert build_filters(FiltersSection()) == []
    web = CorpusSection.model_validate({"preset": "web"})
    assert [each.name for each in build_filters(web.filters)] == [*names[:2], *names[4:]]
    code = CorpusSection.model_validate({"preset": "code"})
    assert code.filters.length is not None
    assert code.filters.length.max_line_characters == 1000


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (LengthSection, {"min_words": 5, "max_words": 4}),
        (GopherQualitySection, {"max_words": 10}),
        (GopherQualitySection, {"stop_words": ["der", "der"]}),
        (GopherRepetitionSection, {"max_top_2gram": 1.1}),
        (BadWordsSection, {"files": []}),
        (BadWordsSection, {"files": [""]}),
        (FineWebSection, {"short_lines": 0.5}),
    ],
)
def test_thresholds_that_make_no_sense(section: type[Section], values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        section.model_validate(values)


def test_every_rule_has_its_threshold() -> None:
    for section in (LengthSection, SymbolsSection, GopherQualitySection, GopherRepetitionSection, FineWebSection):
        [apply] = build_filters(FiltersSection.model_validate({name_of(section()): section()}))
        assert set(apply.rules) <= set(section.model_fields)
        assert len(set(apply.rules)) == len(apply.rules)


def test_empty_texts_and_batches() -> None:
    every = FiltersSection(
        length=LengthSection(max_line_characters=9, max_mean_line_characters=9, max_lines=1, min_words=1),
        symbols=SymbolsSection(),
        gopher_repetition=GopherRepetitionSection(),
        gopher_quality=GopherQualitySection(),
        c4=C4Section(),
        fineweb=FineWebSection(),
    )
    for apply in build_filters(every):
        assert len(apply(batch_of()).failed) == 0
        for odd in ("", " ", "\n", "\n\n \n", "a", "\0", "\u0301", ".", "…", "…\n", "漢", "\n-", "..."):
            outcome = apply(batch_of(odd, "words", odd))
            assert outcome.failed[0] == outcome.failed[2]
            assert outcome.failed.tolist() == apply(batch_of(odd, "words")).failed.tolist() + [outcome.failed[0]]
