"""The original transformer: the encoder-decoder of "Attention Is All You Need" (Vaswani et al. 2017, arXiv 1706.03762).

Read with the paper beside it: sections and equations are named where they are built. The parts are those of the
decoder-only models: ``attend.py``, ``feed_forward.py`` with ReLU, ``norm.py``, the sinusoids of ``positions.py``.
"""

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from groundup.model.architecture import Architecture, Record
from groundup.model.attend import PLAIN, attend
from groundup.model.feed_forward import FeedForward
from groundup.model.layers import Embedding, Linear
from groundup.model.losses import IGNORE, Head, head_logits
from groundup.model.masks import Sight, causal_mask
from groundup.model.norm import make_norm
from groundup.model.positions import sinusoidal_table
from groundup.recipe.seq2seq import EncoderDecoderShape

KeysValues = tuple[Tensor, Tensor]
"""Keys and values by heads, each [B, H, S, d]."""


class EncoderDecoderArchitecture(EncoderDecoderShape, Record):
    """All that is needed to build the model: a recipe's shape and the sizes of its vocabularies.

    Raises:
        pydantic.ValidationError: (a ``ValueError``) for a value out of range, an unknown key, or choices that don't
            go together.
    """

    source_vocabulary: int = Field(ge=1, description="Rows of the source's embedding table. Unit: words.")
    target_vocabulary: int = Field(ge=1, description="Rows of the target's. Unit: words.")
    pad: int = Field(default=0, ge=0, description="The id that fills a row up; attention never looks at it.")

    @model_validator(mode="after")
    def _shared_is_one(self) -> EncoderDecoderArchitecture:
        if self.embeddings == "shared" and self.source_vocabulary != self.target_vocabulary:
            raise ValueError(
                f"shared embeddings need one vocabulary: {self.source_vocabulary} and {self.target_vocabulary} words"
            )
        return self

    @classmethod
    def from_section(cls, shape: EncoderDecoderShape, source_vocabulary: int, target_vocabulary: int) -> Self:
        """The architecture of a recipe's shape, for vocabularies of these sizes."""
        sizes = {"source_vocabulary": source_vocabulary, "target_vocabulary": target_vocabulary}
        return cls.from_dict(shape.model_dump() | sizes)

    def parts(self) -> Architecture:
        """The same as the decoder-only models' parts know it: LayerNorm, ReLU, biases in the feed-forward layer."""
        same = {"layers", "hidden_size", "heads", "intermediate_size", "context_length"}
        return Architecture(
            **self.model_dump(include=same),
            vocabulary_size=self.target_vocabulary,
            kv_heads=self.heads,
            positions="sinusoidal",
            qk_norm="none",
            biases="all",
            feed_forward="relu",
            norm="layer",
            norm_placement="post",
        )


class MultiHeadAttention(nn.Module):
    """Attention of any sequence to any other, by several heads (section 3.2.2)."""

    def __init__(self, arch: EncoderDecoderArchitecture) -> None:
        super().__init__()
        self.heads = arch.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            Linear(arch.hidden_size, arch.hidden_size, bias=False) for _ in range(4)
        )

    def forward(self, value: Tensor, key: Tensor, query: Tensor, mask: Tensor) -> Tensor:
        """Concat(head_1 … head_h) W^O, where head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V) (eq. 1).

        Args:
            value, key: [B, S, D]; query: [B, T, D].
            mask: bool, broadcastable to [B, H, T, S], true where a query may look at a key.

        Returns:
            [B, T, D].
        """
        return self.look(query, self.remember(value, key), mask)

    def remember(self, value: Tensor, key: Tensor) -> KeysValues:
        """Keys and values by heads, each [B, H, S, d]: what a cache keeps."""
        return self._by_head(self.k_proj(key)), self._by_head(self.v_proj(value))

    def look(self, query: Tensor, seen: KeysValues, mask: Tensor) -> Tensor:
        """The attention of ``query`` [B, T, D] to keys and values that are made already."""
        q = self._by_head(self.q_proj(query))
        mixed: Tensor = self.o_proj(attend(q, *seen, Sight(mask), PLAIN).transpose(1, 2).flatten(2))
        return mixed

    def _by_head(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Self-attention, then feed-forward; each LayerNorm(x + Dropout(Sublayer(x))) (sections 3.1 and 5.4)."""

    def __init__(self, arch: EncoderDecoderArchitecture) -> None:
        super().__init__()
        parts = arch.parts()
        self.dropout = nn.Dropout(arch.dropout)
        self.self_attn = MultiHeadAttention(arch)
        self.self_attn_layer_norm = make_norm(parts, arch.hidden_size)
        self.mlp = FeedForward(parts, arch.intermediate_size)
        self.mlp_layer_norm = make_norm(parts, arch.hidden_size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, S, D] to [B, S, D]; mask as for :class:`MultiHeadAttention`."""
        x = self.self_attn_layer_norm(x + self.dropout(self.self_attn(x, x, x, mask)))
        out: Tensor = self.mlp_layer_norm(x + self.dropout(self.mlp(x)))
        return out


class DecoderBlock(nn.Module):
    """Masked self-attention, attention to the encoder's output, feed-forward; each post-norm."""

    def __init__(self, arch: EncoderDecoderArchitecture) -> None:
        super().__init__()
        parts = arch.parts()
        self.dropout = nn.Dropout(arch.dropout)
        self.self_attn = MultiHeadAttention(arch)
        self.self_attn_layer_norm = make_norm(parts, arch.hidden_size)
        self.cross_attn = MultiHeadAttention(arch)
        self.cross_attn_layer_norm = make_norm(parts, arch.hidden_size)
        self.mlp = FeedForward(parts, arch.intermediate_size)
        self.mlp_layer_norm = make_norm(parts, arch.hidden_size)

    def forward(self, x: Tensor, own: KeysValues, causal: Tensor, memory: KeysValues, seen: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D].

        Args:
            own: keys and values of the target up to now, those of ``x`` included.
            causal: bool [T, S], which of them each place may see.
            memory: keys and values of the source.
            seen: bool [B, 1, 1, S], true where the source is no padding.
        """
        x = self.self_attn_layer_norm(x + self.dropout(self.self_attn.look(x, own, causal)))
        x = self.cross_attn_layer_norm(x + self.dropout(self.cross_attn.look(x, memory, seen)))
        out: Tensor = self.mlp_layer_norm(x + self.dropout(self.mlp(x)))
        return out


class Encoder(nn.Module):
    """The stack that reads the source."""

    def __init__(self, arch: EncoderDecoderArchitecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderBlock(arch) for _ in range(arch.layers))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, S, D] to [B, S, D]."""
        for block in self.layers:
            x = block(x, mask)
        return x


class Decoder(nn.Module):
    """The stack that writes the target."""

    def __init__(self, arch: EncoderDecoderArchitecture) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderBlock(arch) for _ in range(arch.layers))

    def blocks(self) -> list[DecoderBlock]:
        """The layers, from the first."""
        return [block for block in self.layers if isinstance(block, DecoderBlock)]


class Memory:
    """What decoding remembers: each layer's keys and values of the source, made once, and of the target so far."""

    def __init__(self, source: list[KeysValues], seen: Tensor) -> None:
        self.source, self.seen = source, seen
        self.target: list[KeysValues] = []

    @property
    def length(self) -> int:
        """Places of the target so far."""
        return self.target[0][0].shape[2] if self.target else 0

    def extend(self, layer: int, new: KeysValues) -> KeysValues:
        """Add a layer's new keys and values; all of them so far."""
        if layer == len(self.target):
            self.target.append(new)
        else:
            keys, values = self.target[layer]
            self.target[layer] = torch.cat((keys, new[0]), dim=2), torch.cat((values, new[1]), dim=2)
        return self.target[layer]

    def keep(self, rows: Tensor, *, same_sources: bool = False) -> None:
        """Take over these rows [n] (int64), in their order; any may come twice.

        ``same_sources``: each row's source stays what it was, so it is not copied.
        """
        self.target = [(keys[rows], values[rows]) for keys, values in self.target]
        if not same_sources:
            self.source = [(keys[rows], values[rows]) for keys, values in self.source]
            self.seen = self.seen[rows]


class EncoderDecoder(nn.Module):
    """Source ids and the target so far to hidden states, of which :attr:`head` makes the scores of the next word."""

    def __init__(self, arch: EncoderDecoderArchitecture) -> None:
        super().__init__()
        self.arch = arch
        self.encoder, self.decoder = Encoder(arch), Decoder(arch)
        self.embed_target = Embedding(arch.target_vocabulary, arch.hidden_size)
        if arch.embeddings != "shared":
            self.embed_source = Embedding(arch.source_vocabulary, arch.hidden_size)
        if arch.embeddings == "separate":
            self.lm_head = Linear(arch.hidden_size, arch.target_vocabulary, bias=False)
        self.dropout = nn.Dropout(arch.dropout)
        self.position_table: Tensor
        self.register_buffer(
            "position_table", sinusoidal_table(arch.context_length, arch.hidden_size), persistent=False
        )

    @property
    def head(self) -> Head:
        """What makes logits: the target's embedding itself, unless they are separate (section 3.4)."""
        return Head(self.lm_head.weight if self.arch.embeddings == "separate" else self.embed_target.weight)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Hidden states of every place of the target, each knowing the source and the target up to itself.

        Args:
            source: [B, S] int64 ids, padded on the right with ``arch.pad``; at least one of a row is no padding.
            target: [B, T] int64 ids, padded likewise. A place never sees a later one, so padding changes nothing.

        Returns:
            [B, T, D]. Raises ``IndexError`` for sequences longer than the model's context.
        """
        return self.decode(target, self.encode(source))

    def encode(self, source: Tensor) -> Memory:
        """Read the source [B, S]: what :meth:`decode` looks at."""
        seen = (source != self.arch.pad)[:, None, None]  # [B, 1, 1, S]
        x = self._embed(source, self.embed_target if self.arch.embeddings == "shared" else self.embed_source, 0)
        x = self.encoder(x, seen)
        return Memory([block.cross_attn.remember(x, x) for block in self.decoder.blocks()], seen)

    def decode(self, target: Tensor, memory: Memory) -> Tensor:
        """Hidden states [B, T, D] of the next places [B, T] of the target; ``memory`` then knows these too."""
        begin, count = memory.length, target.shape[1]
        x = self._embed(target, self.embed_target, begin)
        causal = causal_mask(count, begin + count, target.device)
        for layer, block in enumerate(self.decoder.blocks()):
            own = memory.extend(layer, block.self_attn.remember(x, x))
            x = block(x, own, causal, memory.source[layer], memory.seen)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the target's vocabulary, [..., D] to [..., V]."""
        return head_logits(hidden, self.head)

    def _embed(self, ids: Tensor, table: nn.Embedding, begin: int) -> Tensor:
        """Embeddings times sqrt(D), plus sinusoids, with dropout (sections 3.4, 3.5 and 5.4): [B, T] to [B, T, D]."""
        end = begin + ids.shape[1]
        if end > self.arch.context_length:
            raise IndexError(f"{end} places, and the model's context is {self.arch.context_length}")
        x = table(ids) * math.sqrt(self.arch.hidden_size) + self.position_table[begin:end]
        out: Tensor = self.dropout(x)
        return out


@torch.no_grad()
def initialise_encoder_decoder(model: EncoderDecoder, seed: int) -> None:
    """Fill the weights in place from a seed, in the order of their names.

    Matrices are uniform in ±sqrt(6 / (rows + columns)) (Glorot and Bengio 2010, eq. 16). Embeddings, and a head of its
    own, are normal with variance 1 / D, so that times sqrt(D) they are of the size of the sinusoids, and as output
    matrix they give scores of about 1. Biases begin at 0, gains at 1. The paper doesn't say; the authors' own code
    begins so.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        if weight.ndim == 1:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
        elif name.startswith(("embed_", "lm_head")):
            weight.copy_(torch.randn(weight.shape, generator=generator) * weight.shape[1] ** -0.5)
        else:
            limit = math.sqrt(6 / sum(weight.shape))
            weight.copy_((2 * torch.rand(weight.shape, generator=generator) - 1) * limit)


def smoothed_cross_entropy_sum(hidden: Tensor, head: Head, targets: Tensor, smoothing: float) -> Tensor:
    """Summed cross-entropy in nats against (1 - ε) · the target + ε · the uniform distribution over the vocabulary
    (Szegedy et al. 2016, arXiv 1512.00567, section 7; here ε_ls of section 5.4). Whoever calls divides by a count.

    Args:
        hidden: [B, T, D]; targets: [B, T] int64 ids, or :data:`IGNORE` where nothing is scored.
        smoothing: ε.

    Returns:
        a float32 scalar; its least value is the entropy of the smoothed targets, not 0.
    """
    scored = targets != IGNORE
    logits = head_logits(hidden[scored], head).float()
    return F.cross_entropy(logits, targets[scored], reduction="sum", label_smoothing=smoothing)


def encoder_decoder_flops(arch: EncoderDecoderArchitecture, source: int, target: int, rows: int) -> float:
    """Training FLOPs of ``rows`` sentence pairs with so many words of source and target in all, padding not counted.

    6 a word and parameter that multiplies it, of which 2 are the forward pass; the decoder's keys and values of the
    source are made of source words. To that 12 · D a pair of places that attention compares; lengths are taken at
    their mean.
    """
    square, mlp = arch.hidden_size**2, 2 * arch.hidden_size * arch.intermediate_size
    of_source = arch.layers * (6 * square + mlp)
    of_target = arch.layers * (6 * square + mlp) + arch.hidden_size * arch.target_vocabulary
    compared = (source**2 + target**2 / 2 + source * target) / max(rows, 1)
    return 6.0 * (of_source * source + of_target * target) + 12.0 * arch.layers * arch.hidden_size * compared
