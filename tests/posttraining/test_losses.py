"""The DPO loss against closed forms: T13 to T15 of the invariants."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.posttraining import dpo_loss

logprobs = st.floats(-80, 0, allow_nan=False)


def loss_of(*values: float, beta: float = 0.1) -> tuple[float, float]:
    losses, margins = dpo_loss(*(torch.tensor(value, dtype=torch.float64) for value in values), beta)
    return losses.item(), margins.item()


@given(chosen=logprobs, rejected=logprobs, beta=st.floats(0.01, 2))
def test_a_policy_like_its_reference_has_loss_ln_2_and_no_margin(chosen, rejected, beta):
    loss, margin = loss_of(chosen, rejected, chosen, rejected, beta=beta)
    assert loss == pytest.approx(math.log(2), abs=1e-12)
    assert margin == 0


def test_known_value():
    loss, margin = loss_of(-10, -12, -11, -11)
    assert loss == pytest.approx(0.598139, abs=1e-6)
    assert margin == pytest.approx(0.2)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_gradient_at_the_start_is_half_beta_each_way(beta):
    policy = torch.tensor([-10.0, -12.0], dtype=torch.float64, requires_grad=True)
    losses, _ = dpo_loss(policy[0], policy[1], policy[0].detach(), policy[1].detach(), beta)
    losses.backward()
    assert policy.grad.tolist() == pytest.approx([-beta / 2, beta / 2], rel=1e-12)


@given(a=logprobs, b=logprobs, c=logprobs, d=logprobs)
def test_swapping_the_answers_negates_the_margin(a, b, c, d):
    loss, margin = loss_of(a, b, c, d)
    swapped_loss, swapped_margin = loss_of(b, a, d, c)
    assert swapped_margin == pytest.approx(-margin, abs=1e-12)
    # -log s(m) and -log s(-m) differ by m
    assert swapped_loss - loss == pytest.approx(margin, abs=1e-9)


@given(a=logprobs, b=logprobs, c=logprobs, d=logprobs, shift=st.floats(-50, 50))
def test_a_constant_on_both_references_changes_nothing(a, b, c, d, shift):
    assert loss_of(a, b, c + shift, d + shift) == pytest.approx(loss_of(a, b, c, d), abs=1e-9)


def test_equal_answers_give_no_gradient_to_what_they_share():
    weight = torch.tensor(0.7, requires_grad=True)
    answer = weight * torch.tensor([-3.0, -8.0])
    losses, _ = dpo_loss(answer, answer, torch.tensor([-2.0, -2.0]), torch.tensor([-5.0, -1.0]), 0.1)
    losses.sum().backward()
    assert weight.grad.item() == 0


def test_far_margins_stay_finite():
    wrong, _ = loss_of(-1e4, 0, 0, -1e4, beta=1.0)
    right, _ = loss_of(0, -1e4, -1e4, 0, beta=1.0)
    assert wrong == pytest.approx(2e4)
    assert right == 0


def test_each_pair_has_its_own_loss():
    policy, reference = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    losses, margins = dpo_loss(*policy, *reference, 0.3)
    assert losses.shape == margins.shape == (3, 4)
    one = dpo_loss(policy[0, 1, 2], policy[1, 1, 2], reference[0, 1, 2], reference[1, 1, 2], 0.3)
    assert losses[1, 2].item() == pytest.approx(one[0].item())
