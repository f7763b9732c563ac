"""Ramps of batch sizes: the same rows in the same order in smaller updates, and budgets that come out."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.run import UserError
from groundup.tokenizer import Batch, Buckets, Loader, PackedRows, Prefetch, ShardSource, ShardWriter, UpdateSizes
from groundup.tokenizer import TokenShards as Shards

FIELDS = ("ids", "targets", "positions", "documents")
SIZES = [3 + (7 * number) % 41 for number in range(60)]
UNTIL = st.lists(st.floats(0.01, 0.99), min_size=0, max_size=4, unique=True).map(sorted)


@st.composite
def ramps(draw: st.DrawFn, *, nested: bool = False) -> UpdateSizes:
    """Of up to four steps and 40 units; nested ones of sizes that divide each other."""
    shares = draw(UNTIL)
    if nested:
        factors = draw(st.lists(st.integers(1, 4), min_size=len(shares) + 1, max_size=len(shares) + 1))
        *sizes, whole = np.cumprod(factors).tolist()
    else:
        sizes = draw(st.lists(st.integers(1, 40), min_size=len(shares), max_size=len(shares)).map(sorted))
        whole = draw(st.integers(max(sizes, default=1), 40))
    return UpdateSizes(whole, list(zip(shares, sizes, strict=True)), nested=nested)


def size_at(sizes: UpdateSizes, step: int, steps: int) -> int:
    """The size that the ramp gives one update, as the recipe says it."""
    return next((size for until, size in sizes.ramp if step < until * steps), sizes.whole)


@settings(max_examples=150)
@given(sizes=ramps() | ramps(nested=True), steps=st.integers(1, 60))
def test_where_an_update_begins_is_the_sum_of_those_before(sizes: UpdateSizes, steps: int) -> None:
    at = 0
    for step in range(steps):
        assert sizes.taken(step, steps) == at
        size = size_at(sizes, step, steps)
        at += size - (at % size if sizes.nested else 0)  # to the end of the part that it is in
    assert sizes.taken(steps, steps) == at
    assert sizes.taken(steps + 3, steps) == at + 3 * sizes.whole - (at % sizes.whole if sizes.nested else 0)
    assert sizes.worth(steps) == at / sizes.whole


@settings(max_examples=150)
@given(sizes=ramps() | ramps(nested=True), updates=st.floats(0, 50))
def test_the_shortest_stage_that_takes_so_much(sizes: UpdateSizes, updates: float) -> None:
    fewest = sizes.fewest(updates)
    assert sizes.worth(fewest) >= updates
    assert fewest == 0 or sizes.worth(fewest - 1) < updates
    worth = [sizes.worth(steps) for steps in range(80)]
    assert worth == sorted(worth)
    # Of a stage that is cut to what there is, no update but the last goes beyond it.
    assert fewest == 0 or sizes.taken(fewest - 1, fewest) / sizes.whole < updates


def test_a_ramp_by_hand() -> None:
    sizes = UpdateSizes(8, [(0.25, 2), (0.5, 3)])
    assert [sizes.taken(step, 8) for step in range(9)] == [0, 2, 4, 7, 10, 18, 26, 34, 42]
    assert sizes.worth(8) == 42 / 8
    assert sizes.fewest(42 / 8) == 8
    assert sizes.fewest(43 / 8) == 9
    nested = UpdateSizes(8, [(0.3, 2), (0.5, 4)], nested=True)  # 2 2 2 | the other 2 of the part | the other 4 | 8 …
    assert [nested.taken(step, 9) for step in range(10)] == [0, 2, 4, 6, 8, 12, 16, 24, 32, 40]
    plain = UpdateSizes(8)
    assert [plain.taken(step, None) for step in range(3)] == [0, 8, 16]
    assert [plain.fewest(updates) for updates in (0.0, 2.0, 2.01)] == [0, 2, 3]


@pytest.mark.parametrize(
    ("ramp", "nested"),
    [
        ([(0.5, 9)], False),
        ([(0.5, 4), (0.6, 2)], False),
        ([(0.5, 2), (0.4, 4)], False),
        ([(0.5, 0)], False),
        ([(1.5, 4)], False),
        ([(0.5, 3)], True),
        ([(0.5, 2), (0.6, 3)], True),
    ],
)
def test_what_is_no_ramp(ramp: list[tuple[float, int]], nested: bool) -> None:
    with pytest.raises(ValueError, match="are no ramp"):
        UpdateSizes(8, ramp, nested=nested)


def write(directory: Path, epochs: float | None = None) -> Shards:
    """Document d, token i is 50 d + i + 2."""
    with ShardWriter(directory, "uint32", pad_id=1, sources=[ShardSource("a", 1.0, epochs)]) as writer:
        for number, size in enumerate(SIZES):
            writer.add(50 * number + np.arange(size) + 2)
    return Shards(directory)


@pytest.fixture(scope="module")
def shards() -> Shards:
    with TemporaryDirectory() as name:
        yield write(Path(name))


@pytest.fixture(scope="module")
def limited() -> Shards:
    with TemporaryDirectory() as name:
        yield write(Path(name), epochs=2)


def rows_of(batches: list[Batch]) -> list[bytes]:
    """All rows in order, each in all its fields."""
    arrays = [[getattr(batch, field) for field in FIELDS] for batch in batches]
    return [b"".join(row.tobytes() for row in rows) for batch in arrays for rows in zip(*batch, strict=True)]


@settings(max_examples=40, deadline=None)
@given(sizes=ramps(), steps=st.integers(1, 25), packing=st.sampled_from(["packed", "best_fit"]))
def test_packed_rows_come_in_the_order_that_they_have_without_a_ramp(
    shards: Shards, sizes: UpdateSizes, steps: int, packing: str
) -> None:
    rows = PackedRows(shards, 16, 5, packing=packing)
    loader = Loader(rows, sizes.whole, ramp=sizes.ramp)
    loader.end = steps
    updates = [loader.update(step) for step in range(steps)]
    assert [len(batch) for batch in updates] == [size_at(sizes, step, steps) for step in range(steps)]
    total = sizes.taken(steps, steps)
    assert rows_of(updates) == rows_of([rows.batch(range(total))])
    assert loader.passes(steps) == rows.epochs.passes(total)
    for rank in range(3):
        part = Loader(rows, sizes.whole, ramp=sizes.ramp, rank=rank, world=3)
        part.end = steps
        mine = updates[steps // 2].slice(*(len(updates[steps // 2]) * at // 3 for at in (rank, rank + 1)))
        assert rows_of([part.update(steps // 2)]) == rows_of([mine])


@settings(max_examples=40, deadline=None)
@given(sizes=ramps(nested=True), steps=st.integers(1, 40))
def test_padded_rows_too_and_each_update_in_one_length(shards: Shards, sizes: UpdateSizes, steps: int) -> None:
    plain = Buckets(shards, 24, 24 * sizes.whole, 5)
    loader = Buckets(shards, 24, 24 * sizes.whole, 5, ramp=[(until, 24 * size) for until, size in sizes.ramp])
    loader.end = steps
    found = rows_of([loader.update(step) for step in range(steps)])
    whole, part = divmod(sizes.taken(steps, steps), sizes.whole)
    expected = [plain.update(step) for step in range(whole)]
    if part:
        last = plain.update(whole)
        expected.append(last.slice(0, len(last) * part // sizes.whole))
    assert found == rows_of(expected)
    before, after = plain.passes(whole), plain.passes(whole + 1)
    assert loader.passes(steps) == pytest.approx(before + part / sizes.whole * (after - before))
    parts = [Buckets(shards, 24, 24 * sizes.whole, 5, ramp=loader.sizes.ramp, rank=rank, world=2) for rank in range(2)]
    for each in parts:
        each.end = steps
    assert rows_of([each.update(steps // 2) for each in parts]) == rows_of([loader.update(steps // 2)])


@pytest.mark.parametrize("kind", ["packed", "padded"])
@settings(max_examples=30, deadline=None)
@given(sizes=ramps(nested=True))
def test_limited_data_are_read_to_the_last_row_and_no_further(limited: Shards, kind: str, sizes: UpdateSizes) -> None:
    ramp = [(until, 24 * size) for until, size in sizes.ramp]
    loader: Loader | Buckets
    if kind == "packed":
        loader = Loader(PackedRows(limited, 24, 5), sizes.whole, ramp=sizes.ramp)
    else:
        loader = Buckets(limited, 24, 24 * sizes.whole, 5, ramp=ramp)
    steps = loader.first_updates(10**6)
    assert steps == loader.first_updates(steps) < 10**6
    assert loader.first_updates(max(1, steps - 1)) == max(1, steps - 1)
    loader.end = steps
    with Prefetch(loader, 0, steps) as stream:
        assert sum(batch.tokens for batch in stream) == 2 * (limited.tokens - len(limited))
    assert loader.passes(steps) == 2
    with pytest.raises(UserError, match="used up after"):
        loader.update(steps)


def test_a_ramp_needs_an_end_and_updates_of_one_size_do_not(shards: Shards) -> None:
    loader = Loader(PackedRows(shards, 16, 5), 8, ramp=[(0.5, 2)])
    with pytest.raises(ValueError, match="shares of the steps"):
        loader.update(0)
    small, plain = loader.of_size(2), Loader(loader.rows, 2)
    assert rows_of([small.update(step) for step in range(9)]) == rows_of([plain.update(step) for step in range(9)])
    buckets = Buckets(shards, 24, 96, 5, ramp=[(0.5, 24)])
    quarters = [buckets.of_size(24).update(step) for step in range(12)]
    assert rows_of(quarters) == rows_of([buckets.of_size(96).update(step) for step in range(3)])
    assert max(batch.ids.size for batch in quarters) <= 2 * 24
    assert math.isclose(buckets.of_size(24).passes(8), buckets.of_size(96).passes(2))
    assert buckets.of_size(24).first_updates(7) == 7
