"""The feed-forward layer's seven activations."""

import math

import pytest
import torch

from groundup.model import Architecture
from groundup.model.feed_forward import ACTIVATIONS, FeedForward


def normal(x):
    """The distribution function of the standard normal."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def tanh_normal(x):
    return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "gelu": lambda x: x * normal(x),
    "gelu_tanh": lambda x: x * tanh_normal(x),
    "squared_relu": lambda x: max(x, 0.0) ** 2,
    "swiglu": lambda x: x / (1 + math.exp(-x)),
    "geglu": lambda x: x * normal(x),
    "geglu_tanh": lambda x: x * tanh_normal(x),
}


def make(kind, biases="none"):
    arch = Architecture(vocabulary_size=9, hidden_size=8, heads=2, kv_heads=2, feed_forward=kind, biases=biases)
    torch.manual_seed(0)
    return FeedForward(arch, 12).double()


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("biases", ["none", "qkv", "all"])
def test_values(kind, biases):
    layer, x = make(kind, biases), torch.randn(5, 8, dtype=torch.float64)
    assert (layer.up_proj.bias is not None) == (layer.down_proj.bias is not None) == (biases == "all")
    for row, out in zip(x, layer(x), strict=True):
        up = layer.up_proj(row)
        gate = layer.gate_proj(row).tolist() if layer.gate_proj is not None else None
        if kind in ("swiglu", "geglu", "geglu_tanh"):
            inner = [FORMULAS[kind](g) * u for g, u in zip(gate, up.tolist(), strict=True)]
        else:
            assert gate is None
            inner = [FORMULAS[kind](u) for u in up.tolist()]
        expected = layer.down_proj(torch.tensor(inner, dtype=torch.float64))
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_gradients(kind):
    layer = make(kind, "all")
    names, weights = zip(*layer.named_parameters(), strict=True)

    def run(x, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (torch.randn(2, 8, dtype=torch.float64).requires_grad_(), *weights))
