"""The one log-probability kernel, and the sums that losses and bits per byte are made of.

Everything is a pure function of tensors. A loss is a *sum*; whoever calls divides by a count taken over the whole
update, so that neither micro-batches nor processes change the gradient.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORE = -100
"""The target of a place where nothing is scored."""
MOST_LOGITS = 2**26
"""Logits in memory at a time: 256 MiB of float32 in the forward pass, and as much again in the backward."""


class Head(NamedTuple):
    """What makes logits of hidden states."""

    weight: Tensor
    """[V, D] output matrix"""
    softcap: float | None = None
    """logits become c · tanh(logit / c)"""


def head_logits(hidden: Tensor, head: Head) -> Tensor:
    """Scores over the vocabulary, [..., D] to [..., V] in the dtype of the product."""
    logits = F.linear(hidden, head.weight)
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def token_logprobs(hidden: Tensor, head: Head | Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at the targets; 0 where the target is :data:`IGNORE`.

    Args:
        hidden: [N, D] final hidden states.
        head: the model's head, or its matrix [V, D] alone.
        targets: [N] int64 token ids, or IGNORE.
        temperature: what the logits are divided by first.

    No more than :data:`MOST_LOGITS` logits exist at a time: beyond that the tokens are done in pieces, and the backward
    pass makes each piece's logits again.

    Returns:
        [N] log-probabilities in float32 at least.
    """
    head = Head(head) if isinstance(head, Tensor) else head
    rows = max(1, MOST_LOGITS // len(head.weight))
    if len(hidden) <= rows:
        return _logprobs(hidden, head.weight, targets, head.softcap, temperature)
    # Pieces of one size, so that a compiled graph has one shape of them.
    rows = math.ceil(len(hidden) / math.ceil(len(hidden) / rows))
    pieces = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    again = partial(checkpoint, _logprobs, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(piece, head.weight, wanted, head.softcap, temperature) for piece, wanted in pieces])


def _logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, temperature: float) -> Tensor:
    """:func:`token_logprobs` in one piece."""
    logits = F.linear(hidden, weight)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")


def scored_logprobs(hidden: Tensor, head: Head | Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """:func:`token_logprobs` over packed rows, the head applied only where a target is scored.

    A compiled graph has one shape for all batches, and there the head is applied everywhere; the result is the same.

    Args:
        hidden: [B, T, D]; targets: [B, T].

    Returns:
        [B, T] in float32 at least, 0 where nothing is scored.
    """
    if torch.compiler.is_compiling():
        flat = token_logprobs(hidden.flatten(0, 1), head, targets.flatten(), temperature)
        return flat.view(targets.shape)
    scored = targets != IGNORE
    flat = token_logprobs(hidden[scored], head, targets[scored], temperature)
    return torch.zeros(targets.shape, dtype=flat.dtype, device=hidden.device).masked_scatter(scored, flat)


def cross_entropy_sum(hidden: Tensor, head: Head | Tensor, targets: Tensor) -> Tensor:
    """Summed negative log-likelihood in nats over all scored places: hidden [B, T, D], targets [B, T] to a scalar."""
    return -scored_logprobs(hidden, head, targets).sum()


def targets_ahead(targets: Tensor, documents: Tensor, count: int) -> Tensor:
    """The targets ``count`` places further on, [B, T]; IGNORE where those are of another document, padding, or past
    the row."""
    length = targets.shape[1]
    places = torch.arange(length, device=targets.device)
    inside = (places < length - count) & (documents == documents.roll(-count, dims=1)) & (documents > 0)
    return torch.where(inside, targets.roll(-count, dims=1), IGNORE)


def balance_loss(logits: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    """How unevenly a router spreads the tokens of each row: E / K · Σ_e f_e · P_e, 1 where even.

    f_e is how many of the row's tokens went to expert e, P_e its mean probability (Fedus et al. 2021, arXiv
    2101.03961, eq. 4-6, for K experts a token; row by row as DeepSeek-V2, arXiv 2405.04434, eq. 23-25, so that a sum
    over rows does not depend on how they are batched).

    Args:
        logits: [B, T, E] the router's scores; chosen: [B, T, K] int64.
        real: bool [B, T], false at padding, which does not count.

    Returns:
        [B], 0 for a row of padding.
    """
    experts, per_token = logits.shape[-1], chosen.shape[-1]
    weight = real.to(logits.dtype)[..., None]
    tokens = weight.sum(1).clamp(min=1)  # [B, 1]
    sent = F.one_hot(chosen, experts).sum(2).to(logits.dtype)  # [B, T, E]
    share = (sent * weight).sum(1) / tokens
    probability = (logits.softmax(-1) * weight).sum(1) / tokens
    return experts / per_token * (share * probability).sum(-1)


def router_z_loss(logits: Tensor, real: Tensor) -> Tensor:
    """The mean over a row's tokens of (logsumexp of the router's scores)², [B, T, E] and bool [B, T] to [B] (Zoph et
    al. 2022, arXiv 2202.08906, eq. 5)."""
    squares = logits.logsumexp(-1).square() * real
    return squares.sum(1) / real.sum(1).clamp(min=1)


def bits_per_byte(nats: float, byte_count: int) -> float:
    """Nats over a text to bits per byte of it: nats / (ln 2 · bytes). Comparable between tokenizers.

    Raises:
        ValueError: if there are no bytes.
    """
    if byte_count <= 0:
        raise ValueError(f"bits per byte of {byte_count} bytes")
    return nats / (math.log(2) * byte_count)
