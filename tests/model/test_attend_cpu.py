"""The backward pass of compiled bfloat16 attention on a CPU, against the formula in float64."""

import math
import sys

import pytest
import torch

from groundup.hardware import can_compile
from groundup.model import PackedMask
from groundup.model.attend import attend, attend_reference, repeat_heads
from groundup.model.attend_cpu import FlashForward
from groundup.model.masks import Scoring, Sight


def made(groups: int, dtype: torch.dtype, length: int = 24) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Queries of 6 heads, keys and values of fewer, laid out as projections leave them; a mask of three documents; what
    the loss asks of the output."""
    torch.manual_seed(3)
    shapes = ((2, length, 6, 16), (2, length, groups, 16), (2, length, groups, 16), (2, length, 6, 16))
    *inputs, asked = (torch.randn(shape, dtype=torch.float64).to(dtype).transpose(1, 2) for shape in shapes)
    documents = torch.tensor([[1] * 5 + [2] * (length - 5), [1] * (length - 4) + [0] * 4])
    return [x.detach().requires_grad_() for x in inputs], PackedMask(documents).dense(), asked


def by_formula(inputs: list[torch.Tensor], mask: torch.Tensor, asked: torch.Tensor, scale: float) -> list[torch.Tensor]:
    """The output and the three gradients, in float64."""
    q, k, v = (x.detach().double().requires_grad_() for x in inputs)
    out, _ = attend_reference(q, repeat_heads(k, 6), repeat_heads(v, 6), mask, Scoring(scale=scale))
    return [out, *torch.autograd.grad(out, (q, k, v), asked.double())]


@pytest.mark.parametrize("groups", [6, 2, 1])
@pytest.mark.parametrize("scale", [1 / math.sqrt(16), 0.7])
def test_output_and_gradients_are_those_of_the_formula(groups, scale):
    inputs, mask, asked = made(groups, torch.float64)
    added = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, float("-inf"))
    out = FlashForward.apply(*inputs, mask, added, scale)
    found = [out, *torch.autograd.grad(out, inputs, asked)]
    for ours, right in zip(found, by_formula(inputs, mask, asked, scale), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-6, atol=1e-6)  # the kernel keeps its normaliser in float32


@pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")
@pytest.mark.parametrize("groups", [6, 2])
def test_compiled_under_autocast_it_is_used_and_as_near_as_bfloat16_allows(groups, monkeypatch):
    inputs, mask, asked = made(groups, torch.float32)
    used: list[bool] = []

    def spied(*given):
        used.append(True)
        return own(*given)

    module = sys.modules["groundup.model.attend"]  # its name in the package is the function's
    own = module.attend_cpu
    monkeypatch.setattr(module, "attend_cpu", spied)
    with torch.autocast("cpu", torch.bfloat16):
        out = torch.compile(attend, dynamic=False)(*inputs, Sight(mask), Scoring())
        found = [out, *torch.autograd.grad(out, inputs, asked.to(out.dtype))]
    torch.compiler.reset()
    assert used
    for ours, right in zip(found, by_formula(inputs, mask, asked, 0.25), strict=True):
        assert (ours.double() - right).norm() < 0.01 * right.norm()
