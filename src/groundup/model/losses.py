"""The one log-probability kernel, and the sums that losses and bits per byte are made of.

Everything is a pure function of tensors. A loss is a *sum*; whoever calls divides by a count taken over the whole
update, so that neither micro-batches nor processes change the gradient.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
"""The target of a place where nothing is scored."""


def token_logprobs(hidden: Tensor, head_weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(hidden · headᵀ / temperature) at the targets; 0 where the target is :data:`IGNORE`.

    Args:
        hidden: [N, D] final hidden states.
        head_weight: [V, D] output matrix.
        targets: [N] int64 token ids, or IGNORE.
        temperature: what the logits are divided by first.

    Returns:
        [N] float32 log-probabilities.
    """
    logits = F.linear(hidden, head_weight).float()
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")


def scored_logprobs(hidden: Tensor, head_weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """:func:`token_logprobs` over packed rows, the head applied only where a target is scored.

    A compiled graph has one shape for all batches, and there the head is applied everywhere; the result is the same.

    Args:
        hidden: [B, T, D]; targets: [B, T].

    Returns:
        [B, T] float32, 0 where nothing is scored.
    """
    if torch.compiler.is_compiling():
        flat = token_logprobs(hidden.flatten(0, 1), head_weight, targets.flatten(), temperature)
        return flat.view(targets.shape)
    scored = targets != IGNORE
    flat = token_logprobs(hidden[scored], head_weight, targets[scored], temperature)
    return torch.zeros(targets.shape, dtype=torch.float32, device=hidden.device).masked_scatter(scored, flat)


def cross_entropy_sum(hidden: Tensor, head_weight: Tensor, targets: Tensor) -> Tensor:
    """Summed negative log-likelihood in nats over all scored places: hidden [B, T, D], targets [B, T] to a scalar."""
    return -scored_logprobs(hidden, head_weight, targets).sum()


def bits_per_byte(nats: float, byte_count: int) -> float:
    """Nats over a text to bits per byte of it: nats / (ln 2 · bytes). Comparable between tokenizers.

    Raises:
        ValueError: if there are no bytes.
    """
    if byte_count <= 0:
        raise ValueError(f"bits per byte of {byte_count} bytes")
    return nats / (math.log(2) * byte_count)
