"""Mixtures of experts: routing, the grouped product, and the routers' losses."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

from groundup.model import Architecture, Routing, balance_loss, fresh_model, router_z_loss
from groundup.model.context import make_context
from groundup.model.experts import MixtureOfExperts
from groundup.model.grouped import grouped_product
from groundup.training.objective import NextToken

SHAPE = {"vocabulary_size": 31, "layers": 2, "hidden_size": 16, "heads": 2, "kv_heads": 2, "intermediate_size": 24}


def make(dtype=torch.float64, feed_forward="swiglu", **table):
    arch = Architecture(**SHAPE, feed_forward=feed_forward, experts={"count": 5, "per_token": 2, **table})
    torch.manual_seed(0)
    mixture = MixtureOfExperts(arch)
    with torch.no_grad():
        for weight in mixture.parameters():
            weight.copy_(torch.randn(weight.shape) * 0.4)
    return arch, mixture.to(dtype)


def context_of(arch, x, routings=None):
    return make_context(arch, torch.zeros(x.shape[:2], dtype=torch.long), None, None, None, routings=routings)


def some(*shape, dtype=torch.float64, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("shared", [0, 2])
def test_each_token_goes_through_its_likeliest_experts(renormalise, shared):
    arch, mixture = make(renormalise=renormalise, shared=shared, scale=1.5, intermediate_size=8)
    x, routings = some(2, 6, 16), []
    found = mixture(x, context_of(arch, x, routings))
    assert [type(each) for each in routings] == [Routing]
    for b in range(2):
        for t in range(6):
            token = x[b, t]
            shares = torch.softmax(mixture.gate.weight @ token, 0)
            chosen = shares.argsort(descending=True)[:2]
            assert routings[0].chosen[b, t].tolist() == chosen.tolist()
            torch.testing.assert_close(routings[0].logits[b, t], mixture.gate.weight @ token)
            expected = torch.zeros(16, dtype=torch.float64)
            for e in chosen:
                gate, up, down = (getattr(mixture.experts, f"{name}_proj")[e] for name in ("gate", "up", "down"))
                weight = shares[e] / (shares[chosen].sum() if renormalise else 1)
                expected += 1.5 * weight * (down @ (F.silu(gate @ token) * (up @ token)))
            if shared:
                assert mixture.shared_experts.up_proj.weight.shape == (16, 16)
                expected = expected + mixture.shared_experts(token)
            torch.testing.assert_close(found[b, t], expected, rtol=1e-11, atol=1e-12)


def test_as_mixtral():
    arch, ours = make(torch.float32, count=6)
    config = MixtralConfig(hidden_size=16, intermediate_size=24, num_local_experts=6, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    theirs = MixtralSparseMoeBlock(config)
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.gate.weight)
        theirs.experts.gate_up_proj.copy_(torch.cat((ours.experts.gate_proj, ours.experts.up_proj), 1))
        theirs.experts.down_proj.copy_(ours.experts.down_proj)
    x = some(3, 7, 16, dtype=torch.float32)
    torch.testing.assert_close(ours(x, context_of(arch, x)), theirs(x.clone()), rtol=1e-5, atol=1e-5)


def test_no_token_is_dropped_where_all_choose_the_same_experts():
    arch, mixture = make()
    with torch.no_grad():
        mixture.gate.weight.zero_()  # ties go to the same experts everywhere
    x, routings = some(1, 50, 16), []
    out = mixture(x, context_of(arch, x, routings))
    assert routings[0].chosen.unique().numel() == 2
    alone = [mixture(x[:, t : t + 1], context_of(arch, x[:, t : t + 1])) for t in range(50)]
    torch.testing.assert_close(out, torch.cat(alone, 1), rtol=1e-11, atol=1e-12)
    assert (out.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("shared", [0, 1])
def test_gradients(shared):
    arch, mixture = make(count=3, shared=shared, intermediate_size=4)
    names, weights = zip(*mixture.named_parameters(), strict=True)
    x = some(1, 4, 16)

    def run(x, *weights):
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(mixture, named, (x, context_of(arch, x)))

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *weights), fast_mode=True)


def looped(x, weights, ends):
    groups = torch.bucketize(torch.arange(len(x)), ends, right=True)
    return torch.stack([weights[g] @ row for row, g in zip(x, groups, strict=True)]) if len(x) else x @ weights[0].T


@given(st.lists(st.sampled_from([0, 0, 1, 2, 17]), min_size=1, max_size=5))
@settings(max_examples=25)
def test_the_grouped_product_is_a_product_a_group(sizes):
    """Forward and backward, with empty groups anywhere; those get a gradient of zeros."""
    ends = torch.tensor(sizes).cumsum(0).to(torch.int32)
    x, weights = some(sum(sizes), 3).requires_grad_(), some(len(sizes), 4, 3, seed=2).requires_grad_()
    found, expected = grouped_product(x, weights, ends), looped(x, weights, ends)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    cotangent = some(sum(sizes), 4, seed=3)
    for ours, theirs in zip(
        torch.autograd.grad((found * cotangent).sum(), (x, weights)),
        torch.autograd.grad((expected * cotangent).sum(), (x, weights)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_grouped_product_s_gradient():
    ends = torch.tensor([2, 2, 5], dtype=torch.int32)
    x, weights = some(5, 3).requires_grad_(), some(3, 4, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: grouped_product(x, w, ends), (x, weights))


@pytest.mark.slow
def test_the_grouped_product_s_description_to_the_compiler():
    ends = torch.tensor([2, 2, 5], dtype=torch.int32)
    x, weights = some(5, 3).requires_grad_(), some(3, 4, 3, seed=2).requires_grad_()
    torch.library.opcheck(torch.ops.groundup.grouped_product.default, (x, weights, ends))
    torch.library.opcheck(torch.ops.groundup.grouped_outer.default, (some(5, 4), some(5, 3), ends))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_s_bits_do_not_depend_on_its_group(dtype):
    """Bit for bit, whether 1, 2, 9 or 40 others share the expert."""
    x, weights = some(60, 64, dtype=dtype), some(2, 48, 64, seed=2, dtype=dtype)
    whole = grouped_product(x, weights, torch.tensor([50, 60], dtype=torch.int32))
    for size in (1, 2, 3, 10, 41):
        ends = torch.tensor([size, size], dtype=torch.int32)
        assert torch.equal(grouped_product(x[:size].contiguous(), weights, ends), whole[:size])


def test_autocast_casts_experts_and_not_routers():
    arch, mixture = make(torch.float32)
    x, routings = some(2, 6, 16, dtype=torch.float32), []
    exact = mixture(x, context_of(arch, x))
    with torch.autocast("cpu", torch.bfloat16):
        out = mixture(x, context_of(arch, x, routings))
        assert grouped_product(x[0], mixture.experts.up_proj, torch.tensor([1, 2, 3, 4, 6])).dtype == torch.bfloat16
    assert routings[0].logits.dtype == torch.float32
    assert torch.equal(routings[0].logits, x @ mixture.gate.weight.T)
    assert 0 < (out.float() - exact).norm() / exact.norm() < 0.02
    out.float().sum().backward()
    for weight in mixture.parameters():
        assert weight.grad is not None
        assert weight.grad.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("amp", [False, True])
def test_compiled_without_a_break(amp):
    """One graph, forward and backward; another batch's routing needs no other graph."""
    arch, mixture = make(torch.float32, shared=1)
    torch.compiler.reset()

    def run(x):
        return mixture(x, context_of(arch, x)).square().sum()

    compiled = torch.compile(run, fullgraph=True, dynamic=False)
    for seed in (1, 2):
        x = some(2, 6, 16, dtype=torch.float32, seed=seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            expected, found = run(x), compiled(x)
        close = {"rtol": 0.05, "atol": 0.02} if amp else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(found, expected, **close)
        weights = list(mixture.parameters())
        for a, b in zip(torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True):
            assert (a - b).norm() <= (0.05 if amp else 1e-5) * b.norm()


def chosen_of(logits, per_token):
    return logits.topk(per_token, dim=-1).indices


@pytest.mark.parametrize("per_token", [1, 2, 4])
def test_the_balance_loss_of_even_routing_is_1(per_token):
    """Whatever is chosen where the probabilities are uniform; and whatever they are where choices are even, if their
    mean is uniform."""
    logits, real = torch.zeros(3, 8, 4, dtype=torch.float64), torch.ones(3, 8, dtype=torch.bool)
    some_choice = torch.rand(3, 8, 4, generator=torch.Generator().manual_seed(0)).argsort(-1)[..., :per_token]
    torch.testing.assert_close(balance_loss(logits, some_choice, real), torch.ones(3, dtype=torch.float64))
    peaked = 50 * torch.eye(4, dtype=torch.float64).repeat(2, 1)[None]
    first = (torch.arange(8)[:, None] + torch.arange(per_token)) % 4
    torch.testing.assert_close(balance_loss(peaked, first[None], real[:1]), torch.ones(1, dtype=torch.float64))


def test_the_balance_loss_by_its_formula_and_its_extremes():
    logits, real = some(2, 9, 5), torch.ones(2, 9, dtype=torch.bool)
    real[0, 6:] = False
    chosen = chosen_of(logits, 2)
    for row, found in enumerate(balance_loss(logits, chosen, real)):
        tokens = [t for t in range(9) if real[row, t]]
        total = 0.0
        for e in range(5):
            share = sum(e in chosen[row, t].tolist() for t in tokens) / len(tokens)
            total += share * sum(logits[row, t].softmax(0)[e].item() for t in tokens) / len(tokens)
        assert found.item() == pytest.approx(5 / 2 * total, rel=1e-12)
    collapsed = torch.zeros(1, 4, 6, dtype=torch.float64)
    collapsed[..., 2] = 100.0
    worst = balance_loss(collapsed, chosen_of(collapsed, 1), torch.ones(1, 4, dtype=torch.bool))
    assert worst.item() == pytest.approx(6.0)


def test_the_balance_loss_s_gradient():
    """Through the mean probabilities alone: dL/dlogit = E / (K · T) · p_e · (f_e - Σ f p)."""
    logits, real = some(1, 7, 4).requires_grad_(), torch.ones(1, 7, dtype=torch.bool)
    chosen = chosen_of(logits, 2)
    (found,) = torch.autograd.grad(balance_loss(logits, chosen, real).sum(), logits)
    share = F.one_hot(chosen, 4).sum(2).double().mean(1)  # [1, 4]
    p = logits.detach().softmax(-1)
    expected = 4 / 2 / 7 * p * (share[:, None] - (p * share[:, None]).sum(-1, keepdim=True))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradcheck(lambda x: balance_loss(x, chosen, real), (logits,))
    assert torch.autograd.gradcheck(lambda x: router_z_loss(x, real), (logits,))


def test_as_transformers_load_balancing():
    """Theirs is K times ours: it does not divide by the experts a token."""
    logits = some(1, 9, 5, dtype=torch.float32)
    found = balance_loss(logits, chosen_of(logits, 2), torch.ones(1, 9, dtype=torch.bool))
    assert found.item() == pytest.approx(load_balancing_loss_func((logits[0],), 5, 2).item() / 2, rel=1e-6)


def test_the_z_loss_closed_form():
    """All scores c of E experts: (c + ln E)²."""
    logits, real = torch.full((2, 5, 4), 3.0, dtype=torch.float64), torch.ones(2, 5, dtype=torch.bool)
    expected = (3 + math.log(4)) ** 2
    torch.testing.assert_close(router_z_loss(logits, real), torch.full((2,), expected, dtype=torch.float64))


def test_padding_does_not_count():
    logits, real = some(2, 6, 4), torch.tensor([[1, 1, 1, 1, 0, 0], [0] * 6]).bool()
    chosen = chosen_of(logits, 2)
    for loss in (lambda x, r: balance_loss(x, chosen[:, : x.shape[1]], r), router_z_loss):
        found = loss(logits, real)
        torch.testing.assert_close(found[:1], loss(logits[:, :4], real[:, :4])[:1])
        assert found[1] == 0
        other = torch.where(real[..., None], logits, 100.0)
        torch.testing.assert_close(loss(other, real), found)


def batch_of(rows):
    ids = torch.randint(0, 31, (rows, 10), generator=torch.Generator().manual_seed(0))
    documents = torch.tensor([[1] * 4 + [2] * 6, [1] * 7 + [0] * 3, [1] * 10, [0] * 10])[:rows]
    targets = torch.where((documents > 0) & (documents == documents.roll(-1, 1)), ids.roll(-1, 1), -100)
    targets[:, -1] = -100
    places = torch.tensor([[*range(4), *range(6)], [*range(7), 0, 0, 0], [*range(10)], [0] * 10])[:rows]
    return {"ids": ids, "targets": targets, "documents": documents, "positions": places}


@pytest.mark.parametrize("changes", [{"experts": {"count": 4, "per_token": 2}}, {"predict_ahead": 2}])
def test_micro_batches_do_not_change_the_objective(changes):
    """Cut between any rows, one of padding among them: the same sums and gradients."""
    model = fresh_model(Architecture(**SHAPE, **changes, residual_start="scaled"), 0)
    weights, batch = list(model.parameters()), batch_of(4)

    def sums(cuts):
        total, reported = 0.0, {}
        for begin, end in zip([0, *cuts], [*cuts, 4], strict=True):
            loss, other = NextToken().loss(model, {name: each[begin:end] for name, each in batch.items()})
            total = total + loss
            for name, value in other.items():
                reported[name] = reported.get(name, 0.0) + value.item()
        return total.item(), reported, torch.autograd.grad(total, weights)

    whole = sums([])
    assert whole[1].keys() == {"cross_entropy", *(["balance", "router_z"] if "experts" in changes else ["ahead"])}
    for cuts in ([1], [1, 2, 3], [3]):
        found = sums(cuts)
        assert found[0] == pytest.approx(whole[0], rel=1e-6)
        assert found[1] == pytest.approx(whole[1], rel=1e-6)
        for a, b in zip(found[2], whole[2], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_objective_is_its_parts_by_their_weights():
    table = {"count": 4, "per_token": 2, "dense_layers": 1, "balance_weight": 0.5, "z_weight": 0.25}
    model = fresh_model(Architecture(**SHAPE, experts=table, predict_ahead=1, predict_ahead_weight=0.125), 0)
    total, parts = NextToken().loss(model, batch_of(2))
    expected = parts["cross_entropy"] + 0.5 * parts["balance"] + 0.25 * parts["router_z"] + 0.125 * parts["ahead"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    supervised = (batch_of(2)["targets"] >= 0).sum().item()
    assert 1.0 <= parts["balance"].item() / supervised < 1.3  # fresh routers are nearly even
    assert parts["router_z"].item() / supervised == pytest.approx(math.log(4) ** 2, rel=0.3)
