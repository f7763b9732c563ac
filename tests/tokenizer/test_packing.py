"""Packed rows: nothing lost, nothing twice, nothing across documents, and any row from its number alone."""

import random
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.run import UserError
from groundup.tokenizer import (
    IGNORED,
    Batch,
    Loader,
    PackedRows,
    ShardSource,
    ShardWriter,
    TokenShards,
    prefetch,
)
from groundup.tokenizer.plan import best_fit

lengths = st.lists(st.integers(0, 40), min_size=1, max_size=40).filter(lambda sizes: max(sizes) > 1)


def write(directory: Path, sizes: list[int], *, masked: bool = False, **options: Any) -> TokenShards:
    """Documents whose ids say where they stand: document d, token i is 50 d + i + 2."""
    with ShardWriter(directory, "uint32", with_mask=masked, **options) as writer:
        for number, size in enumerate(sizes):
            ids = 50 * number + np.arange(size) + 2
            writer.add(ids, 0, ids % 3 == 0 if masked else None)
    return TokenShards(directory)


def targets_of(batch: Batch) -> Counter[int]:
    return Counter(batch.targets[batch.targets != IGNORED].tolist())


@settings(max_examples=150, deadline=None)
@given(sizes=lengths, sequence=st.integers(1, 24), seed=st.integers(0, 2**40), masked=st.booleans())
def test_every_target_exactly_once(sizes: list[int], sequence: int, seed: int, masked: bool) -> None:
    with TemporaryDirectory() as name:
        shards = write(Path(name), sizes, masked=masked, shard_tokens=100)
        rows = PackedRows(shards, sequence, seed)
        expected = {50 * number + i + 2 for number, size in enumerate(sizes) for i in range(1, size)}
        if masked:
            expected = {target for target in expected if target % 3 == 0}
        for epoch in (0, 1):
            seen: Counter[int] = Counter()
            for batch in rows.epoch_batches(3, epoch):
                check(batch, masked)
                seen += targets_of(batch)
            assert seen == Counter(expected)


def check(batch: Batch, masked: bool) -> None:
    """Every invariant of a batch whose ids tell their place."""
    real = batch.documents > 0
    learned = batch.targets != IGNORED
    assert np.all(batch.targets[learned] == batch.ids[learned] + 1)
    assert not np.any(learned & ~real)
    assert masked or np.array_equal(learned, real)
    assert np.all(batch.ids[~real] == 1)
    assert np.all(batch.positions[~real] == 0)
    assert batch.tokens == np.count_nonzero(real)
    assert batch.supervised == np.count_nonzero(learned)
    for ids, positions, documents in zip(batch.ids, batch.positions, batch.documents, strict=True):
        assert np.all(np.diff(np.where(documents > 0, documents, 10**6)) >= 0)  # padding only at the end
        for number in range(1, documents.max() + 1):
            inside = documents == number
            assert positions[inside].tolist() == list(range(np.count_nonzero(inside)))
            assert np.all(np.diff(ids[inside]) == 1)


@settings(max_examples=60, deadline=None)
@given(sizes=lengths, sequence=st.integers(1, 24), data=st.data())
def test_any_row_in_any_order_from_a_new_start(sizes: list[int], sequence: int, data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        shards = write(Path(name), sizes)
        rows = PackedRows(shards, sequence, 5)
        positions = data.draw(st.lists(st.integers(0, 3 * rows.rows(0) + 5), min_size=1, max_size=8))
        for position in positions:
            again = PackedRows(TokenShards(Path(name)), sequence, 5)
            same(rows.row(position), again.row(position))


def same(one: Batch, other: Batch) -> None:
    for field in ("ids", "targets", "positions", "documents"):
        assert np.array_equal(getattr(one, field), getattr(other, field))


def test_epochs_and_seeds_differ_and_the_sum_of_rows_is_right(tmp_path: Path) -> None:
    shards = write(tmp_path, [17] * 40 + [5] * 40)
    rows = PackedRows(shards, 32, 1)
    first, second = (np.concatenate([b.ids for b in rows.epoch_batches(9, epoch)]) for epoch in (0, 1))
    assert first.shape != second.shape or not np.array_equal(first, second)
    other = np.concatenate([b.ids for b in PackedRows(shards, 32, 2).epoch_batches(9)])
    assert other.shape != first.shape or not np.array_equal(first, other)
    assert rows.rows_in(2) == rows.rows(0) + rows.rows(1)
    assert rows.rows_in(0.5) == -(-rows.rows(0) // 2)
    assert rows.epoch_of(rows.rows(0)) == (1, 0)
    assert rows.available() is None
    for missing in (0, 65536):
        with pytest.raises(UserError, match="sequence_length"):
            PackedRows(shards, missing, 1)


def weighted(directory: Path, weight: float, epochs: float | None, count: int = 10) -> PackedRows:
    sources = [ShardSource("plain"), ShardSource("weighted", weight, epochs)]
    with ShardWriter(directory, "uint16", sources=sources) as writer:
        for number in range(2 * count):
            writer.add([number, 100 + number], number // count)
    return PackedRows(TokenShards(directory), 4, 3)


def shown(rows: PackedRows, epoch: int) -> Counter[int]:
    return sum((targets_of(batch) for batch in rows.epoch_batches(2, epoch)), Counter())


def test_weight_two_is_twice_in_each_epoch(tmp_path: Path) -> None:
    rows = weighted(tmp_path, 2.0, None)
    plain, heavy = Counter(range(100, 110)), Counter(range(110, 120))
    for epoch in range(3):
        assert shown(rows, epoch) == plain + heavy + heavy


def test_weight_one_half_is_every_second_epoch(tmp_path: Path) -> None:
    rows = weighted(tmp_path, 0.5, None)
    halves = [shown(rows, epoch) - Counter(range(100, 110)) for epoch in range(4)]
    assert [half.total() for half in halves] == [5, 5, 5, 5]
    assert halves[0] + halves[1] == Counter(range(110, 120)) == halves[2] + halves[3]


@pytest.mark.parametrize(
    ("weight", "epochs", "totals"),
    [(1.0, 2, [10, 10, 0, 0]), (2.0, 3, [20, 10, 0, 0]), (0.5, 1, [5, 5, 0, 0]), (1.0, 1.5, [10, 5, 0, 0])],
)
def test_epochs_cap_a_source(tmp_path: Path, weight: float, epochs: float, totals: list[int]) -> None:
    rows = weighted(tmp_path, weight, epochs)
    assert [shown(rows, epoch).total() - 10 for epoch in range(4)] == totals


def test_a_corpus_that_is_used_up_says_so(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "uint16", sources=[ShardSource("a", 1.0, 2)]) as writer:
        for _ in range(9):
            writer.add([1, 2, 3])
    loader = Loader(PackedRows(TokenShards(tmp_path), 4, 1), 2)
    assert loader.rows.available() == 10  # two documents a row, nine documents: five rows, twice
    assert loader.updates() == 5
    loader.update(4)
    with pytest.raises(UserError, match="used up after 10 rows"):
        loader.update(5)
    stream = prefetch(loader, 4)
    next(stream)
    with pytest.raises(UserError, match="used up"):
        next(stream)


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "uint16") as writer:
        writer.add([1])
    with pytest.raises(UserError, match="no document has two tokens"):
        PackedRows(TokenShards(tmp_path), 4, 1)


@given(st.lists(st.integers(1, 30), max_size=80), st.integers(30, 60))
def test_best_fit_is_best_fit(sizes: list[int], capacity: int) -> None:
    """The grouped algorithm opens as many rows, with the same room left, as one piece at a time."""
    sizes = sorted(sizes, reverse=True)
    found = best_fit(np.array(sizes, np.int64), capacity)
    used = np.bincount(found, weights=sizes).astype(int).tolist() if sizes else []
    rooms: list[int] = []
    for size in sizes:
        fitting = [(room, row) for row, room in enumerate(rooms) if room >= size]
        row = min(fitting)[1] if fitting else len(rooms)
        rooms[row:row] = [] if fitting else [capacity]
        rooms[row] -= size
    assert sorted(capacity - room for room in rooms) == sorted(used)


def test_padding_is_small_and_rows_are_mixed(tmp_path: Path) -> None:
    rng = random.Random(1)
    shards = write(tmp_path, [rng.randint(5, 49) for _ in range(4000)])
    rows = PackedRows(shards, 128, 1)
    assert rows.padding() < 0.005
    full = [batch.tokens for batch in rows.epoch_batches(1)]
    assert sum(full) == int(shards.lengths.sum()) - 4000
    longest = [max(piece.length for piece in rows.pieces(position)) for position in range(rows.rows(0))]
    halves = np.mean(longest[: len(longest) // 2]), np.mean(longest[len(longest) // 2 :])
    assert abs(halves[0] - halves[1]) < 3


def test_updates_and_read_ahead(tmp_path: Path) -> None:
    loader = Loader(PackedRows(write(tmp_path, [30] * 50), 64, 1), 4)
    for start in (0, 7):
        stream = prefetch(loader, start, start + 5)
        for step, batch in enumerate(stream, start):
            same(batch, loader.update(step))
            assert batch.ids.shape == (4, 64)
    stream = prefetch(loader, 0)
    next(stream)
    stream.close()
    assert list(prefetch(loader, 3, 3)) == []
    parts = list(loader.update(0).micro_batches(3))
    assert [len(part) for part in parts] == [3, 1]
    assert loader.epoch(0) == 0
    assert 1 <= loader.epoch(loader.rows.rows(0) // 4 + 1) < 1.5
    with pytest.raises(UserError, match="0 rows"):
        Loader(loader.rows, 0)


def test_speed(tmp_path: Path) -> None:
    """A million tokens a second at documents of 100 tokens, by a wide margin on any machine."""
    with ShardWriter(tmp_path, "uint16") as writer:
        for _ in range(20_000):
            writer.add(np.arange(100))
    loader = Loader(PackedRows(TokenShards(tmp_path), 512, 1), 64)
    loader.update(0)
    begin = time.process_time()
    tokens = sum(loader.update(step).tokens for step in range(20))
    assert tokens / (time.process_time() - begin) > 1e6
