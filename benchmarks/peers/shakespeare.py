"""What both sides of time_to_loss.py share: the text as numbers, and the one scorer.

Only the standard library, numpy and torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

TRAIN_SHARE = 0.9


def characters(text: Path) -> list[str]:
    """The alphabet of a text; the number of a character is its place here."""
    return sorted(set(text.read_text(encoding="utf-8")))


def splits(text: Path) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The first nine tenths of a text as numbers, and the rest: nanoGPT's split."""
    content, numbers = text.read_text(encoding="utf-8"), {c: i for i, c in enumerate(characters(text))}
    ids = np.array([numbers[character] for character in content], np.uint16)
    cut = int(len(ids) * TRAIN_SHARE)
    return ids[:cut], ids[cut:]


@torch.no_grad()
def score(logits: Callable[[Tensor], Tensor], ids: NDArray[np.uint16], length: int, rows: int = 64) -> float:
    """Nats per character over a split, each but the first predicted once, in float32 with sums in float64.

    The split is cut into windows of ``length``, and a character sees those before it in its window alone.

    Args:
        logits: [B, T] int64 ids to [B, T, V].
        length: what the model was trained to read.
    """
    whole = torch.from_numpy(ids.astype(np.int64))
    total, count = 0.0, 0
    last = (len(whole) - 1) // length * length
    pieces = list(whole[:last].view(-1, length).split(rows)), list(whole[1 : last + 1].view(-1, length).split(rows))
    if last < len(whole) - 1:
        pieces[0].append(whole[None, last:-1])
        pieces[1].append(whole[None, last + 1 :])
    for inputs, targets in zip(*pieces, strict=True):
        scores = logits(inputs).float()
        losses = torch.nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none")
        total += losses.double().sum().item()
        count += targets.numel()
    if count != len(ids) - 1 or not math.isfinite(total):
        raise ValueError(f"scored {count} of {len(ids) - 1} characters, {total} nats")
    return total / count
