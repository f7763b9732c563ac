"""The decoder: masks, positions, packing, counts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.model import (
    Architecture,
    Transformer,
    attend_reference,
    attention_weights,
    cross_entropy_sum,
    document_mask,
    flops_per_token,
    initialise,
    parameter_count,
)
from groundup.model.attend import attend
from groundup.model.context import make_context
from groundup.model.masks import Scoring, Sight
from groundup.model.norm import RMSNorm
from groundup.model.positions import rotary_table, rotate, sinusoidal_table

ARCH = Architecture(
    vocabulary_size=37,
    layers=2,
    hidden_size=16,
    heads=4,
    kv_heads=2,
    head_dim=4,
    intermediate_size=24,
    context_length=32,
)


def make(seed: int = 0, **changes) -> Transformer:
    """A model whose blocks do something: the zero-initialised matrices are filled too."""
    model = Transformer(ARCH.replace(**changes))
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.abs().sum() == 0:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model.eval()


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_counts_match_the_built_model(positions, kv_heads, tied):
    model = make(positions=positions, kv_heads=kv_heads, tied_embeddings=tied)
    count = parameter_count(model.arch)
    assert count.total == sum(weight.numel() for weight in model.parameters())
    assert model(torch.arange(6)[None]).shape == (1, 6, 16)


def test_flops_by_hand():
    """6 · (attention + feed-forward + head) + 6 · layers · heads · head_dim · context."""
    matmul = 2 * (16 * 4 * (8 + 4)) + 2 * 3 * 16 * 24 + 37 * 16
    assert flops_per_token(ARCH, 10) == 6 * matmul + 6 * 2 * 16 * 10


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
def test_a_packed_row_gives_each_document_what_it_gets_alone(positions):
    """T6: equal to rounding, and a change in one document leaves the others' bits."""
    model = make(positions=positions)
    first, second = torch.randint(0, 37, (1, 5)), torch.randint(0, 37, (1, 7))
    ids = torch.cat((first, second, torch.ones(1, 2, dtype=torch.long)), 1)
    places = torch.cat((torch.arange(5), torch.arange(7), torch.zeros(2, dtype=torch.long)))[None]
    documents = torch.tensor([[1] * 5 + [2] * 7 + [0] * 2])
    with torch.no_grad():
        packed = model(ids, positions=places, mask=document_mask(documents))
        assert torch.allclose(packed[:, :5], model(first), atol=1e-5)
        assert torch.allclose(packed[:, 5:12], model(second), atol=1e-5)
        other = ids.clone()
        other[0, :5] = (other[0, :5] + 1) % 37
        changed = model(other, positions=places, mask=document_mask(documents))
    assert torch.equal(packed[:, 5:], changed[:, 5:])
    assert not torch.equal(packed[:, :5], changed[:, :5])


def test_branches_share_the_prompt_and_not_each_other():
    model = make()
    prompt, left, right = [3, 4, 5], [6, 7], [8, 9, 10]
    ids = torch.tensor([prompt + left + right])
    places = torch.tensor([[0, 1, 2, 3, 4, 3, 4, 5]])
    documents = torch.ones(1, 8, dtype=torch.long)
    branches = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2]])
    with torch.no_grad():
        shared = model(ids, positions=places, mask=document_mask(documents, branches))
        alone = model(torch.tensor([prompt + right]))
    assert torch.allclose(shared[:, 5:], alone[:, 3:], atol=1e-5)


def test_causality():
    model = make()
    ids = torch.randint(0, 37, (1, 9))
    changed = ids.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 37
    with torch.no_grad():
        assert torch.allclose(model(ids)[:, :6], model(changed)[:, :6], atol=1e-6)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_document_mask_by_its_definition(documents):
    mask = document_mask(torch.tensor([documents]))[0, 0]
    for query in range(len(documents)):
        for key in range(len(documents)):
            assert mask[query, key].item() == (key <= query and documents[key] == documents[query])


def test_fast_attention_equals_the_reference():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 10, 8, requires_grad=True) for _ in range(3))
    mask = document_mask(torch.tensor([[1] * 4 + [2] * 6, [1] * 10]))
    expected, weights = attend_reference(q.double(), k.double(), v.double(), mask)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 10, dtype=weights.dtype))
    assert torch.allclose(attend(q, k, v, Sight(mask), Scoring()).double(), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(attend(q, k, v, Sight(mask), Scoring()).double(), expected, atol=1e-5)
        causal = attend_reference(q.double(), k.double(), v.double(), None)[0]
        assert torch.allclose(attend(q, k, v, Sight(None), Scoring()).double(), causal, atol=1e-5)


def test_attention_weights_are_the_model_s_own():
    model = make()
    seen = attention_weights(model, torch.tensor([1, 2, 3, 4]))
    assert len(seen) == 2
    assert seen[0].shape == (4, 4, 4)
    for layer in seen:
        assert torch.allclose(layer.sum(-1), torch.ones(4, 4), atol=1e-5)
        assert layer.triu(1).abs().max().item() == 0.0


def test_rotation_keeps_lengths_and_depends_on_distance_alone():
    torch.manual_seed(0)
    x, y = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def turned(z, place):
        return rotate(z, *rotary_table(torch.tensor([[place]]), 8, 10_000.0))

    assert turned(x, 5).norm().item() == pytest.approx(x.norm().item(), rel=1e-5)
    near = (turned(x, 3) * turned(y, 1)).sum().item()
    far = (turned(x, 23) * turned(y, 21)).sum().item()
    assert near == pytest.approx(far, abs=1e-4)


def test_sinusoids_are_those_of_the_paper():
    table = sinusoidal_table(10, 6)
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    assert table[7, 2].item() == pytest.approx(math.sin(7 / 10_000 ** (2 / 6)), abs=1e-6)
    assert table[7, 5].item() == pytest.approx(math.cos(7 / 10_000 ** (4 / 6)), abs=1e-6)


def test_rms_norm_closed_form():
    norm = RMSNorm(4, eps=0.0)
    out = norm(torch.tensor([2.0, 2.0, 2.0, 2.0]))
    assert out.tolist() == [1, 1, 1, 1]
    out = norm(torch.tensor([3.0, 4.0, 0.0, 0.0]))
    assert out[0].item() == pytest.approx(3 / 2.5)


def test_fresh_blocks_are_the_identity_and_the_loss_is_log_v():
    model = Transformer(ARCH)
    initialise(model, 0)
    ids = torch.randint(0, 37, (4, 16))
    context = make_context(ARCH, ids, None, None, None)
    x = model.model.begin(context)
    assert torch.equal(model.model.layers[0](x, context), x)
    loss = cross_entropy_sum(model(ids), model.head_weight, torch.randint(0, 37, (4, 16))).item() / 64
    assert loss == pytest.approx(math.log(37), rel=0.05)


def test_same_seed_same_weights_and_another_seed_others():
    def weights(seed):
        model = Transformer(ARCH)
        initialise(model, seed)
        return torch.cat([w.flatten() for w in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="multiple of kv_heads"):
        ARCH.replace(kv_heads=3)
    with pytest.raises(ValueError, match="even"):
        ARCH.replace(head_dim=5)
    for message, changes in (
        ("window_pattern without window", {"window_pattern": "SL"}),
        ("local_rope_theta without window", {"local_rope_theta": 100.0}),
        ('norm = "rms"', {"norm": "layer", "norm_offset": True}),
    ):
        with pytest.raises(ValueError, match=message):
            ARCH.replace(**changes)
    with pytest.raises(ValueError, match="surprise"):
        Architecture.from_dict({**ARCH.to_dict(), "surprise": 1})
    assert Architecture.from_dict(ARCH.to_dict()) == ARCH
