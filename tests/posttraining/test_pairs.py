"""Pairs in rows: each once, none too many, the prompt shared and the answers apart."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.posttraining import EncodedPair, PairSource, fit, pack
from groundup.posttraining.pairs import batch_of
from groundup.tokenizer import IGNORED

PAD = 1
tokens = st.integers(10, 99)
prompts = st.lists(tokens, min_size=1, max_size=9).map(tuple)
answers = st.lists(tokens, min_size=1, max_size=6).map(tuple)
pairs = st.builds(EncodedPair, prompts, answers, answers)
LENGTH = 22  # the longest pair takes 8 + 6 + 6


@given(st.lists(pairs, max_size=25))
def test_pack_places_every_pair_once_and_overfills_no_row(found):
    rows = pack(found, LENGTH)
    assert sorted(index for row in rows for index in row) == list(range(len(found)))
    assert all(row for row in rows)
    assert all(sum(found[index].places for index in row) <= LENGTH for row in rows)


def test_pack_fills_the_fullest_row_that_has_room():
    sizes = [10, 6, 5, 3, 2]
    found = [EncodedPair((0,) * (size - 1), (1,), (2,)) for size in sizes]
    assert [pair.places for pair in found] == sizes
    assert pack(found, 12) == [[0, 4], [1, 2], [3]]


@given(pairs, st.integers(1, 24))
def test_fit_cuts_the_one_prompt_from_the_left_or_gives_up(pair, length):
    found = fit(pair, length)
    if pair.places <= length:
        assert found is pair
    elif len(pair.chosen) + len(pair.rejected) > length:
        assert found is None
    else:
        assert found is not None
        assert found.places == length
        assert (found.chosen, found.rejected) == (pair.chosen, pair.rejected)
        assert len(found.prompt) >= 1
        assert pair.prompt[-len(found.prompt) :] == found.prompt


def test_a_pair_in_its_row_by_hand():
    pair = EncodedPair((10, 11, 12), (20, 21), (30, 31, 32))
    batch = batch_of([pair], np.array([[-1.5, -2.5]], np.float32), length=9, most=2, multiple=2, pad_id=PAD)
    none = IGNORED
    assert batch.ids.tolist() == [[10, 11, 12, 20, 12, 30, 31, PAD, PAD], [PAD] * 9]
    assert batch.targets[0].tolist() == [none, none, 20, 21, 30, 31, 32, none, none]
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 2, 3, 4, 0, 0]
    assert batch.documents[0].tolist() == [1] * 7 + [0, 0]
    assert batch.branches[0].tolist() == [0, 0, 1, 1, 2, 2, 2, 0, 0]
    assert batch.slots[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0]
    assert batch.present.tolist() == [[True, False], [False, False]]
    assert (batch.reference_chosen[0, 0], batch.reference_rejected[0, 0]) == (-1.5, -2.5)
    assert (batch.targets[1] == none).all()
    assert len(batch) == 2
    assert batch.tokens == 7


@settings(max_examples=60)
@given(st.lists(pairs, min_size=1, max_size=12), st.integers(1, 4))
def test_every_answer_can_be_read_back_from_a_batch(found, multiple):
    references = np.arange(2 * len(found), dtype=np.float32).reshape(-1, 2)
    most = LENGTH // min(pair.places for pair in found)
    batch = batch_of(found, references, length=LENGTH, most=most, multiple=multiple, pad_id=PAD)
    assert len(batch) % multiple == 0
    assert batch.tokens == sum(pair.places for pair in found)
    seen = []
    for row in range(len(batch)):
        for slot in np.flatnonzero(batch.present[row]):
            own = batch.documents[row] == slot + 1
            trunk = own & (batch.branches[row] == 0)
            sides = []
            for branch in (1, 2):
                side = own & (batch.branches[row] == branch)
                assert (batch.slots[row][side] == 2 * slot + branch - 1).all()
                prefix = np.concatenate([batch.ids[row][trunk], batch.ids[row][side]])
                positions = np.concatenate([batch.positions[row][trunk], batch.positions[row][side]])
                assert positions.tolist() == list(range(len(positions)))
                answer = tuple(batch.targets[row][side].tolist())
                assert (answer[:-1] == prefix[len(prefix) - len(answer) + 1 :]).all()
                sides.append((tuple(prefix[: len(prefix) - len(answer) + 1].tolist()), answer))
            assert sides[0][0] == sides[1][0]
            number = int(batch.reference_chosen[row, slot]) // 2
            assert batch.reference_rejected[row, slot] == references[number, 1]
            assert found[number] == EncodedPair(sides[0][0], sides[0][1], sides[1][1])
            seen.append(number)
        assert ((batch.targets[row] != IGNORED) <= (batch.branches[row] > 0)).all()
    assert sorted(seen) == list(range(len(found)))


def test_a_slice_holds_whole_rows_of_every_array():
    found = [EncodedPair((10, 11), (20,) * 5, (30,) * 5)] * 4
    batch = batch_of(found, np.zeros((4, 2), np.float32), length=LENGTH, most=2, multiple=1, pad_id=PAD)
    assert len(batch) == 2
    part = batch.slice(1, 2)
    assert len(part) == 1
    assert part.ids.tolist() == batch.ids[1:].tolist()
    assert part.present.shape == (1, 2)


def source(count: int, per_update: int, seed: int = 3) -> PairSource:
    found = [EncodedPair((10, 11), (20 + n,), (60, 61 + n)) for n in range(count)]
    return PairSource(
        found,
        np.arange(2 * count, dtype=np.float32).reshape(-1, 2),
        per_update=per_update,
        length=LENGTH,
        multiple=2,
        pad_id=PAD,
        seed=seed,
    )


@pytest.mark.parametrize(("count", "per_update"), [(12, 4), (10, 4), (3, 8), (7, 7)])
def test_each_pair_comes_once_an_epoch(count, per_update):
    updates = source(count, per_update)
    numbers = [n for step in range(3 * count) for n in updates.chosen_pairs(step)]
    for epoch in range(len(numbers) // count):
        assert Counter(numbers[epoch * count : (epoch + 1) * count]) == Counter(range(count))
    assert numbers[:count] != numbers[count : 2 * count]


def test_an_update_is_a_pure_function_of_its_number():
    one, other = source(10, 4), source(10, 4)
    forward = [one.update(step) for step in range(6)]
    backward = [other.update(step) for step in reversed(range(6))][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
        assert len(a) % 2 == 0
        assert int(a.present.sum()) == 4
    assert source(10, 4, seed=4).chosen_pairs(0) != one.chosen_pairs(0)
