"""Hashes of spans, repeated items, lines and paragraphs, each against a slow reading."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus import characters as kind
from groundup.corpus.characters import find_characters, kinds_of_characters
from groundup.corpus.lines import find_lines
from groundup.corpus.spans import find_equal_spans, find_repeats, hash_spans
from groundup.corpus.words import find_words

PIECES = ["a", "b.", "don't", "日本", "é", " ", "  ", "\t", "\u3000", "\n", "\n", "\n\n", "\n\n\n", "\x00", "…"]
texts = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=30)


def column(*items: str) -> pa.LargeStringArray:
    return pa.array(items, pa.large_string())


@pytest.mark.parametrize("spread", [lambda h: h, lambda h: h % np.uint64(7), lambda h: h | np.uint64(2**64 - 2**20)])
def test_repeats(spread: Callable[[np.ndarray], np.ndarray]) -> None:
    """Also where hashes agree in their upper bits, as those of the sort do then."""
    rng = np.random.default_rng(3)
    for size in (0, 1, 2, 50, 400):
        hashes = spread(rng.choice(rng.integers(0, 2**64, max(size // 2, 1), dtype=np.uint64), size))
        documents = np.sort(rng.integers(0, 5, size))
        found = find_repeats(hashes, documents)
        members: dict[tuple[int, int], list[int]] = {}
        for number, key in enumerate(zip(documents.tolist(), hashes.tolist(), strict=True)):
            members.setdefault(key, []).append(number)
        expected = sorted(each for each in members.values() if len(each) > 1)
        later: list[list[int]] = [[] for _ in found.heads]
        for number, group in zip(found.later.tolist(), found.groups.tolist(), strict=True):
            later[group].append(number)
        assert sorted([head, *rest] for head, rest in zip(found.heads.tolist(), later, strict=True)) == expected


@given(
    st.lists(
        st.lists(st.sampled_from(["", "a", "abcdefgh", "abcdefgh_x_abcdefgh", "abcdefgh_y_abcdefgh", "ä"])), max_size=4
    )
)
@settings(max_examples=60)
def test_equal_spans(items: list[list[str]]) -> None:
    lines = find_lines(find_words(column(*("\n".join(each) for each in items))))
    found = find_equal_spans(lines.words.source, lines.starts, lines.ends, lines.documents)
    seen: set[tuple[int, bytes]] = set()
    expected = []
    for number, (start, end) in enumerate(zip(lines.starts, lines.ends, strict=True)):
        key = int(lines.documents[number]), lines.words.source.data[start:end]
        if key in seen:
            expected.append(number)
        seen.add(key)
    assert sorted(found.tolist()) == expected


@given(st.lists(texts, max_size=5))
@settings(max_examples=80)
def test_lines_and_paragraphs(items: list[str]) -> None:
    lines = find_lines(find_words(column(*items)))
    data = lines.words.source.data

    def between(starts: np.ndarray, ends: np.ndarray) -> list[str]:
        return [data[start:end].decode() for start, end in zip(starts, ends, strict=True)]

    expected = [line for text in items for line in text.split("\n")]
    assert between(lines.starts, lines.ends) == expected
    assert lines.documents.tolist() == [i for i, text in enumerate(items) for _ in text.split("\n")]
    assert lines.lengths.tolist() == [len(line) for line in expected]
    kinds = kinds_of_characters()
    spaces = "".join({c for text in items for c in text if kinds[ord(c)] == kind.SPACE})
    assert lines.blank.tolist() == [not line.strip(spaces or " ") for line in expected]
    assert between(*lines.stripped) == [line.strip(spaces or " ") for line in expected]
    starts, ends, documents = lines.paragraphs
    blocks = [
        (i, block.strip("\n")) for i, text in enumerate(items) for block in text.split("\n\n") if block.strip("\n")
    ]
    assert list(zip(documents.tolist(), between(starts, ends), strict=True)) == blocks


def test_hashes_of_spans_tell_sizes_apart() -> None:
    source = find_characters(column("\0" * 40, "a" * 40))
    start = int(source.starts[0])
    sizes = np.arange(41)
    for begin in (start, int(source.starts[1])):
        hashes = hash_spans(source, np.full(41, begin), begin + sizes)
        assert len(set(hashes.tolist())) == 41
