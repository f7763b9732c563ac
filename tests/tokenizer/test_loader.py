"""Updates: the same after any interruption and for any number of processes, and read ahead without being lost."""

import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from groundup.run import UserError
from groundup.tokenizer import IGNORED, Batch, Buckets, Loader, PackedRows, Prefetch, Ramp, ShardSource, ShardWriter
from groundup.tokenizer import TokenShards as Shards
from groundup.tokenizer import epochs as epochs_module
from groundup.tokenizer.epochs import Epochs
from groundup.tokenizer.plan import Plan

FIELDS = ("ids", "targets", "positions", "documents")
WORLDS = (1, 2, 3, 4, 8)


def same(one: Batch, other: Batch) -> None:
    for field in FIELDS:
        assert np.array_equal(getattr(one, field), getattr(other, field))


def write(directory: Path, sizes: list[int], epochs: float | None = None) -> Shards:
    """Document d, token i is 50 d + i + 2."""
    with ShardWriter(
        directory, "uint32", pad_id=1, sources=[ShardSource("a", 1.0, epochs)], shard_tokens=400
    ) as writer:
        for number, size in enumerate(sizes):
            writer.add(50 * number + np.arange(size) + 2)
    return Shards(directory)


SIZES = [3 + (7 * number) % 41 for number in range(60)]
TARGETS = Counter(50 * number + i + 2 for number, size in enumerate(SIZES) for i in range(1, size))


def loaders(shards: Shards, **ranks: int) -> list[Loader | Buckets]:
    rows = (PackedRows(shards, 16, 5), PackedRows(shards, 16, 5, packing="best_fit"))
    return [*(Loader(each, 7, **ranks) for each in rows), Buckets(shards, 24, 112, 5, **ranks)]


@pytest.mark.parametrize("kind", range(3))
def test_any_update_after_any_interruption_and_in_any_world(tmp_path: Path, kind: int) -> None:
    shards = write(tmp_path, SIZES)
    whole = loaders(shards)[kind]
    expected = {step: whole.update(step) for step in range(40)}
    for world in WORLDS:
        parts = [loaders(Shards(tmp_path), rank=rank, world=world)[kind] for rank in range(world)]
        for step in (0, 31, 8, 39, 9):
            shares = [part.update(step) for part in parts]
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
            for field in FIELDS:
                found = np.concatenate([getattr(each, field) for each in shares])
                assert np.array_equal(found, getattr(expected[step], field))
    for rank, world in ((1, 1), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="ranks are"):
            loaders(shards, rank=rank, world=world)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("kind", range(3))
def test_all_updates_of_limited_sources_serve_every_target_so_often(tmp_path: Path, kind: int, world: int) -> None:
    """To the last row of the last epoch, whose update is short."""
    parts = [
        loaders(write(tmp_path / str(rank), SIZES, epochs=2), rank=rank, world=world)[kind] for rank in range(world)
    ]
    updates = parts[0].first_updates(10**9)
    seen: Counter[int] = Counter()
    for part in parts:
        for step in range(updates):
            batch = part.update(step)
            seen.update(batch.targets[batch.targets != IGNORED].tolist())
    assert seen == TARGETS + TARGETS
    assert 0 < updates == parts[0].first_updates(updates + 9)
    assert parts[0].first_updates(3) == 3
    with pytest.raises(UserError, match="used up after"):
        parts[0].update(updates)


def test_a_corpus_that_is_used_up_says_so(tmp_path: Path) -> None:
    shards = write(tmp_path, [3] * 9, epochs=2)
    loader = Loader(PackedRows(shards, 4, 1), 2)
    assert loader.rows.epochs.clip(10**9) == 10  # two documents a row, nine documents: five rows, twice
    assert loader.first_updates(10**9) == 5
    assert len(Loader(loader.rows, 4).update(2)) == 2
    with Prefetch(loader, 4) as stream:
        same(next(stream), loader.update(4))
        with pytest.raises(UserError, match="used up after 10 rows"):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)


def test_no_source_is_ever_shown(tmp_path: Path) -> None:
    """Half an epoch of one document is none."""
    loader = Loader(PackedRows(write(tmp_path, [3], epochs=0.5), 4, 1), 2)
    assert loader.first_updates(10**9) == 0
    assert loader.rows.padding() == 0
    with pytest.raises(UserError, match="used up after 0 rows"):
        loader.update(0)


def test_an_update_has_rows(tmp_path: Path) -> None:
    loader = Loader(PackedRows(write(tmp_path, [30] * 50), 64, 1), 4)
    assert loader.first_updates(10**9) == 10**9
    assert loader.update(0).ids.shape == (4, 64)
    with pytest.raises(UserError, match="0 rows"):
        Loader(loader.rows, 0)


def planned(epochs: Epochs) -> list[int]:
    """A list that each epoch planned from now on is put into."""
    made: list[int] = []
    make = epochs._make
    epochs._make = lambda epoch, copies: (made.append(epoch), make(epoch, copies))[1]
    return made


def test_the_next_epoch_is_planned_before_it_is_needed(tmp_path: Path) -> None:
    rows = PackedRows(write(tmp_path, SIZES), 16, 5)
    made = planned(rows.epochs)
    loader = Loader(rows, 7)
    loader.update(0)
    assert made == [0]
    loader.update(rows.rows(0) // 14 + 1)
    for _ in range(200):
        if made == [0, 1]:
            break
        time.sleep(0.01)
    assert made == [0, 1]


@pytest.mark.parametrize("kind", range(3))
def test_only_epochs_that_are_read_are_planned(tmp_path: Path, kind: int) -> None:
    loader = loaders(write(tmp_path / "free", SIZES), rank=0)[kind]
    epochs = loader.epochs if isinstance(loader, Buckets) else loader.rows.epochs
    made = planned(epochs)
    loader.end = one = epochs.count(0) // (1 if isinstance(loader, Buckets) else 7)
    for step in range(one):
        loader.update(step)
    time.sleep(0.05)
    assert made == [0]
    far = loaders(write(tmp_path / "far", SIZES), rank=0)[kind]
    epochs = far.epochs if isinstance(far, Buckets) else far.rows.epochs
    made, far.end = planned(epochs), 0
    far.update(25 * one)
    assert len(made) <= 2  # an update may touch two epochs
    assert min(made) >= 24
    limited = loaders(write(tmp_path / "limited", SIZES, epochs=30), rank=0)[kind]
    made = planned(limited.epochs if isinstance(limited, Buckets) else limited.rows.epochs)
    assert limited.first_updates(10**9) >= 30 * one
    assert made == []


@pytest.mark.parametrize(("weight", "epochs"), [(1.0, None), (0.3, None), (2.5, 4), (0.7, 1.5), (3, 7)])
@pytest.mark.parametrize("kind", range(3))
def test_rows_are_counted_as_they_are_planned(tmp_path: Path, kind: int, weight: float, epochs: float | None) -> None:
    with ShardWriter(
        tmp_path, "uint32", pad_id=1, sources=[ShardSource("a", weight, epochs), ShardSource("b")]
    ) as writer:
        for number, size in enumerate([*SIZES, 0, 1, 200]):
            writer.add(np.arange(size), number % 2)
    loader = loaders(Shards(tmp_path))[kind]
    plans = loader.epochs if isinstance(loader, Buckets) else loader.rows.epochs
    counted = [plans.count(epoch) for epoch in range(9)]
    assert counted == [len(plans.plan(epoch)) for epoch in range(9)]
    assert plans.first(9) == sum(counted)


def test_a_plan_that_failed_is_made_again(tmp_path: Path) -> None:
    rows = PackedRows(write(tmp_path, SIZES), 16, 5)
    make, failed = rows.epochs._make, iter([KeyboardInterrupt(), MemoryError()])

    def sometimes(epoch: int, copies: np.ndarray) -> Plan:
        if error := next(failed, None):
            raise error
        return make(epoch, copies)

    rows.epochs._make = sometimes
    with pytest.raises(KeyboardInterrupt):
        rows.plan(0)
    with pytest.raises(MemoryError):
        rows.plan(0)
    assert len(rows.plan(0)) == rows.rows(0)


def test_a_source_without_targets_does_not_count_as_endless(tmp_path: Path) -> None:
    sources = [ShardSource("text", 1.0, 2), ShardSource("single tokens")]
    with ShardWriter(tmp_path, "uint32", pad_id=1, sources=sources) as writer:
        writer.add(np.arange(9), 0)
        writer.add(np.arange(1), 1)
    with pytest.raises(UserError, match="used up after 2 rows"):
        PackedRows(Shards(tmp_path), 8, 1).row(2)


def test_epochs_that_show_nothing_are_passed_over(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a", "uint32", pad_id=1, sources=[ShardSource("a", 0.25)]) as writer:
        writer.add(np.arange(9))
    rows = PackedRows(Shards(tmp_path / "a"), 8, 1)
    assert [rows.rows(epoch) for epoch in range(8)] == [0, 0, 0, 1, 0, 0, 0, 1]
    assert rows.epochs.first_filled() == 3
    assert rows.rows_in(8) == 2
    none = PackedRows(write(tmp_path / "b", [3], epochs=0.5), 4, 1)
    for ask in (none.epochs.first_filled, lambda: none.rows_in(1)):
        with pytest.raises(UserError, match="used up after 0 rows"):
            ask()


def test_slow_counting_is_shown_and_quick_counting_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(epochs_module, "progress", lambda what, **_: shown.append(what) or nullcontext())
    rows = PackedRows(write(tmp_path, SIZES), 16, 5)
    rows.rows(0)
    rows.plan(0)
    assert shown == []
    monkeypatch.setattr(epochs_module, "SHOWN", 0.01)
    make = rows.epochs._make
    rows.epochs._make = lambda epoch, copies: (time.sleep(0.1), make(epoch, copies))[1]
    rows.plan(1)
    assert shown == ["planning an epoch"]


def test_an_end_of_reading_that_is_an_error_is_raised() -> None:
    class Broken:
        def update(self, step: int) -> int:
            return next(iter([step] if step < 3 else []))

    with Prefetch(Broken(), 0, 10) as stream:
        assert [next(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="update 3 raised StopIteration"):
            next(stream)


class Slow:
    """Updates 0, 1, 2, …, the first after a tenth of a second, the others after a hundredth."""

    def update(self, step: int) -> int:
        time.sleep(0.01 if step else 0.1)
        return step


def test_read_ahead_yields_all_in_order_and_measures_the_waiting() -> None:
    with Prefetch(Slow(), 0, 6) as stream:
        assert list(stream) == [0, 1, 2, 3, 4, 5]
    assert stream.started >= 0.09
    assert 0.03 <= stream.waited < stream.started + 5
    idle = Prefetch(Slow(), 1, 4)
    time.sleep(0.2)
    assert next(idle) == 1
    assert idle.started < 0.1
    idle.close()
    assert list(idle) == []
    assert not idle._thread.is_alive()
    assert list(Prefetch(Slow(), 3, 3)) == []


def test_leaving_the_block_by_an_error_stops_the_thread() -> None:
    stream = Prefetch(Slow(), 1)

    def fail() -> None:
        with stream:
            raise RuntimeError(next(stream))

    with pytest.raises(RuntimeError, match="1"):
        fail()
    assert not stream._thread.is_alive()


def test_a_ramp_of_lengths(tmp_path: Path) -> None:
    loader = Loader(PackedRows(write(tmp_path, SIZES), 16, 5), 6)
    ramp = Ramp(loader, [(0.25, 4), (0.5, 8)], 10)
    assert [ramp.length(step) for step in range(10)] == [4] * 3 + [8] * 2 + [None] * 5
    for step, shape in ((0, (24, 4)), (2, (24, 4)), (3, (12, 8)), (4, (12, 8)), (5, (6, 16)), (40, (6, 16))):
        batch = Ramp(loader, [(0.25, 4), (0.5, 8)], 10).update(step)
        assert batch.ids.shape == shape
        assert batch.positions.max() < shape[1]
        assert np.array_equal(batch.targets.ravel(), loader.update(step).targets.ravel())
