"""Embeddings of pairs of tokens, in a table that pairs share by chance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model.masks import Mask, PackedMask

BIGRAM_FACTORS = (2_246_822_519, 3_266_489_917)
"""Primes (of xxHash) that mix the two ids of a pair; what is left after division by the number of rows is its row. No
small pair of differences sends two pairs to one row, whether tables have 2^n or a round number of rows."""


def ids_before(ids: Tensor, mask: Mask) -> Tensor:
    """The id before each of a row's [B, T]: of the column before, and where a branch begins, of the end of the prefix
    that its document's branches share. Anything at the row's first place, but nothing that stands later."""
    before = F.pad(ids[:, :-1], (1, 0))
    if not isinstance(mask, PackedMask) or mask.branches is None:
        return before
    branches = mask.branches
    columns = torch.arange(ids.shape[1], device=ids.device)
    shared = torch.where(branches == 0, columns, 0).cummax(1).values  # the last column of a prefix so far
    begins = (branches != 0) & F.pad(branches[:, 1:] != branches[:, :-1], (1, 0))
    return torch.where(begins, ids.gather(1, shared), before)


def bigram_rows(before: Tensor, ids: Tensor, rows: int) -> Tensor:
    """The row of each pair of tokens (the one before, this one), both [B, T], to [B, T] int64."""
    first, second = BIGRAM_FACTORS
    return (before * first + ids * second + 1) % rows


def bigram_embeddings(before: Tensor, ids: Tensor, positions: Tensor, table: Tensor) -> Tensor:
    """The rows of ``table`` [R, D] for pairs [B, T], to [B, T, D]; 0 at a document's first token, which has none
    before it (after modded-nanogpt, record 62)."""
    rows = F.embedding(bigram_rows(before, ids, len(table)), table)
    return rows * (positions > 0)[..., None].to(rows.dtype)
