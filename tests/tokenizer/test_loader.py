"""Updates: the same after any interruption and for any number of processes, and read ahead without being lost."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from groundup.run import UserError
from groundup.tokenizer import IGNORED, Batch, Buckets, Loader, PackedRows, Prefetch, Ramp, ShardSource, ShardWriter
from groundup.tokenizer import TokenShards as Shards

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
    updates = parts[0].updates()
    assert updates is not None
    seen: Counter[int] = Counter()
    for part in parts:
        for step in range(updates):
            batch = part.update(step)
            seen.update(batch.targets[batch.targets != IGNORED].tolist())
    assert seen == TARGETS + TARGETS
    assert parts[0].first_updates(updates + 9) == updates
    assert parts[0].first_updates(3) == 3
    with pytest.raises(UserError, match="used up after"):
        parts[0].update(updates)


def test_a_corpus_that_is_used_up_says_so(tmp_path: Path) -> None:
    shards = write(tmp_path, [3] * 9, epochs=2)
    loader = Loader(PackedRows(shards, 4, 1), 2)
    assert loader.rows.available() == 10  # two documents a row, nine documents: five rows, twice
    assert loader.updates() == 5
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
    assert loader.updates() == 0
    assert loader.rows.padding() == 0
    with pytest.raises(UserError, match="used up after 0 rows"):
        loader.update(0)


def test_updates_and_epochs(tmp_path: Path) -> None:
    loader = Loader(PackedRows(write(tmp_path, [30] * 50), 64, 1), 4)
    assert loader.updates() is None
    assert loader.update(0).ids.shape == (4, 64)
    assert [len(part) for part in loader.update(0).micro_batches(3)] == [3, 1]
    assert loader.epoch(0) == 0
    assert 1 <= loader.epoch(loader.rows.rows(0) // 4 + 1) < 1.5
    with pytest.raises(UserError, match="0 rows"):
        Loader(loader.rows, 0)


def test_the_next_epoch_is_planned_before_it_is_needed(tmp_path: Path) -> None:
    rows = PackedRows(write(tmp_path, SIZES), 16, 5)
    made: list[int] = []
    make = rows.epochs._make
    rows.epochs._make = lambda epoch: (made.append(epoch), make(epoch))[1]
    loader = Loader(rows, 7)
    loader.update(0)
    assert made == [0]
    loader.update(rows.rows(0) // 14 + 1)
    for _ in range(200):
        if made == [0, 1]:
            break
        time.sleep(0.01)
    assert made == [0, 1]


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
