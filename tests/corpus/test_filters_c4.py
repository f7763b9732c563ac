"""C4: lines dropped and documents refused, against a slow reading of the rules and by hand."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus import characters as kind
from groundup.corpus.characters import IN_WORD, kinds_of_characters
from groundup.corpus.documents import Batch
from groundup.corpus.filters.c4 import C4Filter
from groundup.corpus.words import find_words
from groundup.recipe.filters import C4Section

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
texts = st.lists(st.sampled_from(LINES), max_size=14).map("\n".join)
KINDS = kinds_of_characters()


def batch_of(*items: str) -> Batch:
    return Batch({"text": pa.array(items, pa.large_string())})


def words_in(text: str) -> list[str]:
    words = find_words(pa.array([text], pa.large_string()))
    return [words.source.data[s:e].decode() for s, e in zip(words.starts, words.ends, strict=True)]


def is_word(word: str) -> bool:
    return any(IN_WORD[KINDS[ord(c)]] for c in word)


def letter_for(character: str) -> str:
    """A for a letter of a script without spaces, C for a mark, x for the rest."""
    names = {kind.ALONE: "A", kind.CLINGING: "C", kind.MARK: "C", kind.SPACE: " "}
    return names.get(int(KINDS[ord(character)]), "x")


def read_c4(text: str, section: C4Section) -> tuple[str, float, str]:
    """Rule, value and the text left."""
    if section.citations:
        text = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", text)
    kept = []
    for row in (row.strip() for row in text.split("\n")):
        # Letters of a script without spaces stand alone, with their marks.
        spaced = re.sub("AC*", lambda match: f" {match.group()} ", "".join(map(letter_for, row)))
        pieces = spaced.split()
        ends = row != "" and KINDS[ord(row[-1])] in (kind.DOT, kind.TERMINAL, kind.QUOTE, kind.APOSTROPHE)
        if not row or any(len(piece) > section.max_word_characters for piece in pieces):
            continue
        if section.terminal_punctuation and (not ends or row.endswith("...")):
            continue
        if len(pieces) >= section.min_line_words:
            kept.append(row)
    lorem, curly = sum("lorem ipsum" in row.lower() for row in kept), sum("{" in row for row in kept)
    if section.lorem_ipsum and lorem:
        return "lorem_ipsum", lorem, ""
    if section.curly_brackets and curly:
        return "curly_brackets", curly, ""
    policies = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
    kept = [row for row in kept if not (section.javascript and "javascript" in row.lower())]
    kept = [row for row in kept if not (section.policies and any(phrase in row.lower() for phrase in policies))]
    sentences = 0
    for row in kept:
        told = [
            "." if len(w) == 1 and KINDS[ord(w)] in (kind.DOT, kind.TERMINAL) else "w" if is_word(w) else ""
            for w in words_in(row)
        ]
        sentences += 1 + len(re.findall(r"\.w", "".join(told)))
    if sentences < section.min_sentences:
        return "min_sentences", sentences, ""
    return ("", np.nan, "\n".join(kept)) if kept else ("no_lines", 0, "")


@given(st.lists(texts, min_size=1, max_size=5), st.booleans())
@settings(max_examples=60)
def test_c4(items: list[str], all_off: bool) -> None:
    off = dict.fromkeys(
        ("terminal_punctuation", "citations", "lorem_ipsum", "curly_brackets", "javascript", "policies"), False
    )
    section = C4Section(min_sentences=3, **(off if all_off else {}))
    check_c4(section, items)


def test_c4_on_real_texts(real_data: Path) -> None:
    with gzip.open(real_data / "wikipedia_random" / "docs.jsonl.gz", "rt", encoding="utf-8") as file:
        items = [json.loads(next(file))["text"][:20000] for _ in range(40)]
    for path in sorted((real_data / "techdocs").rglob("*.*"))[:6]:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        items.append(data.decode()[:12000])
    check_c4(C4Section(), items)


def check_c4(section: C4Section, items: list[str]) -> None:
    apply = C4Filter(section)
    outcome = apply(batch_of(*items))
    left = items if outcome.texts is None else outcome.texts.to_pylist()
    assert len(left) == len(items)
    for row, text in enumerate(items):
        rule, value, expected = read_c4(text, section)
        assert ("" if outcome.failed[row] < 0 else apply.rules[outcome.failed[row]]) == rule
        assert outcome.value[row] == pytest.approx(value, nan_ok=True)
        if not rule:
            assert left[row] == expected
            second = apply(batch_of(expected))
            assert second.failed[0] == -1
            if not re.search(r"\[\d*\]", expected):
                assert second.texts is None


def test_c4_by_hand() -> None:
    good = 'One is here. Two is here! Three "is" here? Four is it. Five at last.'
    page = (
        f"Home | About\n{good}[1]\nToo short.\nThis site uses cookies to serve you.\n"
        "  You need JavaScript for this.  \nAnd then..."
    )
    apply = C4Filter(C4Section())
    outcome = apply(
        batch_of(
            page, good, good + "\nif (a) { b and c }.", good + "\nIt is Lorem Ipsum again.", "One is here. Two is here."
        )
    )
    assert [apply.rules[f] if f >= 0 else "" for f in outcome.failed] == [
        "",
        "",
        "curly_brackets",
        "lorem_ipsum",
        "min_sentences",
    ]
    assert outcome.texts is not None
    assert outcome.texts.to_pylist()[:2] == [good, good]
    assert outcome.value[4] == 2
    assert apply(batch_of(good)).texts is None


def test_long_words_drop_lines_but_chinese_does_not() -> None:
    apply = C4Filter(C4Section(min_sentences=1))
    line, chinese = f"a b {'x' * 1001}.", "汉" * 1500 + "。"
    outcome = apply(batch_of(f"{line}\nThis one is kept.", chinese, f"a b {'x' * 999}."))
    assert outcome.failed.tolist() == [-1, -1, -1]
    assert outcome.texts is not None
    assert outcome.texts[0].as_py() == "This one is kept."
    assert outcome.texts[1].as_py() == chinese
