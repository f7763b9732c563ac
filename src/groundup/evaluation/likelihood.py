"""How likely a model finds given tokens: the base of bits per byte and of multiple choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from groundup.model import IGNORE, Transformer, token_logprobs

BATCH_TOKENS = 8192
"""Places, padding included, that go through the model at a time."""
LOGITS = 2**25
"""Most logits held at a time: 128 MiB in float32."""

Row = tuple[Sequence[int], Sequence[int]]
"""ids, and as many targets: the next token, or IGNORE where it isn't scored"""


@torch.inference_mode()
def row_logprobs(model: Transformer, rows: Sequence[Row], on_done: Callable[[int], None] | None = None) -> list[float]:
    """The summed log-probability of each row's targets in nats, added up in float64.

    Rows are padded on the right, which causal attention never looks at. ``on_done`` is called with the number
    of rows just finished.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
    sums = [0.0] * len(rows)
    begin = 0
    while begin < len(order):
        width = max(1, len(rows[order[begin]][0]))
        chosen = order[begin : begin + max(1, BATCH_TOKENS // width)]
        for place, total in zip(chosen, _batch(model, [rows[i] for i in chosen], width), strict=True):
            sums[place] = total
        begin += len(chosen)
        if on_done is not None:
            on_done(len(chosen))
    return sums


def _batch(model: Transformer, rows: Sequence[Row], width: int) -> list[float]:
    """Summed log-probabilities of rows of at most ``width`` tokens."""
    device = model.head_weight.device
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row, _ in rows], device=device)
    targets = torch.tensor([[*row, *[IGNORE] * (width - len(row))] for _, row in rows], device=device)
    scored = targets != IGNORE
    hidden = model(ids)[scored]  # [N, D]
    logprobs = _logprobs(model, hidden, targets[scored])
    totals = torch.zeros(len(rows), dtype=torch.float64)
    totals.index_add_(0, scored.nonzero()[:, 0].cpu(), logprobs)
    return totals.tolist()


def _logprobs(model: Transformer, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities [N] float64 on the CPU, the head applied to a bounded number of places at a time."""
    size = max(1, LOGITS // model.arch.vocabulary_size)
    parts = [
        token_logprobs(hidden[begin : begin + size], model.head, targets[begin : begin + size])
        for begin in range(0, len(targets), size)
    ]
    return torch.cat(parts).cpu().double() if parts else torch.zeros(0, dtype=torch.float64)
