"""Rows for new tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.model import Architecture, Transformer, grow_vocabulary, initialise, parameter_count

ARCH = Architecture(
    vocabulary_size=11,
    layers=2,
    hidden_size=16,
    heads=4,
    kv_heads=2,
    head_dim=4,
    intermediate_size=24,
    context_length=32,
)
PIECES = {11: [3], 12: [0, 4, 4], 13: []}


def make(**changes) -> Transformer:
    model = Transformer(ARCH.replace(**changes))
    initialise(model, 0)
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
def test_new_logits_are_the_means_of_their_pieces(tied, positions):
    model = make(tied_embeddings=tied, positions=positions)
    grown = grow_vocabulary(model, PIECES)
    assert grown.arch == model.arch.replace(vocabulary_size=14)
    assert parameter_count(grown.arch).total == sum(weight.numel() for weight in grown.parameters())
    ids = torch.arange(11)[None]
    with torch.no_grad():
        hidden = model(ids)
        assert torch.equal(grown(ids), hidden)
        before, after = model.logits(hidden), grown.logits(hidden)
    assert torch.allclose(after[..., :11], before, atol=1e-6)
    assert torch.allclose(after[..., 11], before[..., 3], atol=1e-6)
    assert torch.allclose(after[..., 12], (before[..., 0] + 2 * before[..., 4]) / 3, atol=1e-6)
    assert torch.allclose(after[..., 13], before.mean(-1), atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_every_other_weight_is_the_same_and_the_old_model_is_left_alone(tied):
    model = make(tied_embeddings=tied)
    start = {name: weight.clone() for name, weight in model.state_dict().items()}
    grown = grow_vocabulary(model, PIECES)
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    assert grown.state_dict().keys() == start.keys()
    for name, weight in grown.state_dict().items():
        assert torch.equal(weight[:11] if name in tables else weight, start[name])
        assert weight.data_ptr() != model.state_dict()[name].data_ptr()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, start[name])
    embedding = grown.model.embed_tokens
    assert (embedding.num_embeddings, tuple(embedding.weight.shape)) == (14, (14, 16))
    assert torch.allclose(embedding.weight[12], (start["model.embed_tokens.weight"][[0, 4, 4]]).mean(0), atol=1e-7)
    Transformer(grown.arch).load_state_dict(grown.state_dict())
    grown(torch.tensor([[11, 12, 13]])).sum().backward()
    assert embedding.weight.grad is not None
    assert embedding.weight.grad[11:].abs().sum() > 0


def test_value_embeddings_grow_by_the_mean_of_their_rows():
    """New logits are the means of their pieces' still, and a new token's values are the mean of its pieces' values."""
    model = make(value_embeddings=True, layers=3)
    grown = grow_vocabulary(model, PIECES)
    assert list(grown.model.value_embeddings) == ["0", "2"]
    for layer in ("0", "2"):
        old, new = model.model.value_embeddings[layer], grown.model.value_embeddings[layer]
        assert (new.num_embeddings, len(new.weight), len(old.weight)) == (14, 14, 11)
        assert torch.equal(new.weight[:11], old.weight)
        assert torch.equal(new.weight[11], old.weight[3])
        assert torch.allclose(new.weight[12], (old.weight[0] + 2 * old.weight[4]) / 3, atol=1e-7)
        assert torch.allclose(new.weight[13], old.weight.mean(0), atol=1e-7)
    ids = torch.arange(11)[None]
    with torch.no_grad():
        assert torch.equal(grown(ids), model(ids))
    Transformer(grown.arch).load_state_dict(grown.state_dict())


@pytest.mark.parametrize(
    "changes",
    [
        {"experts": {"count": 4, "per_token": 2}, "predict_ahead": 1},
        {"bigram_rows": 20, "x0_skip": True, "attention_sinks": True},
        {"kv_heads": 4, "qk_norm": "none", "latent": {"kv_rank": 8, "rotary_dim": 2}},
    ],
)
def test_other_options_stay_as_they_are(changes):
    model = make(**changes)
    grown = grow_vocabulary(model, {9: [1], 10: [2, 3], 11: []}, used=9)
    assert grown.arch.vocabulary_size == 12
    known = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(grown(known), model(known))
    for name, weight in grown.state_dict().items():
        if name != "model.embed_tokens.weight":
            assert torch.equal(weight, model.state_dict()[name])
    embedding = grown.model.embed_tokens.weight
    assert torch.equal(embedding[9], embedding[1])
    assert torch.allclose(embedding[11], embedding[:9].mean(0), atol=1e-7)


def test_dtype_mode_and_frozen_tables_are_kept():
    model = make(tied_embeddings=False).to(torch.bfloat16).train()
    model.lm_head.weight.requires_grad_(False)
    grown = grow_vocabulary(model, PIECES)
    assert {weight.dtype for weight in grown.parameters()} == {torch.bfloat16}
    assert grown.training
    assert not grown.lm_head.weight.requires_grad
    assert grown.model.embed_tokens.weight.requires_grad
    exact = model.lm_head.weight[[0, 4, 4]].double().mean(0)
    assert torch.equal(grown.lm_head.weight[12], exact.to(torch.bfloat16))


def test_no_random_state_is_touched():
    state = torch.random.get_rng_state()
    model = make()
    torch.random.set_rng_state(state)
    grow_vocabulary(model, PIECES)
    assert torch.equal(torch.random.get_rng_state(), state)


@given(used=st.integers(1, 11), count=st.integers(0, 6))
@settings(max_examples=25)
def test_rows_of_padding_are_filled_first(used, count):
    model = make()
    pieces = {used + number: [number % used, 0] for number in range(count)}
    grown = grow_vocabulary(model, pieces, used=used)
    old, new = model.model.embed_tokens.weight, grown.model.embed_tokens.weight
    assert grown.arch.vocabulary_size == len(new) == max(11, used + count)
    assert torch.equal(new[:used], old[:used])
    for number, parts in pieces.items():
        assert torch.allclose(new[number], (old[parts[0]] + old[0]) / 2, atol=1e-7)
    assert torch.equal(new[used + count :], old[used + count :])


@pytest.mark.parametrize(
    ("pieces", "used", "message"),
    [
        ({12: [1]}, None, "follow on from 11"),
        ({11: [1], 13: [1]}, None, "follow on from 11"),
        ({10: [1]}, None, "follow on from 11"),
        ({11: [11]}, None, "not all ids below 11"),
        ({11: [-1]}, None, "not all ids below 11"),
        ({8: [9]}, 8, "not all ids below 8"),
        ({12: [1]}, 12, "12 ids in use of a table of 11"),
        ({0: []}, 0, "0 ids in use"),
    ],
)
def test_bad_ids(pieces, used, message):
    with pytest.raises(ValueError, match=message):
        grow_vocabulary(make(), pieces, used=used)
