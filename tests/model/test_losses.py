"""The kernel and the sums, against closed forms and float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.model import IGNORE, bits_per_byte, cross_entropy_sum, losses, scored_logprobs, token_logprobs
from groundup.model.losses import Head


def test_logprobs_equal_a_float64_log_softmax():
    torch.manual_seed(0)
    hidden, head = torch.randn(7, 5), torch.randn(11, 5)
    targets = torch.tensor([0, 10, IGNORE, 3, 3, 9, 1])
    for temperature in (0.7, 1.0, 2.0):
        expected = (hidden.double() @ head.double().T / temperature).log_softmax(-1)
        found = token_logprobs(hidden, head, targets, temperature)
        for row, target in enumerate(targets.tolist()):
            want = 0.0 if target == IGNORE else expected[row, target].item()
            assert found[row].item() == pytest.approx(want, abs=1e-5)


def test_only_scored_places_have_a_logprob_and_a_gradient():
    torch.manual_seed(0)
    hidden = torch.randn(2, 4, 5, requires_grad=True)
    head = torch.randn(11, 5)
    targets = torch.tensor([[1, IGNORE, 2, IGNORE], [IGNORE] * 4])
    logprobs = scored_logprobs(hidden, head, targets)
    assert logprobs[targets == IGNORE].abs().max().item() == 0.0
    logprobs.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad[targets == IGNORE].abs().max().item() == 0.0
    assert hidden.grad[0, 0].abs().max().item() > 0


def test_all_masked_is_zero_with_zero_gradients_not_nan():
    hidden = torch.randn(1, 3, 5, requires_grad=True)
    head = torch.randn(11, 5, requires_grad=True)
    loss = cross_entropy_sum(hidden, head, torch.full((1, 3), IGNORE))
    loss.backward()
    assert loss.item() == 0.0
    assert hidden.grad is not None
    assert hidden.grad.abs().sum().item() == 0.0
    assert head.grad is not None
    assert head.grad.abs().sum().item() == 0.0


def test_the_targets_are_not_shifted_again():
    """One-hot logits for each place's own target give no loss (T3): the shift was made when the row was built."""
    targets = torch.tensor([[2, 0, 3, 1]])
    hidden = 200.0 * F.one_hot(targets, 4).float()
    head = torch.eye(4)
    assert cross_entropy_sum(hidden, head, targets).item() == pytest.approx(0.0, abs=1e-6)
    assert cross_entropy_sum(hidden, head, targets.roll(1, -1)).item() > 1.0


def test_sum_equals_cross_entropy():
    torch.manual_seed(1)
    hidden, head, targets = torch.randn(2, 6, 8), torch.randn(9, 8), torch.randint(0, 9, (2, 6))
    targets[0, :3] = IGNORE
    expected = F.cross_entropy((hidden @ head.T).flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
    assert cross_entropy_sum(hidden, head, targets).item() == pytest.approx(expected.item(), rel=1e-6)


def test_bits_per_byte_closed_form():
    """T34: two nats a token at three and a half bytes a token."""
    assert bits_per_byte(2.0, 1) / 3.5 == pytest.approx(0.824397, abs=1e-6)
    assert bits_per_byte(7 * math.log(2), 7) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="of 0 bytes"):
        bits_per_byte(1.0, 0)


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest new tensor of a passage has."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return found


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_in_pieces_the_same_values_and_gradients_from_fewer_logits_at_a_time(softcap, monkeypatch):
    torch.manual_seed(1)
    hidden = torch.randn(2, 19, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(50, (2, 19))
    targets[0, 3:9] = IGNORE
    found = []
    for most in (2**26, 7 * 50):
        monkeypatch.setattr(losses, "MOST_LOGITS", most)
        with Largest() as largest:
            total = cross_entropy_sum(hidden, Head(weight, softcap), targets)
            gradients = torch.autograd.grad(total, (hidden, weight))
        found.append((total, *gradients))
        scored = int((targets != IGNORE).sum())
        assert largest.numbers == (scored * 50 if most == 2**26 else 7 * 50)
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-12)


def test_more_tokens_of_vocabulary_than_logits_allowed_are_done_token_by_token(monkeypatch):
    monkeypatch.setattr(losses, "MOST_LOGITS", 10)
    hidden, weight, targets = torch.randn(5, 4), torch.randn(20, 4), torch.randint(20, (5,))
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(-token_logprobs(hidden, weight, targets), expected)
