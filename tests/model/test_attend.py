"""From scores to weighted sums: the fused kernels and the written-out formula, against loops in float64."""

import itertools
import math
import types

import pytest
import torch
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_oss import modeling_gpt_oss

from groundup.model import PackedMask, attend, attend_reference
from groundup.model.attend import reference_kernel
from groundup.model.flex import attend_flex, flex_wins, see_blocks
from groundup.model.masks import Scoring, Sight, see

SLOPES = torch.tensor([0.5, 0.25, 0.125, 0.0625])
SINKS = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64)
RULES = {
    "plain": Scoring(),
    "scale": Scoring(scale=0.7),
    "softcap": Scoring(softcap=1.5),
    "slopes": Scoring(slopes=SLOPES),
    "sinks": Scoring(sinks=SINKS),
    "all": Scoring(scale=0.7, softcap=1.5, slopes=SLOPES, sinks=SINKS),
    "slopes and sinks": Scoring(slopes=SLOPES, sinks=SINKS),
}
DOCUMENTS = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 2, 0], [1] * 9])
PLACES = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 0], [*range(9)]])


def tensors(groups=2, value=6, seed=0, dtype=torch.float64):
    """q [2, 4, 9, 8], k [2, groups, 9, 8], v [2, groups, 9, value]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 4, 9, 8), (2, groups, 9, 8), (2, groups, 9, value))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def sight(window=None, dense=True):
    mask = PackedMask(DOCUMENTS)
    return see(mask.dense(), PLACES, PLACES, window, distances=True) if dense else see_blocks(mask, PLACES, window)


def by_hand(q, k, v, rule, window):
    """One number at a time."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    share = q.shape[1] // k.shape[1]
    for b, h, t in itertools.product(range(2), range(4), range(9)):
        powers, sum_of_powers = {}, 0.0 if rule.sinks is None else math.exp(rule.sinks[h])
        for s in range(t + 1):
            back = int(PLACES[b, t] - PLACES[b, s])
            if DOCUMENTS[b, s] != DOCUMENTS[b, t] or (window is not None and back >= window):
                continue
            score = float(q[b, h, t] @ k[b, h // share, s]) * (rule.scale or 8**-0.5)
            if rule.softcap is not None:
                score = rule.softcap * math.tanh(score / rule.softcap)
            if rule.slopes is not None:
                score -= float(rule.slopes[h]) * back
            powers[s] = math.exp(score)
            sum_of_powers += powers[s]
        for s, power in powers.items():
            out[b, h, t] += power / sum_of_powers * v[b, h // share, s]
    return out


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("name", RULES)
def test_values(name, groups, window):
    q, k, v = tensors(groups)
    expected = by_hand(q, k, v, RULES[name], window)
    for kernel in (attend, reference_kernel):
        torch.testing.assert_close(kernel(q, k, v, sight(window), RULES[name]), expected, rtol=0, atol=1e-12)
    wide = [each.float() for each in (q, k, v)]
    torch.testing.assert_close(attend(*wide, sight(window), RULES[name]).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("name", "window"), [("plain", None), ("sinks", 2), ("all", 2)])
def test_flex_attention_equals_the_reference(name, window):
    """On a CPU PyTorch runs it uncompiled and without a gradient: its values, block masks and sinks are compared."""
    q, k, v = tensors(dtype=torch.float32)
    found = attend_flex(q, k, v, sight(window, dense=False), RULES[name])
    expected = reference_kernel(q, k, v, sight(window), RULES[name])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6, check_dtype=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has a gradient on GPUs alone; none is here")
@pytest.mark.parametrize("name", RULES)
def test_flex_attention_on_a_gpu_with_gradients(name):
    rule = RULES[name]
    moved = {key: value.cuda().float() for key, value in vars(rule).items() if isinstance(value, torch.Tensor)}
    rule = Scoring(**{**vars(rule), **moved})
    generator = torch.Generator().manual_seed(0)
    documents = torch.tensor([[1] * 300 + [2] * 700 + [0] * 24, [1] * 1024]).cuda()
    places = torch.cat((torch.arange(300), torch.arange(700), torch.zeros(24, dtype=torch.long)))
    places = torch.stack((places, torch.arange(1024))).cuda()
    assert flex_wins(places, softcap=False)
    mask = PackedMask(documents)
    found, expected = (
        [torch.randn(2, heads, 1024, 64, generator=g).cuda().requires_grad_() for heads in (4, 2, 2)]
        for g in (generator.manual_seed(0), generator.manual_seed(0))
    )
    for window in (None, 200):
        out = attend(*found, see_blocks(mask, places, window), rule)
        written = reference_kernel(*expected, see(mask.dense(), places, places, window, distances=True), rule)
        torch.testing.assert_close(out, written, rtol=0, atol=2e-3, check_dtype=False)
        weights = torch.randn(out.shape, generator=generator).cuda()
        for a, b in zip(
            torch.autograd.grad((out * weights).sum(), found),
            torch.autograd.grad((written * weights).sum(), expected),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-2)


def test_flex_attention_is_for_gpus():
    assert not flex_wins(torch.zeros(1, 4096, dtype=torch.long), softcap=True)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kernel", [attend, reference_kernel])
def test_gradients(kernel, name):
    rule = RULES[name]
    q, k, v = (each[:1, :, :5].contiguous().requires_grad_() for each in tensors())
    mask = see(None, PLACES[1:, :5], PLACES[1:, :5], 3, distances=True)

    def run(q, k, v, sinks):
        with_sinks = Scoring(rule.scale, rule.softcap, rule.slopes, sinks if rule.sinks is not None else None)
        return kernel(q, k, v, mask, with_sinks)

    assert torch.autograd.gradcheck(run, (q, k, v, SINKS.clone().requires_grad_()), fast_mode=True)


def test_no_mask_is_causal():
    q, k, v = tensors(4)
    triangle = torch.ones(9, 9, dtype=torch.bool).tril()
    expected, weights = attend_reference(q, k, v, triangle)
    torch.testing.assert_close(attend(q, k, v, Sight(None), Scoring()), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(attend_reference(q, k, v, None)[0], expected)
    for rule in (RULES["slopes"], RULES["sinks"], RULES["softcap"]):
        found = attend(q, k, v, see(None, PLACES[1:], PLACES[1:], None, distances=True), rule)
        masked = attend(q, k, v, see(triangle[None, None], PLACES[1:], PLACES[1:], None, distances=True), rule)
        torch.testing.assert_close(found, masked)
    assert weights.triu(1).abs().max() == 0


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kernel", [attend, reference_kernel])
def test_no_mask_over_earlier_keys_lets_the_last_query_see_all(kernel, name, window):
    """Queries that are the last of more keys get what they get among all."""
    q, k, v = tensors()
    whole = kernel(q, k, v, see(None, PLACES[1:], PLACES[1:], window, distances=True), RULES[name])
    for begin in (0, 1, 5, 8):
        last = see(None, PLACES[1:, begin:], PLACES[1:], window, distances=True)
        torch.testing.assert_close(kernel(q[:, :, begin:], k, v, last, RULES[name]), whole[:, :, begin:])


@pytest.mark.parametrize("kernel", [attend, reference_kernel])
def test_a_soft_cap_bounds_and_a_large_one_changes_nothing(kernel):
    q, k, v = tensors()
    plain = kernel(q, k, v, sight(), Scoring())
    torch.testing.assert_close(kernel(q, k, v, sight(), Scoring(softcap=1e5)), plain, rtol=0, atol=1e-6)
    weights = attend_reference(100 * q, k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1), None, Scoring(softcap=1.0))[1]
    seen = weights[..., 8, :]  # all keys: their scores differ by 2 at most
    assert (seen.amax(-1) / seen.amin(-1) <= math.exp(2) + 1e-9).all()


@pytest.mark.parametrize("kernel", [attend, reference_kernel])
def test_a_sink_far_below_changes_nothing_and_one_far_above_leaves_nothing(kernel):
    q, k, v = tensors()
    plain = kernel(q, k, v, sight(), Scoring())
    low, high = (Scoring(sinks=torch.full((4,), value, dtype=torch.float64)) for value in (-60.0, 60.0))
    torch.testing.assert_close(kernel(q, k, v, sight(), low), plain, rtol=0, atol=1e-12)
    assert kernel(q, k, v, sight(), high).abs().max() < 1e-20
    scores_of_nought = Scoring(scale=1e-30, sinks=torch.zeros(4, dtype=torch.float64))
    first = kernel(q, k, v, sight(), scores_of_nought)[:, :, 0]
    torch.testing.assert_close(first, v[:, :, 0].repeat_interleave(2, 1) / 2)  # one key and one sink of equal score


def test_as_gpt_oss_and_gemma_have_it():
    q, k, v = tensors(dtype=torch.float32)
    masked = torch.zeros(2, 1, 9, 9).masked_fill(~PackedMask(DOCUMENTS).dense(), -1e9)
    module = types.SimpleNamespace(sinks=SINKS.float(), num_key_value_groups=2, training=False, head_dim=8)
    theirs = modeling_gpt_oss.eager_attention_forward(module, q, k, v, masked, scaling=8**-0.5)[0].transpose(1, 2)
    ours = attend(q, k, v, sight(), Scoring(sinks=SINKS.float()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    theirs = modeling_gemma2.eager_attention_forward(module, q, k, v, masked, scaling=0.3, softcap=2.0)[0]
    ours = attend(q, k, v, sight(), Scoring(scale=0.3, softcap=2.0))
    torch.testing.assert_close(ours, theirs.transpose(1, 2), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["plain", "softcap", "sinks"])
@pytest.mark.parametrize("kernel", [attend, reference_kernel])
def test_dropout_keeps_the_mean(kernel, name):
    """Over 4000 draws the mean is the sum without dropout, within five standard errors; a lone key is dropped or
    doubled."""
    rule = RULES[name]
    q, k, v = (each[:1, :, :2].repeat(4000, 1, 1, 1) for each in tensors())
    torch.manual_seed(0)
    plain = Scoring(rule.scale, rule.softcap, rule.slopes, rule.sinks)
    dropping = Scoring(rule.scale, rule.softcap, rule.slopes, rule.sinks, dropout=0.5)
    expected, drawn = kernel(q, k, v, Sight(None), plain), kernel(q, k, v, Sight(None), dropping)
    error = drawn.std(0) / 4000**0.5
    assert ((drawn.mean(0) - expected[0]).abs() < 5 * error + 1e-9).all()
    ratio = drawn[:, :, 0] / expected[:, :, 0]  # the first place sees one key
    assert ((ratio.abs() < 1e-9) | ((ratio - 2).abs() < 1e-6)).all()
    assert 0.4 < (ratio.abs() < 1e-9).double().mean() < 0.6
