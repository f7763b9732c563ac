"""FlexAttention: one kernel for packed documents, windows, soft caps, slopes and sinks, that skips what nobody sees.

It is compiled for GPUs, where a dense mask of a long row costs more than the attention itself and where no other fused
kernel bends scores. On a CPU PyTorch runs it only to check results.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from groundup.model.masks import PackedMask, Scoring, Sight

LENGTH = 1024
"""Packed rows from this length on use it, on a GPU: a block is 128 tokens, and shorter rows have little to skip."""


def flex_wins(positions: Tensor, *, softcap: bool) -> bool:
    """Whether FlexAttention is the kernel for packed rows [B, T]: on a GPU, where rows are long or scores are bent."""
    return positions.is_cuda and (softcap or positions.shape[1] >= LENGTH)


def see_blocks(mask: PackedMask | None, positions: Tensor, window: int | None) -> Sight:
    """The sight of packed (or None: causal) rows, within a window of positions [B, T], block by block."""
    rows, length = positions.shape

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        allowed = q >= k
        if mask is not None:
            allowed = allowed & (mask.documents[b, q] == mask.documents[b, k])
            if mask.branches is not None:
                allowed = allowed & ((mask.branches[b, k] == 0) | (mask.branches[b, k] == mask.branches[b, q]))
        if window is not None:
            allowed = allowed & (positions[b, q] - positions[b, k] < window)
        return allowed

    make = _compiled(create_block_mask) if positions.is_cuda else create_block_mask
    blocks = make(sees, rows, None, length, length, device=positions.device)
    return Sight(None, blocks=blocks, positions=positions)


def _compiled(function: Any) -> Any:
    """The function compiled, without which it would hold every score or place at once; within a compiled graph it is
    compiled already."""
    return function if torch.compiler.is_compiling() else _compiled_apart(function)


@lru_cache(maxsize=2)
def _compiled_apart(function: Any) -> Any:
    return torch.compile(function, dynamic=False)


def attend_flex(q: Tensor, k: Tensor, v: Tensor, sight: Sight, rule: Scoring) -> Tensor:
    """Attention by FlexAttention; shapes and meaning as in ``attend``, without dropout.

    A sink takes its share of the weights after the fact: the output is multiplied by the share left to the keys,
    sigmoid(logsumexp of the scores - sink).
    """
    softcap, slopes, sinks, positions = rule.softcap, rule.slopes, rule.sinks, sight.positions

    def score(value: Tensor, b: Tensor, h: Tensor, q_at: Tensor, k_at: Tensor) -> Tensor:
        if softcap is not None:
            value = softcap * torch.tanh(value / softcap)
        if slopes is not None and positions is not None:
            value = value - slopes[h] * (positions[b, q_at] - positions[b, k_at])
        return value

    kernel: Any = _compiled(flex_attention) if q.is_cuda else flex_attention
    bent = None if softcap is None and slopes is None else score
    grouped = q.shape[1] != k.shape[1]
    if sinks is None:
        plain: Tensor = kernel(q, k, v, bent, sight.blocks, rule.scale, enable_gqa=grouped)
        return plain
    wanted = AuxRequest(lse=True)
    out, found = kernel(q, k, v, bent, sight.blocks, rule.scale, enable_gqa=grouped, return_aux=wanted)
    left = torch.sigmoid(found.lse - sinks.to(found.lse.dtype)[:, None])
    mixed: Tensor = out * left[..., None].to(out.dtype)
    return mixed
