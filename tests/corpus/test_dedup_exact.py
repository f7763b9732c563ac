"""Exact duplicates: what counts as equal, and which document stays."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.corpus.dedup import exact_keys, first_of_each


def keys_of(*texts: str) -> list[tuple[int, int]]:
    return [tuple(row) for row in exact_keys(pa.array(texts, pa.large_string())).tolist()]


def test_case_and_white_space_play_no_part():
    first, *others = keys_of(
        "One  two\n\nthree", " one two three", "ONE\ttwo\u00a0three ", "onetwo three", "one two thrée"
    )
    assert others[:2] == [first, first]
    assert len({first, *others}) == 3


def test_keys_are_blake2b_of_the_plain_text():
    import hashlib

    digest = hashlib.blake2b(b"a b", digest_size=16).digest()
    expected = (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))
    assert keys_of("A\n B") == [expected]
    assert exact_keys(pa.array([], pa.large_string())).shape == (0, 2)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30), st.randoms(use_true_random=False))
def test_the_lowest_ordinal_of_each_key_stays_whatever_the_order(pairs, random):
    ordinals = [(unit << 32) + 7 for unit in range(len(pairs))]
    random.shuffle(ordinals)
    keys = np.array(pairs, np.uint64).reshape(-1, 2)
    stays = first_of_each(keys, np.array(ordinals, np.uint64))
    lowest = {pair: min(o for p, o in zip(pairs, ordinals, strict=True) if p == pair) for pair in pairs}
    assert stays.tolist() == [lowest[p] == o for p, o in zip(pairs, ordinals, strict=True)]


@pytest.mark.parametrize("half", [0, 1])
def test_half_a_key_is_no_key(half):
    keys = np.array([[1, 1], [1, 1]], np.uint64)
    keys[1, half] = 2
    assert first_of_each(keys, np.array([5, 4], np.uint64)).all()
