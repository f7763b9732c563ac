"""Predicting further tokens: what each state knows, and what it is asked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.model import (
    IGNORE,
    Architecture,
    PackedMask,
    cross_entropy_sum,
    fresh_model,
    parameter_count,
    targets_ahead,
)
from groundup.training.objective import NextToken

ARCH = Architecture(
    vocabulary_size=31,
    layers=2,
    hidden_size=16,
    heads=4,
    kv_heads=2,
    intermediate_size=24,
    predict_ahead=3,
    residual_start="scaled",
)


def make(**changes):
    return fresh_model(ARCH.replace(**changes), 0).eval()


def states_of(model, ids, **where):
    with torch.no_grad():
        return model.look_ahead(model(ids, **where), ids, **where)


def some_ids(*shape, seed=0):
    return torch.randint(0, 31, shape, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=14), st.integers(1, 4))
def test_targets_ahead_by_their_definition(documents, count):
    documents = sorted(documents, key=lambda d: d or 9)
    targets = [IGNORE if d == 0 else 100 + t for t, d in enumerate(documents)]
    found = targets_ahead(torch.tensor([targets]), torch.tensor([documents]), count)[0].tolist()
    for t, d in enumerate(documents):
        inside = t + count < len(documents) and d > 0 and documents[t + count] == d
        assert found[t] == (targets[t + count] if inside else IGNORE)


def test_a_state_knows_so_many_further_ids_and_no_more():
    """The k-th state of place t is unmoved, bit for bit, by any id after t + k, and moved by that at t + k."""
    model, ids, other = make(), some_ids(1, 12), some_ids(1, 12, seed=1)
    other = torch.where(other == ids, (ids + 1) % 31, other)
    before = states_of(model, ids)
    assert len(before) == 3
    for changed in range(1, 12):
        after = states_of(model, torch.cat((ids[:, :changed], other[:, changed:]), 1))
        for k, (old, new) in enumerate(zip(before, after, strict=True), start=1):
            still = max(0, changed - k)
            assert torch.equal(new[:, :still], old[:, :still])
            if changed - k >= 0:
                assert not torch.equal(new[:, changed - k], old[:, changed - k])


def test_no_scored_place_sees_its_target_or_another_document():
    """Over packed rows: other ids in one document, or at the row's begin, where the shift wraps around, move no scored
    state of the others."""
    model = make(bigram_rows=20, norm_placement="sandwich")
    documents = torch.tensor([[1] * 5 + [2] * 6 + [0] * 3])
    places = torch.tensor([[*range(5), *range(6), 0, 0, 0]])
    ids, other = some_ids(1, 14), some_ids(1, 14, seed=1)
    targets = torch.where(documents > 0, ids.roll(-1, 1), IGNORE)
    targets[0, [4, 10]] = IGNORE
    where = {"positions": places, "mask": PackedMask(documents)}
    before = states_of(model, ids, **where)
    for changed in (slice(0, 5), slice(5, 11), slice(11, 14)):
        new = ids.clone()
        new[:, changed] = other[:, changed]
        for k, (a, b) in enumerate(zip(before, states_of(model, new, **where), strict=True), start=1):
            scored = targets_ahead(targets, documents, k)[0] != IGNORE
            scored[changed] = False
            assert torch.equal(a[0, scored], b[0, scored])
    for place in range(1, 14):
        for k in (1, 2, 3):
            asked = place - k - 1  # the place whose k-th state is asked for the id at `place`
            if asked < 0 or targets_ahead(targets, documents, k)[0, asked] == IGNORE:
                continue
            assert targets_ahead(targets, documents, k)[0, asked] == ids[0, place]
            new = ids.clone()
            new[0, place] = (new[0, place] + 1) % 31
            assert torch.equal(states_of(model, new, **where)[k - 1][0, asked], before[k - 1][0, asked])


def test_the_loss_is_the_mean_over_the_distances():
    model, ids = make(), some_ids(2, 9)
    batch = {
        "ids": ids,
        "targets": torch.cat((ids[:, 1:], torch.full((2, 1), IGNORE)), 1),
        "documents": torch.ones(2, 9, dtype=torch.long),
        "positions": torch.arange(9).repeat(2, 1),
    }
    _, parts = NextToken().loss(model, batch)
    expected = 0.0
    for k, state in enumerate(states_of(model, ids), start=1):
        wanted = torch.cat((ids[:, k + 1 :], torch.full((2, k + 1), IGNORE)), 1)
        expected += cross_entropy_sum(state, model.head, wanted).item() / 3
    assert parts["ahead"].item() == pytest.approx(expected, rel=1e-5)


def test_the_model_itself_does_not_change():
    plain, ids = make(predict_ahead=0), some_ids(1, 8)
    ahead = make()
    ahead.load_state_dict({**ahead.state_dict(), **plain.state_dict()})
    with torch.no_grad():
        assert torch.equal(ahead(ids), plain(ids))
    assert plain.look_ahead(plain(ids), ids) == []
    assert parameter_count(ahead.arch).total == sum(weight.numel() for weight in ahead.parameters())
    assert not any("embed" in name.split(".")[-2] for name, w in ahead.model.ahead.named_parameters() if w.ndim > 1)
