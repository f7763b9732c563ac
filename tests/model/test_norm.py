"""Norms against their formulas, and against the layouts that have them."""

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

from groundup.model import Architecture
from groundup.model.norm import LayerNorm, RMSNorm, make_norm


def filled(norm, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in norm.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return norm


def rows(dtype=torch.float64):
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("offset", [False, True])
def test_rms_norm_in_float64(offset):
    norm, x = filled(RMSNorm(8, 1e-3, offset=offset)).double(), rows()
    for row, out in zip(x.flatten(0, 1), norm(x).flatten(0, 1), strict=True):
        length = (sum(value**2 for value in row.tolist()) / 8 + 1e-3) ** 0.5
        gains = norm.weight + 1 if offset else norm.weight
        torch.testing.assert_close(out, row / length * gains, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_in_float64(bias):
    norm, x = filled(LayerNorm(8, 1e-3, bias=bias)).double(), rows()
    for row, out in zip(x.flatten(0, 1), norm(x).flatten(0, 1), strict=True):
        mean = sum(row.tolist()) / 8
        deviation = (sum((value - mean) ** 2 for value in row.tolist()) / 8 + 1e-3) ** 0.5
        expected = (row - mean) / deviation * norm.weight
        torch.testing.assert_close(out, expected + norm.bias if bias else expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", [RMSNorm(6, 1e-3), RMSNorm(6, 1e-3, offset=True), LayerNorm(6, 1e-3)])
def test_gradients(norm):
    norm = filled(norm).double()
    names, weights = zip(*norm.named_parameters(), strict=True)

    def run(x, *weights):
        return torch.func.functional_call(norm, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (rows()[0, :, :6].requires_grad_(), *weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_gemma_and_olmo_have_it(dtype):
    x = rows(dtype)
    ours, theirs = filled(RMSNorm(8, 1e-6, offset=True)).to(dtype), filled(Gemma2RMSNorm(8)).to(dtype)
    assert torch.equal(ours(x), theirs(x))
    ours, theirs = filled(RMSNorm(8, 1e-6)), filled(Olmo2RMSNorm(8))
    torch.testing.assert_close(ours.to(dtype)(x), theirs.to(dtype)(x))


def test_statistics_are_wide_whatever_the_dtype():
    """The mean square of 4096 equal numbers, which bfloat16 could not add up."""
    x = torch.full((1, 4096), 3.0, dtype=torch.bfloat16)
    assert RMSNorm(4096, 0.0).to(torch.bfloat16)(x).unique().tolist() == [1.0]
    assert RMSNorm(4096, 0.0)(torch.full((1, 4096), 1e30, dtype=torch.float64)).tolist()[0][:2] == pytest.approx([1, 1])


def test_the_architecture_s_norm():
    def names(**changes):
        shape = {"vocabulary_size": 9, "hidden_size": 16, **changes}
        return [name for name, _ in make_norm(Architecture(**shape), 16).named_parameters()]

    assert names() == ["weight"]
    assert names(norm_gains=False) == []
    assert names(norm="layer") == ["weight"]
    assert names(norm="layer", biases="all") == ["weight", "bias"]
    assert names(norm="layer", biases="all", norm_gains=False) == []
