"""Validation while training: bits per byte, or the mean loss of supervised tokens, over a fixed set of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from groundup.model import IGNORE, PackedMask, Transformer, scored_logprobs
from groundup.tokenizer import PackedRows, Tokenizer, TokenShards
from groundup.training.objective import to_tensors

VALIDATION_TOKENS = 32_768
ROWS = 16


def validator(
    shards: Path, tokenizer: Tokenizer, length: int, device: str, *, tokens: int = VALIDATION_TOKENS
) -> Callable[[Transformer], dict[str, float]] | None:
    """A function that measures a model on the first ``tokens`` packed tokens of ``shards``.

    It returns ``bits_per_byte`` (targets that stand for no bytes, special tokens, count neither bits nor bytes) and
    ``validation_loss`` (nats per target, all of them). float32 throughout, sums in float64. None where the shards
    hold nothing to predict.
    """
    data = TokenShards(shards)
    if not np.any(data.lengths > 1):
        return None
    rows = PackedRows(data, length, seed=0, packing="best_fit")
    count = max(1, min(tokens // length, rows.rows(0)))
    sizes = torch.tensor(tokenizer.token_bytes(), dtype=torch.float64, device=device)

    @torch.no_grad()
    def measure(model: Transformer) -> dict[str, float]:
        nats, text_nats, text_bytes, targets = 0.0, 0.0, 0.0, 0
        for start in range(0, count, ROWS):
            batch = to_tensors(rows.batch(range(start, min(start + ROWS, count))), device)
            hidden = model(batch["ids"], positions=batch["positions"], mask=PackedMask(batch["documents"]))
            logprobs = scored_logprobs(hidden, model.head, batch["targets"]).double()
            scored = batch["targets"] != IGNORE
            size = torch.where(scored, sizes[batch["targets"].clamp(min=0)], 0.0)
            nats -= logprobs.sum().item()
            text_nats -= logprobs[size > 0].sum().item()
            text_bytes += size.sum().item()
            targets += int(scored.sum().item())
        measured = {"validation_loss": nats / max(targets, 1)}
        if text_bytes:
            measured["bits_per_byte"] = text_nats / (math.log(2) * text_bytes)
        return measured

    return measure
