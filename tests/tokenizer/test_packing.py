"""Packed rows: nothing lost, nothing twice, nothing across documents, and any row from its number alone."""

import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.run import UserError
from groundup.tokenizer import (
    IGNORED,
    Batch,
    Buckets,
    PackedRows,
    ShardSource,
    ShardWriter,
    TokenShards,
)
from groundup.tokenizer.plan import Pieces, best_fit, dissolve, plan_epoch

lengths = st.lists(st.integers(0, 40), min_size=1, max_size=40).filter(lambda sizes: max(sizes) > 1)


def write(directory: Path, sizes: list[int], *, masked: bool = False, **options: Any) -> TokenShards:
    """Documents whose ids say where they stand: document d, token i is 50 d + i + 2."""
    with ShardWriter(directory, "uint32", pad_id=1, with_mask=masked, **options) as writer:
        for number, size in enumerate(sizes):
            ids = 50 * number + np.arange(size) + 2
            writer.add(ids, 0, ids % 3 == 0 if masked else None)
    return TokenShards(directory)


def targets_of(batch: Batch) -> Counter[int]:
    return Counter(batch.targets[batch.targets != IGNORED].tolist())


@settings(max_examples=100, deadline=None)
@given(
    sizes=lengths,
    sequence=st.integers(1, 24),
    seed=st.integers(0, 2**40),
    masked=st.booleans(),
    packing=st.sampled_from(["packed", "best_fit"]),
)
def test_every_target_exactly_once(
    sizes: list[int], sequence: int, seed: int, masked: bool, packing: Literal["packed", "best_fit"]
) -> None:
    with TemporaryDirectory() as name:
        shards = write(Path(name), sizes, masked=masked, shard_tokens=100)
        rows = PackedRows(shards, sequence, seed, packing=packing)
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
    assert rows.epochs.locate(rows.rows(0)) == (1, 0)
    assert rows.epochs.clip(10**6) == 10**6  # no source is limited
    with pytest.raises(ValueError, match="packing is 'bestfit'"):
        PackedRows(shards, 32, 1, packing="bestfit")  # type: ignore[arg-type]
    for missing in (0, 2**20 + 1):
        with pytest.raises(UserError, match="sequence_length"):
            PackedRows(shards, missing, 1)


def weighted(directory: Path, weight: float, epochs: float | None, count: int = 10) -> PackedRows:
    sources = [ShardSource("plain"), ShardSource("weighted", weight, epochs)]
    with ShardWriter(directory, "uint16", pad_id=1, sources=sources) as writer:
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


@pytest.mark.parametrize("sizes", [[], [1], [0, 0, 1, 1]])
def test_nothing_to_learn_from(tmp_path: Path, sizes: list[int]) -> None:
    shards = write(tmp_path, sizes)
    for make in (lambda: PackedRows(shards, 4, 1), lambda: Buckets(shards, 4, 8, 1)):
        with pytest.raises(UserError, match="no document has two tokens"):
            make()


def test_one_document_fills_rows_of_its_own(tmp_path: Path) -> None:
    rows = PackedRows(write(tmp_path, [12]), 4, 1)
    assert rows.rows(0) == 3  # eleven targets
    batch = rows.batch([5, 4, 3])
    assert sorted(batch.ids[:, 0].tolist()) == [2, 6, 10]
    assert targets_of(batch) == Counter(range(3, 14))
    assert batch.ids.dtype == batch.targets.dtype == batch.positions.dtype == batch.documents.dtype == np.int32


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
    rows = PackedRows(shards, 128, 1, packing="best_fit")
    assert rows.padding() < 0.005
    assert rows.cuts() == 0
    full = [batch.tokens for batch in rows.epoch_batches(1)]
    assert sum(full) == int(shards.lengths.sum()) - 4000
    longest = [max(piece.length for piece in rows.pieces(position)) for position in range(rows.rows(0))]
    halves = np.mean(longest[: len(longest) // 2]), np.mean(longest[len(longest) // 2 :])
    assert abs(halves[0] - halves[1]) < 3


packings: list[tuple[list[int], int]] = [
    ([70] * 900, 100),  # best fit leaves 30 % of every row empty
    ([66, 67, 68] * 500, 128),
    ([51] * 2000, 99),
    ([40] * 11, 64),
    ([3] * 5, 10),
]


@pytest.mark.parametrize(("sizes", "capacity"), packings)
def test_the_promise_about_padding(tmp_path: Path, sizes: list[int], capacity: int) -> None:
    """Fewer empty places than 0.1 %, or than one row; one row less would break it or could not hold the tokens."""
    shards = write(tmp_path, sizes)
    rows, whole = PackedRows(shards, capacity, 3), PackedRows(shards, capacity, 3, packing="best_fit")
    pairs = sum(sizes) - len(sizes)
    for epoch in (0, 1):
        count = rows.rows(epoch)
        empty = count * capacity - pairs
        assert empty < max(count * capacity / 1000, capacity)
        assert rows.padding(epoch) == pytest.approx(empty / (count * capacity), abs=1e-12)
        assert (count + 1) * capacity - pairs >= max((count + 1) * capacity / 1000, capacity)
        assert sum(batch.tokens for batch in rows.epoch_batches(64, epoch)) == pairs
        assert rows.cuts(epoch) <= whole.rows(epoch)  # at most one for each gap
        assert whole.cuts(epoch) == 0
        pieces = [piece for position in range(whole.rows(0)) for piece in whole.pieces(position)]
        assert len(pieces) == sum(-(-(size - 1) // capacity) for size in sizes)


def test_few_documents_are_cut_and_only_where_padding_asks_for_it() -> None:
    rng = np.random.default_rng(1)
    ones = np.ones(20_000, np.int64)
    for low, high in ((2, 400), (200, 600)):  # with and without short documents to fill gaps with
        sizes = rng.integers(low, high, 20_000)
        plan = plan_epoch(sizes, ones, 1024, 1, 0)
        whole = plan_epoch(sizes, ones, 1024, 1, 0, whole=True)
        padding = 1 - (sizes - 1).sum() / (len(whole) * 1024)
        assert (plan.cuts > 0) == (padding > 0.001)
        assert plan.cuts < 3 * padding * 20_000 or not plan.cuts
        if not plan.cuts:
            assert all(np.array_equal(getattr(plan, name), getattr(whole, name)) for name in ("documents", "rows"))


@settings(max_examples=100)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=120), st.integers(30, 60), st.randoms())
def test_dissolved_rows_are_laid_into_the_gaps(sizes: list[int], capacity: int, rng: random.Random) -> None:
    """Against the same thing one place at a time: loose places in order, into the largest gaps first."""
    sizes = sorted(sizes, reverse=True)
    rows = best_fit(np.array(sizes, np.int64), capacity)
    count = len(sizes)
    pieces = Pieces(np.arange(count, dtype=np.uint32), np.full(count, 7), np.array(sizes, np.uint32))
    keys = np.array([rng.getrandbits(63) for _ in sizes], np.uint64)
    new, new_rows, new_keys = dissolve(pieces, rows, keys, capacity)

    used = np.bincount(rows, sizes).astype(int).tolist()
    kept = max(
        -(-sum(sizes) // capacity), next(n for n in range(count + 1) if (n + 1) * capacity * 999 >= 1000 * sum(sizes))
    )
    gone = sorted(range(len(used)), key=lambda row: (used[row], row))[: max(0, len(used) - kept)]
    stay = [row for row in range(len(used)) if row not in gone]
    places = [
        (row, i)
        for row in sorted(range(len(stay)), key=lambda r: (used[stay[r]], r))
        for i in range(capacity - used[stay[row]])
    ]
    loose = [(piece, i) for piece in range(count) if rows[piece] in gone for i in range(sizes[piece])]
    expected = {
        (piece, 7 + i, stay.index(int(rows[piece])))
        for piece in range(count)
        if rows[piece] in stay
        for i in range(sizes[piece])
    }
    expected |= {(piece, 7 + i, row) for (piece, i), (row, _) in zip(loose, places, strict=False)}
    found = [
        (int(document), int(start) + i, int(row))
        for document, start, length, row in zip(new.documents, new.starts, new.lengths, new_rows, strict=True)
        for i in range(length)
    ]
    assert len(found) == len(set(found)) == sum(sizes)
    assert set(found) == expected
    assert np.array_equal(new_keys, keys[new.documents])


def test_a_shard_is_found_for_every_piece(tmp_path: Path) -> None:
    """Documents in many files, among them empty ones: each row's ids against those of its documents."""
    sizes = [0, 9, 0, 30, 1, 12, 25, 0, 3, 17]
    shards = write(tmp_path, sizes, masked=True, shard_tokens=12)
    assert len(shards.index["shards"]) > 4
    rows = PackedRows(shards, 16, 2)
    for position in range(rows.rows(0)):
        batch, at = rows.row(position), 0
        for number, piece in enumerate(rows.pieces(position), 1):
            tokens = shards.doc(piece.document)[piece.start : piece.start + piece.length + 1].tolist()
            mask = shards.mask(piece.document)
            assert mask is not None
            learned = mask[piece.start + 1 : piece.start + piece.length + 1]
            end = at + piece.length
            assert batch.ids[0, at:end].tolist() == tokens[:-1]
            assert batch.targets[0, at:end].tolist() == np.where(learned, tokens[1:], IGNORED).tolist()
            assert set(batch.documents[0, at:end].tolist()) == {number}
            at = end
        assert np.all(batch.ids[0, at:] == 1)


@settings(max_examples=60)
@given(sizes=lengths, factor=st.integers(1, 4), short=st.integers(1, 8), masked=st.booleans())
def test_shortened_rows_lose_nothing(sizes: list[int], factor: int, short: int, masked: bool) -> None:
    with TemporaryDirectory() as name:
        rows = PackedRows(write(Path(name), sizes, masked=masked), factor * short, 1)
        for batch in rows.epoch_batches(3):
            shown = batch.shortened(short)
            assert shown.ids.shape == (factor * len(batch), short)
            check(shown, masked)
            assert shown.tokens == batch.tokens
            assert np.array_equal(shown.targets.ravel(), batch.targets.ravel())
            # who may see whom: the same as before, but not across the new borders
            before = batch.documents.reshape(-1, short)
            for old, new in zip(before, shown.documents, strict=True):
                assert np.array_equal(old[:, None] == old, new[:, None] == new)
        if factor > 1:
            with pytest.raises(ValueError, match="can't be shown"):
                rows.row(0).shortened(factor * short + 1)
