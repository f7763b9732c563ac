"""Scores to weighted sums: the formula written out, and the same by fused kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model.attend_cpu import attend_cpu, pays
from groundup.model.flex import attend_flex
from groundup.model.masks import Scoring, Sight, causal_mask

PLAIN = Scoring()
Kernel = Callable[[Tensor, Tensor, Tensor, Sight, Scoring], Tensor]
"""q [B, H, T, d], k [B, G, S, d], v [B, G, S, e] with G dividing H, to [B, H, T, e]."""


def attend_reference(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, rule: Scoring = PLAIN, distance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """softmax(QKᵀ / √d + mask) V, written out (Vaswani et al. 2017, eq. 1). Also returns the weights.

    Args:
        q: [B, H, T, d]; k: [B, H, S, d]; v: [B, H, S, e].
        mask: bool, broadcastable to [B, H, T, S], true where attention is allowed; None = causal, the
            queries being the last T of S places.
        rule: what else happens to the scores.
        distance: [B, 1, T, S], needed for slopes.

    Returns:
        the sum [B, H, T, e] and the weights [B, H, T, S], in float32 at least.
    """
    scores = (q @ k.transpose(-2, -1)).to(torch.promote_types(q.dtype, torch.float32))
    scores = scores / math.sqrt(q.shape[-1]) if rule.scale is None else scores * rule.scale
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if rule.slopes is not None and distance is not None:
        scores = scores - rule.slopes[:, None, None] * distance
    if mask is None:
        mask = causal_mask(q.shape[-2], k.shape[-2], q.device)
    scores = scores.masked_fill(~mask, float("-inf"))
    if rule.sinks is not None:  # one more key, whose value is nothing
        nothing = rule.sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, nothing), dim=-1)
    weights = scores.softmax(dim=-1)[..., : k.shape[-2]]
    kept = F.dropout(weights, rule.dropout) if rule.dropout else weights
    return kept.to(v.dtype) @ v, weights


def reference_kernel(q: Tensor, k: Tensor, v: Tensor, sight: Sight, rule: Scoring) -> Tensor:
    """:func:`attend_reference` as a kernel."""
    k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    return attend_reference(q, k, v, sight.mask, rule, sight.distance)[0]


def attend(q: Tensor, k: Tensor, v: Tensor, sight: Sight, rule: Scoring) -> Tensor:
    """The same sum by PyTorch's fused kernels, which keep no weights.

    FlexAttention where its block mask was made; else ``scaled_dot_product_attention``, with slopes and sinks as a
    mask that is added. No such kernel bends scores: a soft cap without FlexAttention is written out.
    """
    v = v.to(q.dtype)
    if sight.blocks is not None:
        return attend_flex(q, k, v, sight, rule)
    if rule.softcap is not None:
        return reference_kernel(q, k, v, sight, rule)
    plain = rule.slopes is None and rule.sinks is None and not rule.dropout and v.shape == k.shape
    if plain and sight.mask is not None and pays(q, k):
        return attend_cpu(q, k, v, sight, rule.scale)
    # Shared heads left unrepeated make a decoding step's attention on a CPU 2 to 17 times cheaper; CUDA's kernel for
    # masks takes none.
    grouped = q.device.type == "cpu"
    if not grouped:
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
    mask = sight.mask
    if rule.slopes is not None or rule.sinks is not None:
        mask = _added(q, k, sight, rule)
        if rule.sinks is not None:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
    elif mask is None and q.shape[2] != k.shape[2]:  # the kernel's own causal mask begins at the first key
        mask = causal_mask(q.shape[2], k.shape[2], q.device)
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=mask is None,
        scale=rule.scale,
        dropout_p=rule.dropout,
        enable_gqa=grouped and k.shape[1] != q.shape[1],
    )


def _added(q: Tensor, k: Tensor, sight: Sight, rule: Scoring) -> Tensor:
    """Mask, slopes and sinks as what is added to the scores, [B, H, T, S or S + 1] in the dtype of ``q``."""
    mask = sight.mask
    if mask is None:
        mask = causal_mask(q.shape[-2], k.shape[-2], q.device)
    wide = torch.promote_types(q.dtype, torch.float32)
    added = torch.zeros(mask.shape, dtype=wide, device=q.device).masked_fill(~mask, float("-inf"))
    if rule.slopes is not None and sight.distance is not None:
        added = added - rule.slopes[:, None, None] * sight.distance
    if rule.sinks is not None:
        nothing = rule.sinks.to(added.dtype)[:, None, None]
        shape = (q.shape[0], q.shape[1], *q.shape[2:3])
        added = torch.cat((added.expand(*shape, k.shape[-2]), nothing.expand(*shape, 1)), dim=-1)
    return added.to(q.dtype)


def repeat_heads(x: Tensor, heads: int) -> Tensor:
    """Each key or value head as often as queries share it: [B, G, S, d] to [B, heads, S, d]."""
    groups = x.shape[1]
    return x if groups == heads else x.repeat_interleave(heads // groups, dim=1)
