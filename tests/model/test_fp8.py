"""Products in 8 bits: scales, the product and its gradients against exact ones of the same numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.model import Architecture, fresh_model, train_in_fp8
from groundup.model.fp8 import BACKWARD, FORWARD, linear_fp8, quantise
from groundup.model.layers import Linear
from groundup.recipe import ModelSection


def numbers(*shape, seed=1, size=1.0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(quantised):
    return quantised[0].double() * quantised[1].double()


@pytest.mark.parametrize(("dtype", "largest", "digits"), [(FORWARD, 448.0, 3), (BACKWARD, 57344.0, 2)])
@given(size=st.floats(1e-20, 1e20))
def test_the_largest_number_stays_and_others_are_near(dtype, largest, digits, size):
    x = numbers(16, 16, size=size)
    found = quantise(x, dtype)
    assert found[0].float().abs().max() == largest
    assert exact(found).abs().max().item() == pytest.approx(x.abs().max().item(), rel=1e-6)
    # Half of the last digit's place, or of the smallest number that is not 0.
    near = x.double().abs() * 2.0 ** -(digits + 1) + found[1].double() * torch.finfo(dtype).smallest_normal
    assert ((exact(found) - x.double()).abs() <= near * (1 + 1e-5)).all()


def test_zeros_and_what_is_not_finite():
    assert not exact(quantise(torch.zeros(4, 4), FORWARD)).any()
    for bad in (float("nan"), float("inf")):
        x = numbers(16, 16)
        x[3, 3] = bad
        assert not torch.isfinite(linear_fp8(x, numbers(16, 16), None)).all()


@pytest.mark.parametrize("shape", [(48, 32, 64), (16, 16, 16), (64, 128, 32)])
def test_the_product_is_that_of_the_rounded_numbers(shape):
    rows, inner, out = shape
    x, weight, grad = numbers(rows, inner), numbers(out, inner, seed=2, size=0.05), numbers(rows, out, seed=3)
    x.requires_grad_()
    weight.requires_grad_()
    y = linear_fp8(x, weight, None)
    y.backward(grad.bfloat16())
    left, right, g = (
        quantise(x.detach(), FORWARD),
        quantise(weight.detach(), FORWARD),
        quantise(grad.bfloat16(), BACKWARD),
    )
    assert y.dtype == torch.bfloat16
    assert x.grad.dtype == weight.grad.dtype == torch.float32
    for found, wanted, digits in (
        (y, exact(left) @ exact(right).T, 8),
        (x.grad, exact(g) @ exact(right), 8),
        (weight.grad, exact(g).T @ exact(left), 20),
    ):
        assert (found.double() - wanted).abs().max() <= wanted.abs().max() * 2.0**-digits


def test_it_is_near_the_product_in_float64():
    """8-bit numbers are off by up to 1/16 each, at random: a sum of 512 products is off by a few per cent."""
    x, weight = numbers(64, 512), numbers(256, 512, seed=2)
    wanted = x.double() @ weight.double().T
    found = linear_fp8(x, weight, torch.ones(256)).double() - 1
    assert 0.005 < ((found - wanted).norm() / wanted.norm()).item() < 0.05


def test_sizes_that_do_not_suit_are_multiplied_wider():
    x, weight = numbers(3, 5, 32), numbers(32, 32, seed=2)
    assert torch.equal(linear_fp8(x, weight, None), torch.nn.functional.linear(x, weight))
    assert linear_fp8(numbers(4, 8, 32), weight, None).shape == (4, 8, 32)


def test_projections_alone_and_in_training_alone():
    shape = {"layers": 2, "hidden_size": 32, "heads": 2, "kv_heads": 1, "context_length": 32, "value_embeddings": True}
    experts = {"count": 4, "per_token": 2, "intermediate_size": 32, "dense_layers": 1}
    arch = Architecture.from_section(ModelSection.model_validate({**shape, "experts": experts}), 64)
    model = fresh_model(arch, 1).train()
    for number, weight in enumerate(model.parameters()):  # some begin at 0
        torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(number))
    ids = torch.randint(64, (2, 32), generator=torch.Generator().manual_seed(4))
    before = model(ids)
    train_in_fp8(model)
    chosen = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if getattr(module, "fp8", False)}
    assert chosen == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert Linear.fp8 is False
    with torch.autocast("cpu", torch.bfloat16):
        after = model(ids)
    assert 1e-4 < ((after - before).norm() / before.norm()).item() < 0.2
    assert torch.equal(model.eval()(ids), before)
