"""Padded buckets: a piece a row, every target once an epoch, and no better lengths of rows."""

import itertools
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from groundup.run import UserError
from groundup.tokenizer import IGNORED, Buckets, ShardSource, ShardWriter, TokenShards
from groundup.tokenizer.buckets import bucket_lengths


def write(
    directory: Path, sizes: list[int], *, masked: bool = False, weight: float = 1.0, shard_tokens: int = 300
) -> TokenShards:
    """Document d, token i is 200 d + i + 2."""
    with ShardWriter(
        directory, "uint32", pad_id=1, with_mask=masked, shard_tokens=shard_tokens, sources=[ShardSource("a", weight)]
    ) as writer:
        for number, size in enumerate(sizes):
            ids = 200 * number + np.arange(size) + 2
            writer.add(ids, 0, ids % 3 == 0 if masked else None)
    return TokenShards(directory)


@settings(max_examples=80)
@given(
    sizes=st.lists(st.integers(0, 120), min_size=1, max_size=40).filter(lambda sizes: max(sizes) > 1),
    sequence=st.integers(1, 70),
    tokens=st.integers(1, 300),
    seed=st.integers(0, 2**40),
    masked=st.booleans(),
    weight=st.sampled_from([1.0, 2.0, 0.5]),
)
def test_every_target_exactly_once(
    sizes: list[int], sequence: int, tokens: int, seed: int, masked: bool, weight: float
) -> None:
    with TemporaryDirectory() as name:
        loader = Buckets(write(Path(name), sizes, masked=masked, weight=weight), sequence, tokens, seed)
        seen: Counter[int] = Counter()
        step = places = served = 0
        for epoch in range(2):
            full = Counter[int]()
            for _ in range(loader.epochs.count(epoch)):
                batch = loader.update(step)
                step += 1
                assert batch.length in loader.lengths
                limit = max(1, tokens // batch.length)
                assert len(batch) <= limit
                full[batch.length] += len(batch) < limit
                assert np.all(batch.documents.max(axis=1) == 1)
                real = batch.documents == 1
                assert np.array_equal(batch.positions, np.where(real, np.arange(batch.length), 0))
                assert np.all(np.diff(real.astype(int), axis=1) <= 0)
                assert np.all(batch.ids[~real] == 1)
                learned = batch.targets != IGNORED
                assert np.all(batch.targets[learned] == batch.ids[learned] + 1)
                assert masked or np.array_equal(learned, real)
                shorter = [length for length in loader.lengths if length < batch.length]
                assert real.sum(axis=1).min() > max(shorter, default=0)  # each piece in its own bucket
                seen.update(batch.targets[learned].tolist())
                if epoch == 0:
                    places, served = places + batch.ids.size, served + batch.tokens
            assert max(full.values(), default=0) <= 1  # only the last of a bucket is short
        expected = Counter(200 * number + i + 2 for number, size in enumerate(sizes) for i in range(1, size))
        if masked:
            expected = Counter({target: 1 for target in expected if target % 3 == 0})
        times = {1.0: 2, 2.0: 4, 0.5: 1}[weight]
        assert seen == Counter(dict.fromkeys(expected, times))
        assert loader.tokens() == served
        assert loader.padding() == pytest.approx(1 - served / places if places else 0.0)


@settings(max_examples=80)
@given(
    pairs=st.lists(st.integers(0, 120), min_size=1, max_size=30),
    longest=st.integers(1, 70),
    buckets=st.integers(1, 4),
)
def test_no_choice_of_lengths_leaves_less_empty(pairs: list[int], longest: int, buckets: int) -> None:
    assume(max(pairs) > 0)
    found = bucket_lengths(np.array(pairs), longest, buckets)
    pieces = [part for size in pairs for part in [longest] * (size // longest) + [size % longest] if part]
    assert found == sorted(set(found))
    assert len(found) <= buckets
    assert found[-1] == min(longest, -(-max(pieces) // 8) * 8)

    def places(lengths: list[int]) -> int:
        return sum(min(length for length in lengths if length >= piece) for piece in pieces)

    shorter = range(8, found[-1], 8)
    choices = (list(some) for count in range(buckets) for some in itertools.combinations(shorter, count))
    assert places(found) == min(places([*choice, found[-1]]) for choice in choices)


def test_updates_have_about_the_same_number_of_places_in_random_order(tmp_path: Path) -> None:
    sizes = [2 + (37 * number) % 199 for number in range(2000)]
    loader = Buckets(write(tmp_path, sizes, shard_tokens=2**20), 128, 2048, 1)
    batches = [loader.update(step) for step in range(loader.epochs.count(0))]
    small = [batch for batch in batches if not 2048 - batch.length < batch.ids.size <= 2048]
    assert len(small) <= len(loader.lengths)
    order = [batch.length for batch in batches]
    assert order != sorted(order)
    assert sum(one != other for one, other in itertools.pairwise(order)) > len(order) // 3
    assert loader.padding() < 0.1
    assert [b.length for b in (loader.update(step) for step in range(40))] != [
        b.length for b in (Buckets(TokenShards(tmp_path), 128, 2048, 2).update(step) for step in range(40))
    ]


def test_what_can_not_be(tmp_path: Path) -> None:
    shards = write(tmp_path, [9, 9])
    with pytest.raises(UserError, match="0 tokens"):
        Buckets(shards, 8, 0, 1)
    with pytest.raises(UserError, match="sequence_length is 0"):
        Buckets(shards, 0, 8, 1)
