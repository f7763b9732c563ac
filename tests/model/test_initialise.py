"""The start of attention as look-up: what fresh heads look at, and what they copy."""

import dataclasses
import functools

import pytest
import torch

from groundup.model import Architecture, Transformer, attention_weights, initialise, renew_blocks

ARCH = Architecture(
    vocabulary_size=300,
    layers=3,
    hidden_size=128,
    heads=4,
    kv_heads=4,
    head_dim=32,
    intermediate_size=64,
    context_length=256,
    rope_theta=1e6,
    initializer_range=0.3,
    attention_start="lookup",
)


@functools.cache
def fresh(**changes):
    model = Transformer(dataclasses.replace(ARCH, **changes))
    initialise(model, 3)
    return model


def different_tokens(count, seed=0):
    return torch.randperm(300, generator=torch.Generator().manual_seed(seed))[:count]


def test_half_of_the_first_heads_look_one_back_the_others_a_few_back():
    first = attention_weights(fresh(), different_tokens(200))[0]
    for head in (0, 1):
        assert first[head].diagonal(-1)[10:].mean() > 0.6
    for head in (2, 3):
        near = sum(first[head].diagonal(-back)[40:].mean() for back in range(1, 6))
        assert near > 0.7
        assert first[head].diagonal(-3)[40:].mean() > first[head].diagonal(-6)[40:].mean()


def weight_on(target, head, said_again_at):
    """Mean over texts of 120 tokens of the weight that a head of the second block gives from the last token."""
    total = 0.0
    for seed in range(20):
        ids = different_tokens(120, seed)
        ids[said_again_at] = ids[40]
        total += attention_weights(fresh(), ids)[1][head, -1, target].item() / 20
    return total


def test_an_induction_head_finds_what_followed_the_same_word_before():
    assert weight_on(41, head=1, said_again_at=-1) > 5 / 120
    assert weight_on(41, head=1, said_again_at=60) < 1.5 / 120


def test_a_word_just_said_is_found_where_it_stood_before():
    assert weight_on(40, head=0, said_again_at=-2) > 3 / 120
    assert weight_on(40, head=0, said_again_at=60) < 1.5 / 120


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_other_queries_of_a_group_begin_at_random_and_add_nothing(kv_heads):
    model, group = fresh(kv_heads=kv_heads), 4 // kv_heads
    for block in model.model.layers:
        output = block.self_attn.o_proj.weight.view(128, 4, 32)
        written = [head for head in range(4) if output[:, head].abs().sum() > 0]
        assert written == list(range(0, 4, group))
        queries = block.self_attn.q_proj.weight.view(4, 32, 128)
        assert torch.isfinite(queries).all()
        assert (queries.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize(("width", "heads"), [(8, 2), (128, 4), (64, 8)])
def test_any_head_width_gives_finite_weights(width, heads):
    model = fresh(head_dim=width, heads=heads, kv_heads=heads)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert torch.isfinite(model(different_tokens(50)[None])).all()


@pytest.mark.parametrize("changes", [{"positions": "learned"}, {"qk_norm": False}, {"head_dim": 256}])
def test_what_look_up_needs_is_asked_for(changes):
    with pytest.raises(ValueError, match="look-up needs"):
        dataclasses.replace(ARCH, **changes)


def test_renewed_blocks_are_those_of_the_beginning_and_the_rest_stays():
    model = Transformer(ARCH)
    initialise(model, 3)
    begun = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    renew_blocks(model, 2, seed=3)
    for name, weight in model.state_dict().items():
        renewed = name.startswith(("model.layers.1.", "model.layers.2."))
        assert torch.equal(weight, begun[name] if renewed else begun[name] + 1.0), name
    with pytest.raises(ValueError, match="4 blocks of 3"):
        renew_blocks(model, 4, seed=3)
