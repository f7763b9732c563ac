"""Fresh weights: the usual random start, and one whose attention heads already know how to look things up."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from groundup.model.architecture import Architecture
from groundup.model.attention import Attention
from groundup.model.norm import RMSNorm
from groundup.model.transformer import Transformer

SHARED_DIRECTION = 0.5
"""Length of the vector that all embeddings share, in units of an embedding's own: what a head that looks at a place,
whatever stands there, makes its queries and keys of."""
OFFSETS = {"previous": 1.0, "recent": 3.0}
"""How many tokens back the heads of the first block look, at the centre."""
FAST, MIDDLE, SLOW = 0.15, (0.05, 0.5), 5.0
"""Rotary frequencies, in radians a token: above FAST neighbours are told apart, within MIDDLE stretches of a few
tokens, and content is compared on the pairs that turn by less than SLOW over the whole context, if half of them do."""
PLACE_GAIN, MATCH_GAIN = 3.0, 1.7
"""Gains of the query norm where a head begins by place (fast pairs only) and where it begins by content."""
DAMPING = 0.1
LOOKUPS = (("previous", "own", "previous"), ("own", "previous", "own"), ("previous", "recent", "own"),
           ("recent", "recent", "own"))  # fmt: skip
"""What the heads above the first block compare (query, key) and what they then copy (value). The second is the
induction head of Olsson et al. 2022 (arXiv 2209.11895); the first finds what stood before a word that was just said;
the others find words that stood near one."""


def fresh_model(arch: Architecture, seed: int, device: str | torch.device = "cpu") -> Transformer:
    """A model with fresh weights (see :func:`initialise`) on a device: built without memory first, then filled."""
    with torch.device("meta"):
        model = Transformer(arch)
    model.to_empty(device=device)
    initialise(model, seed)
    return model


@torch.no_grad()
def initialise(model: Transformer, seed: int) -> None:
    """Fill the weights in place, each from the seed and its name: what two architectures share begins the same.

    - Embeddings and a head of its own: normal, ``initializer_range`` (0.02 is GPT-2's).
    - Matrices: normal, fan-in^-0.5, so that what comes in at unit variance goes out so (LeCun et al. 1998, "Efficient
      BackProp", section 4.6).
    - The two of a block that write into the residual stream: 0, so that it begins as the identity (Zhang et al. 2019,
      arXiv 1901.09321); with ``residual_start = "scaled"`` normal, fan-in^-0.5 / sqrt(2 · layers) (GPT-2, section 2.3).
      Where a norm stands behind them, it begins at 0 in their stead: the norm of anything small is large.
    - Routers: normal, (0.1 / fan-in)^0.5, so that experts begin evenly used (Fedus et al. 2021, arXiv 2101.03961,
      section 2.4).
    - Value embeddings: normal, hidden_size^-0.5; their gates 0, which lets all through (after nanochat).
    - Embeddings of pairs, x0 skips, biases and sinks: 0. Gains and residual scalars: 1.

    Where the architecture says so, attention then begins as :func:`lookup_attention`.
    """
    model.model.fill_tables()
    offsets = {id(w) for m in model.modules() if isinstance(m, RMSNorm) and m.offset for w in m.parameters()}
    closed = CLOSING if _closes(model.arch) else ()
    for name, weight in model.named_parameters():
        if name.endswith(ZERO):
            weight.zero_()
        elif weight.ndim == 1:
            weight.fill_((0.0 if name.endswith(closed) else 1.0) - (1.0 if id(weight) in offsets else 0.0))
        elif (std := _deviation(name, weight, model.arch)) == 0.0:
            weight.zero_()
        else:
            weight.copy_(torch.randn(weight.shape, generator=_generator(seed, name)) * std)
    if model.arch.attention_start == "lookup":
        lookup_attention(model, _generator(seed, "lookup"))


ZERO = (".bias", ".sinks", ".x0_scale", ".value_gate.weight", ".embed_bigrams.weight")
"""Endings of the names of what begins at zero in every architecture."""
CLOSING = ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")
"""Endings of the names of norms behind attention and feed-forward, where the placement has them there."""


def _closes(arch: Architecture) -> bool:
    """Whether norms keep the residual stream closed at first, and not the matrices before them."""
    return arch.residual_start == "zero" and arch.norm_placement in ("sandwich", "output")


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def _deviation(name: str, weight: Tensor, arch: Architecture) -> float:
    """The standard deviation that a matrix begins with; the table of :func:`initialise`."""
    fan_in = float(weight.shape[-1])
    if name.startswith(("model.embed", "lm_head")):
        return arch.initializer_range
    if name.startswith("model.value_embeddings."):
        return float(arch.hidden_size**-0.5)
    if name.endswith(".mlp.gate.weight"):
        return math.sqrt(0.1 / fan_in)
    if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
        return 0.0 if arch.residual_start == "zero" and not _closes(arch) else (fan_in * 2 * arch.layers) ** -0.5
    return float(fan_in**-0.5)


@torch.no_grad()
def renew_blocks(model: Transformer, count: int, seed: int) -> None:
    """Give the last ``count`` blocks the weights with which :func:`initialise` began; embeddings and the rest stay.

    The seed is that of the model's own beginning: look-up attention reads a direction of the embeddings drawn from it.
    After Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning" (arXiv 2006.05987).

    Raises:
        ValueError: the model has fewer blocks.
    """
    layers = model.arch.layers
    if not 0 <= count <= layers:
        raise ValueError(f"{count} blocks of {layers} cannot begin anew")
    if count == 0:
        return
    fresh = fresh_model(model.arch, seed)
    blocks, begun = list(model.model.layers), list(fresh.model.layers)
    for block, new in zip(blocks[layers - count :], begun[layers - count :], strict=True):
        block.load_state_dict(new.state_dict())


@torch.no_grad()
def lookup_attention(model: Transformer, generator: torch.Generator) -> None:
    """Have attention begin with the circuit that in-context look-up needs, instead of waiting for it to form.

    In the first block half of the heads look at the token before, the others at the few before that, each kind
    writing what it reads into a subspace of its own. The heads of the later blocks compare a token's own or nearby
    content with that of earlier tokens, and copy what they find. Ordinary training takes long to find the two halves
    of this circuit, for neither pays without the other (Singh et al. 2024, arXiv 2404.07129); given both, the rest
    is quick. All of it is a choice of starting weights: the layout is the usual one, and training may undo it.

    With grouped queries the first query of each group begins so; the others begin at random and add nothing yet.
    """
    arch = model.arch
    width, kv_heads = arch.resolved_head_dim, arch.kv_heads
    identity = torch.eye(arch.hidden_size)
    shared = torch.randn(arch.hidden_size, generator=generator)
    shared /= shared.norm()
    scale = SHARED_DIRECTION * arch.initializer_range * math.sqrt(arch.hidden_size)
    model.model.embed_tokens.weight.add_(scale * shared)
    content = identity - torch.outer(shared, shared)  # everything but the shared direction
    frequencies = arch.rope_theta ** (-torch.arange(0, width, 2) / width)
    reads, writes = (_frames(arch.hidden_size, width, generator) for _ in range(2))

    every = [block.self_attn for block in model.model.layers]
    blocks = [attention for attention in every if isinstance(attention, Attention)]
    first = blocks[0]
    maps = {"own": identity} | {name: torch.zeros_like(identity) for name in OFFSETS}
    kinds = ["previous" if 2 * head < kv_heads else "recent" for head in range(kv_heads)]
    for head, kind in enumerate(kinds):
        read, write = next(reads), next(writes)
        query, key = _place(frequencies, kind)
        _set_head(first, head, torch.outer(query, shared), torch.outer(key, shared), read @ content, write.T)
        maps[kind] += read.T @ write
    if "recent" not in kinds:
        maps["recent"] = maps["previous"]
    _gain(first, torch.where(frequencies > FAST, PLACE_GAIN, 1.0))

    damped = (frequencies > SLOW / arch.context_length) & (torch.arange(width // 2) < width // 4)
    damping = torch.where(damped, DAMPING, 1.0).repeat(2)[:, None]
    for block in blocks[1:]:
        for head in range(kv_heads):
            query_of, key_of, value_of = (maps[name] @ content for name in LOOKUPS[head % len(LOOKUPS)])
            match, copy = damping * next(reads), next(writes)
            _set_head(block, head, match @ query_of, match @ key_of, copy @ value_of, copy.T)
        _gain(block, torch.full_like(frequencies, MATCH_GAIN))


def _frames(size: int, width: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random orthonormal rows [width, size] without end, as many at a time orthogonal to each other as there can be."""
    while True:
        basis = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
        yield from basis[: size // width * width].split(width)


def _place(frequencies: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Query and key vectors [width] whose rotary product is greatest where the key stands the kind's offset before."""
    chosen = frequencies > FAST if kind == "previous" else (frequencies > MIDDLE[0]) & (frequencies < MIDDLE[1])
    size = chosen.float() / chosen.sum().clamp(min=1).sqrt()
    angles = frequencies * OFFSETS[kind]
    return torch.cat((size, torch.zeros_like(size))), torch.cat((size * angles.cos(), size * angles.sin()))


def _set_head(attention: Attention, head: int, query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Write one key-value head [width, D] and the first query of its group; output is [D, width]."""
    width = attention.head_dim
    of_kv = slice(head * width, (head + 1) * width)
    start = head * (attention.heads // attention.kv_heads) * width
    attention.q_proj.weight[start : start + width] = query
    attention.k_proj.weight[of_kv] = key
    attention.v_proj.weight[of_kv] = value
    attention.o_proj.weight[:, start : start + width] = output


def _gain(attention: Attention, gains: Tensor) -> None:
    """Sharpen the queries, pair by pair: ``gains`` is [width / 2]."""
    for weight in attention.q_norm.parameters():
        weight.copy_(gains.repeat(2))
