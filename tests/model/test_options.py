"""Every option of [model]: the whole model against its formulas written out in float64, its gradient, its cache, its
packed rows and its causality, each option alone and some together."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from groundup.inference import KVCache
from groundup.model import Architecture, PackedMask, Routing, Transformer, fresh_model
from groundup.model.attend import attend, reference_kernel
from groundup.model.context import make_context

BASE = {
    "vocabulary_size": 37,
    "layers": 3,
    "hidden_size": 32,
    "heads": 4,
    "kv_heads": 2,
    "intermediate_size": 48,
    "context_length": 32,
}
LATENT = {"kv_heads": 4, "qk_norm": "none"}
OPTIONS = {
    "default": {},
    "learned": {"positions": "learned"},
    "sinusoidal": {"positions": "sinusoidal"},
    "alibi": {"positions": "alibi"},
    "no positions": {"positions": "none"},
    "linear": {"rope_scaling": {"kind": "linear", "factor": 4}},
    "yarn": {"rope_scaling": {"kind": "yarn", "factor": 4, "original_context": 8}},
    "llama3": {"rope_scaling": {"kind": "llama3", "factor": 8, "original_context": 16}},
    "multi-query": {"kv_heads": 1},
    "multi-head": {"kv_heads": 4},
    "latent": {**LATENT, "latent": {"kv_rank": 16, "rotary_dim": 4}},
    "latent queries": {**LATENT, "latent": {"kv_rank": 16, "query_rank": 12, "rotary_dim": 4, "value_dim": 6}},
    "latent sinks": {**LATENT, "latent": {"kv_rank": 8, "rotary_dim": 4}, "attention_sinks": True, "window": 4},
    "latent yarn": {
        **LATENT,
        "latent": {"kv_rank": 16, "rotary_dim": 4},
        "rope_scaling": {"kind": "yarn", "factor": 4, "original_context": 8},
    },
    "window": {"window": 3},
    "pattern": {"window": 3, "window_pattern": "SL", "local_rope_theta": 100.0},
    "no qk norm": {"qk_norm": "none"},
    "wide qk norm": {"qk_norm": "width"},
    "scale": {"attention_scale": 0.2},
    "attention softcap": {"attention_softcap": 2.0},
    "sinks": {"attention_sinks": True},
    "sinks, alibi": {"attention_sinks": True, "positions": "alibi", "window": 4},
    "relu": {"feed_forward": "relu"},
    "gelu": {"feed_forward": "gelu"},
    "gelu_tanh": {"feed_forward": "gelu_tanh"},
    "squared relu": {"feed_forward": "squared_relu"},
    "geglu": {"feed_forward": "geglu"},
    "geglu_tanh": {"feed_forward": "geglu_tanh"},
    "experts": {"experts": {"count": 4, "per_token": 2, "shared": 1, "dense_layers": 1, "intermediate_size": 16}},
    "scaled experts": {"experts": {"count": 5, "per_token": 3, "renormalise": False, "scale": 2.5}},
    "post": {"norm_placement": "post"},
    "sandwich": {"norm_placement": "sandwich", "norm_offset": True},
    "output": {"norm_placement": "output"},
    "layer norm": {"norm": "layer"},
    "biases": {"norm": "layer", "biases": "all"},
    "some biases": {"biases": "qkv"},
    "no gains": {"norm_gains": False},
    "untied": {"tied_embeddings": False},
    "embedding scale": {"embedding_scale": True},
    "embedding norm": {"embedding_norm": True},
    "residual scalars": {"residual_scalars": True},
    "x0 skip": {"x0_skip": True},
    "value embeddings": {"value_embeddings": True},
    "bigrams": {"bigram_rows": 50},
    "logit softcap": {"logit_softcap": 5.0},
    "ahead": {"predict_ahead": 2},
}
CLOSE = {"rtol": 0.0, "atol": 2e-5}
"""Rotary and sinusoidal tables are float32 whatever the weights are; the rest is float64."""


def make(changes, dtype=torch.float64) -> Transformer:
    """A model none of whose weights is what it began as."""
    model = fresh_model(Architecture(**{**BASE, **changes}), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.to(dtype).eval()


def some_ids(*shape, seed=0):
    return torch.randint(0, 37, shape, generator=torch.Generator().manual_seed(seed))


def objective(model, ids, kernel=attend):
    """A number that every parameter has a part in."""
    hidden = model.model(make_context(model.arch, ids, None, None, None, kernel))
    logits = model.logits(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(logits.flatten(0, 1), ids.roll(-1, 1).flatten())
    for state in model.look_ahead(hidden, ids):
        total = total + state.square().mean() + state[..., 0].sum()
    return total


def gradients(model, ids, kernel=attend):
    names, weights = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(objective(model, ids, kernel), weights), strict=True))


def check_values(model, formula):
    """The model is its formula, in hidden states, in logits and in what looks ahead."""
    ids = some_ids(1, 9)
    with torch.no_grad():
        written, hidden = formula(model), model(ids)
        torch.testing.assert_close(hidden[0], written.hidden(ids[0]), **CLOSE)
        torch.testing.assert_close(model.logits(hidden)[0], written.logits(hidden[0]), rtol=0, atol=1e-10)
        states = zip(model.look_ahead(hidden, ids), written.ahead(hidden[0], ids[0]), strict=True)
        for state, expected in states:
            torch.testing.assert_close(state[0, : len(expected)], expected, **CLOSE)


def check_gradients(model, formula=None):
    """Fused kernels and the written-out ones agree on every parameter, none of which is idle; and the gradient is the
    slope, along random directions."""
    ids = some_ids(2, 12, seed=1)
    found, expected = gradients(model, ids), gradients(model, ids, reference_kernel)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        assert gradient.abs().sum() > 0, name
    generator, start = torch.Generator().manual_seed(2), {n: w.detach().clone() for n, w in model.named_parameters()}
    for _ in range(2):
        way = {n: torch.randn(w.shape, generator=generator, dtype=w.dtype) for n, w in start.items()}
        slope = sum((found[name] * way[name]).sum().item() for name in found)
        ends = []
        for size in (1e-6, -1e-6):
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    weight.copy_(start[name] + size * way[name])
                ends.append(objective(model, ids).item())
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-5, abs=1e-5)
    model.load_state_dict(start)


def read_cached(model, ids, firsts, cuts):
    """Hidden states of rows that begin at the columns ``firsts``, read piece by piece."""
    rows, length = ids.shape
    cache = KVCache(model.arch, rows, length, dtype=model.head_weight.dtype, device=ids.device)
    columns, out = torch.arange(length), []
    for begin, end in zip([0, *cuts], [*cuts, length], strict=True):
        seen = (columns[:end] <= columns[begin:end, None]) & (columns[:end] >= firsts[:, None, None])
        mask = (seen | (columns[:end] == columns[begin:end, None]))[:, None]
        positions = (columns[begin:end] - firsts[:, None]).clamp(min=0)
        out.append(model(ids[:, begin:end], positions=positions, mask=mask, cache=cache))
        cache.advance(end - begin)
    return torch.cat(out, 1)


def check_cache(model, formula=None):
    """Read in pieces or token by token, rows of different length padded on the left: as read at once."""
    ids, firsts = some_ids(3, 12, seed=3), torch.tensor([0, 4, 7])
    with torch.no_grad():
        whole = [model(row[None, first:])[0] for row, first in zip(ids, firsts, strict=True)]
        for cuts in ([5, 6], [1], range(1, 12)):
            found = read_cached(model, ids, firsts, cuts)
            for row, expected, first in zip(found, whole, firsts, strict=True):
                torch.testing.assert_close(row[first:], expected, rtol=0, atol=1e-10)


def check_cache_without_a_mask(model, formula=None):
    """Rows of one length need no mask over a cache: read in pieces or token by token, as read at once."""
    ids = some_ids(2, 12, seed=7)
    with torch.no_grad():
        whole = model(ids)
        for cuts in ([5, 6], range(1, 12)):
            cache = KVCache(model.arch, 2, 12, dtype=torch.float64, device=ids.device)
            for begin, end in zip([0, *cuts], [*cuts, 12], strict=True):
                found = model(ids[:, begin:end], positions=torch.arange(begin, end)[None].expand(2, -1), cache=cache)
                cache.advance(end - begin)
                torch.testing.assert_close(found, whole[:, begin:end], rtol=0, atol=1e-10)


def check_packing(model, formula=None):
    """Documents of a row get what they get alone, and a change in one leaves the other's bits; so do branches."""
    documents = torch.tensor([[1] * 5 + [2] * 7 + [0] * 2])
    places = torch.tensor([[*range(5), *range(7), 0, 0]])
    ids, mask = some_ids(1, 14, seed=4), PackedMask(documents)
    with torch.no_grad():
        packed = model(ids, positions=places, mask=mask)
        torch.testing.assert_close(packed[:, 5:12], model(ids[:, 5:12]), rtol=0, atol=1e-10)
        torch.testing.assert_close(packed[:, :5], model(ids[:, :5]), rtol=0, atol=1e-10)
        dense = model(ids, positions=places, mask=mask.dense())
        torch.testing.assert_close(packed, dense, rtol=0, atol=1e-10)
        branches = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 2, 2, 0, 0]])
        places = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 2, 3, 0, 0]])
        split = model(ids, positions=places, mask=PackedMask(documents, branches))
        torch.testing.assert_close(split[:, :10], packed[:, :10], rtol=0, atol=1e-10)
        alone = model(torch.cat((ids[:, 5:7], ids[:, 10:12]), 1))
        torch.testing.assert_close(split[:, 10:12], alone[:, 2:], rtol=0, atol=1e-10)


def check_causality(model):
    """Other ids from any place on leave all before it as it was, bit for bit, in float32; and other documents too."""
    ids, other = some_ids(2, 16, seed=5), some_ids(2, 16, seed=6)
    documents = torch.tensor([[1] * 6 + [2] * 10, [1] * 16])
    places = torch.tensor([[*range(6), *range(10)], [*range(16)]])
    with torch.no_grad():
        plain, packed = model(ids), model(ids, positions=places, mask=PackedMask(documents))
        for place in (1, 2, 5, 6, 9, 15):
            changed = torch.cat((ids[:, :place], other[:, place:]), 1)
            assert torch.equal(model(changed)[:, :place], plain[:, :place]), place
            again = model(changed, positions=places, mask=PackedMask(documents))
            assert torch.equal(again[:, :place], packed[:, :place]), place
        changed = torch.cat((other[:, :6], ids[:, 6:]), 1)
        again = model(changed, positions=places, mask=PackedMask(documents))
        assert torch.equal(again[0, 6:], packed[0, 6:])
        assert not torch.equal(again[1, 6:], packed[1, 6:])


CHECKS = {
    check.__name__[6:]: check
    for check in (check_values, check_gradients, check_cache, check_cache_without_a_mask, check_packing)
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("option", OPTIONS)
def test_option(option, check, formula):
    CHECKS[check](make(OPTIONS[option]), formula)


@pytest.mark.parametrize("option", OPTIONS)
def test_causality(option):
    check_causality(make(OPTIONS[option], torch.float32))


ROUNDINGS = 15
"""Results of a layer that bfloat16 rounds one after another: norm, projection, norm of heads, rotation (2), weights,
mixture, output, sum; norm, gate, activation, product, output, sum."""
FORWARD = 1.5 * 2**-8 * (ROUNDINGS * BASE["layers"]) ** 0.5
"""Relative error of a pass in bfloat16: each rounding adds up to 2^-8 of either sign, so they grow as their root; 1.5
is left for scores, whose errors softmax raises to a power."""
BACKWARD = 3 * FORWARD
"""Of a gradient: it is made of the pass's rounded values, and rounded twice as often, for inputs and for weights."""


def unrounded(option) -> Transformer:
    """An option's model in float64 whose weights bfloat16 has exactly."""
    model = make(OPTIONS[option], torch.bfloat16).double()
    model.model.fill_tables()
    return model


def clear_ids(model, length=8):
    """Two rows of which no token is near a tie between experts: the two of widest margin of many."""
    if model.arch.experts is None:
        return some_ids(2, length, seed=8)
    ids, routings = some_ids(64, length, seed=8), []
    with torch.no_grad():
        model(ids, routings=routings)
    count = model.arch.experts.per_token
    best = [routing.logits.topk(count + 1, dim=-1).values for routing in routings]
    margins = torch.stack([each[..., count - 1] - each[..., count] for each in best]).amin((0, 2))
    return ids[margins.topk(2).indices]


def experts_chosen(routings: list[Routing]):
    return [routing.chosen.sort(-1).values.tolist() for routing in routings]


def relative(found, exact) -> float:
    return ((found.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("option", OPTIONS)
def test_forward_in_bfloat16(option):
    """bfloat16 by weights and by autocast, far from position 0 (where bfloat16 has one number in 32), and over a cache
    of bfloat16 in pieces and token by token."""
    exact = unrounded(option)
    half, mixed, ids = unrounded(option).bfloat16(), unrounded(option).float(), clear_ids(exact)
    far = 0 if exact.arch.positions in ("learned", "sinusoidal") else 5001
    positions, sent = far + torch.arange(ids.shape[1])[None].expand(2, -1), ([], [], [])
    with torch.no_grad():
        expected = exact(ids, positions=positions, routings=sent[0])
        found = half(ids, positions=positions, routings=sent[1])
        assert found.dtype == torch.bfloat16
        assert relative(found, expected) < FORWARD
        assert relative(half.logits(found), exact.logits(expected)) < FORWARD
        with torch.autocast("cpu", torch.bfloat16):
            found = mixed(ids, positions=positions, routings=sent[2])
            assert mixed.logits(found).dtype == torch.bfloat16
            assert relative(mixed.logits(found), exact.logits(expected)) < FORWARD
        assert experts_chosen(sent[0]) == experts_chosen(sent[1]) == experts_chosen(sent[2])
        assert relative(found, expected) < FORWARD
        expected = exact(ids)
        for cuts in ([5, 6], range(1, 8)):
            assert relative(read_cached(half, ids, torch.tensor([0, 0]), cuts), expected) < FORWARD


@pytest.mark.parametrize("option", OPTIONS)
def test_gradient_in_bfloat16(option):
    """By autocast, as training has it: as a whole, and of each parameter, beside whose own size counts what it would
    have of the whole if all numbers were alike."""
    exact, mixed = unrounded(option), unrounded(option).float()
    ids = clear_ids(exact)
    expected = gradients(exact, ids)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(mixed, ids)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    whole = torch.cat([gradient.flatten() for gradient in expected.values()])
    assert relative(torch.cat([gradient.flatten() for gradient in found.values()]), whole) < BACKWARD
    for name, gradient in expected.items():
        alike = whole.norm() * (gradient.numel() / whole.numel()) ** 0.5
        assert (found[name] - gradient).norm() < BACKWARD * (gradient.norm() + alike), name


@given(st.lists(st.sampled_from(sorted(set(OPTIONS) - {"default"})), min_size=2, max_size=5, unique=True))
@example(["sinks, alibi", "attention softcap", "experts", "sandwich", "ahead"])
@example(["latent queries", "pattern", "experts", "bigrams", "ahead"])
@example(["value embeddings", "bigrams", "x0 skip", "residual scalars", "multi-query"])
@settings(max_examples=6, derandomize=True)
def test_options_together(formula, names):
    changes = {key: value for name in names for key, value in OPTIONS[name].items()}
    try:
        model = make(changes)
    except ValueError:
        assume(False)
        return
    for check in CHECKS.values():
        check(model, formula)
    check_causality(make(changes, torch.float32))
