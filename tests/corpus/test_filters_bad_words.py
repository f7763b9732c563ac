"""Lists of bad words: whole words, phrases, scripts without spaces, languages, and files that can't be read."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.documents import Batch
from groundup.corpus.filters import build_filters
from groundup.recipe.filters import BadWordsSection, FiltersSection
from groundup.run import UserError


def refused(
    files: list[Path], *texts: str, languages: list[str | None] | None = None, keep: float = 0.0
) -> list[float]:
    """How many listed words each text is refused for, 0 where it passes."""
    section = BadWordsSection(files=tuple(map(str, files)), keep_fraction=keep)
    [apply] = build_filters(FiltersSection(bad_words=section))
    columns = {"text": pa.array(texts, pa.large_string())}
    if languages is not None:
        columns["language"] = pa.array(languages, pa.string())
    outcome = apply(Batch(columns))
    assert apply.rules == ("bad_words",)
    return [0.0 if failed < 0 else value for failed, value in zip(outcome.failed, outcome.value, strict=True)]


@pytest.fixture
def lists(tmp_path: Path) -> list[Path]:
    (tmp_path / "en").write_text("\ufeffblast\nbad egg\n\nf**k\nÉcru\n$#!\n", encoding="utf-8")
    (tmp_path / "zh.txt").write_text("坏话\n", encoding="utf-8")
    (tmp_path / "th").write_text("คำหยาบ\n", encoding="utf-8")
    return [tmp_path / name for name in ("en", "zh.txt", "th")]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Blast it, BLAST!", 2),
        ("sandblasting and blasts", 0),
        ("a Bad-Egg, a bad\n  egg, bad “egg”", 3),
        ("bad eggs, egg bad", 0),
        ("what the F**K", 1),
        ("f**ked, f k", 0),
        ("écru", 1),
        ("décru", 0),
        ("oh $#! no", 1),
        ("oh$#!no", 1),
        ("这是坏话吗", 1),
        ("这是坏吗话", 0),
        ("พูดคำหยาบมาก", 1),
        ("", 0),
    ],
)
def test_what_is_found(lists: list[Path], text: str, count: int) -> None:
    assert refused(lists, "before", text, "blast") == [0, count, 1]


def test_lists_are_for_their_language(lists: list[Path], tmp_path: Path) -> None:
    text = "blast 坏话 house"
    (tmp_path / "house_style.txt").write_text("house", encoding="utf-8")
    languages = ["en", "zh", "de", None, "und"]
    assert refused(lists, *[text] * 5, languages=languages) == [1, 1, 0, 2, 2]
    assert refused([*lists, tmp_path / "house_style.txt"], *[text] * 5, languages=languages) == [2, 2, 1, 3, 3]


def test_a_fraction_is_kept_by_the_text_alone(lists: list[Path]) -> None:
    texts = [f"blast number {i}" for i in range(400)]
    some = refused(lists, *texts, keep=0.25)
    assert 70 <= some.count(0) <= 130
    assert refused(lists, *reversed(texts), keep=0.25) == some[::-1]
    more = refused(lists, *texts, keep=0.5)
    assert all(kept == 0 for kept, before in zip(more, some, strict=True) if before == 0)
    assert refused(lists, *texts, keep=1.0) == [0] * 400


@pytest.fixture(scope="module")
def two_entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lists") / "words"
    file.write_text("blast\nbad egg\n", encoding="utf-8")
    return file


PIECES = ["bad", "egg", "Egg", "blast", "ham", ", ", " ", "\n", "-", "s", "x"]


@given(text=st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@settings(max_examples=60)
def test_words_and_phrases_as_a_pattern_finds_them(two_entries: Path, text: str) -> None:
    found = len(re.findall(r"(?<!\w)(?:blast|bad[\W_]+egg)(?!\w)", text.lower()))
    assert refused([two_entries], text) == [found]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"caf\xe9", "not UTF-8"), (b" \n\n", "is empty"), ("folder", "directory")],
)
def test_lists_that_cannot_be_read(tmp_path: Path, content: bytes | str | None, reason: str) -> None:
    file = tmp_path / "en"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        file.mkdir()
    with pytest.raises(UserError, match=reason) as error:
        refused([file], "text")
    assert "corpus.filters.bad_words.files[0]" in str(error.value)
    assert str(file) in str(error.value)
