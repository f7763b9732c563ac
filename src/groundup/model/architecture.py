"""The shape of a transformer: every number that decides its tensors, in one frozen record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from groundup.recipe import ModelSection


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a model. It travels with the weights, in config.json."""

    vocabulary_size: int
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    context_length: int
    positions: str = "rotary"
    rope_theta: float = 10_000.0
    qk_norm: bool = True
    tied_embeddings: bool = True
    norm_eps: float = 1e-6
    initializer_range: float = 0.02
    attention_start: str = "zero"

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.positions not in ("rotary", "learned", "sinusoidal"):
            raise ValueError(f"positions must be rotary, learned or sinusoidal, not {self.positions!r}")
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions turn pairs: head_dim must be even, not {self.head_dim}")
        if self.attention_start not in ("zero", "lookup"):
            raise ValueError(f"attention_start must be zero or lookup, not {self.attention_start!r}")
        if self.attention_start == "lookup" and not (self.stock_layout and self.head_dim <= self.hidden_size):
            raise ValueError("attention that starts as look-up needs rotary positions, QK-norm and head_dim <= width")

    @classmethod
    def from_section(cls, section: ModelSection, vocabulary_size: int) -> Architecture:
        """The architecture that a recipe's [model] section describes, for a tokenizer of this size."""
        return cls(
            vocabulary_size=vocabulary_size,
            layers=section.layers,
            hidden_size=section.hidden_size,
            heads=section.heads,
            kv_heads=section.kv_heads,
            head_dim=section.head_dim or section.hidden_size // section.heads,
            intermediate_size=section.intermediate_size,
            context_length=section.context_length,
            positions=section.positions,
            rope_theta=section.rope_theta,
            qk_norm=section.qk_norm,
            tied_embeddings=section.tied_embeddings,
            norm_eps=section.norm_eps,
            initializer_range=section.initializer_range,
            attention_start=section.attention_start,
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record; :meth:`from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Architecture:
        """Read the record of :meth:`to_dict`. Raises ``TypeError`` for unknown or missing keys."""
        return cls(**record)

    @property
    def stock_layout(self) -> bool:
        """Whether stock tools know this architecture (as Qwen3ForCausalLM)."""
        return self.positions == "rotary" and self.qk_norm


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by part of the model."""

    embedding: int
    positions: int
    attention: int
    feed_forward: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


def parameter_count(arch: Architecture) -> ParameterCount:
    """Count the parameters of a model without building it."""
    d, hd = arch.hidden_size, arch.head_dim
    attention = d * hd * (2 * arch.heads + 2 * arch.kv_heads)
    norms = 2 * d + (2 * hd if arch.qk_norm else 0)
    return ParameterCount(
        embedding=arch.vocabulary_size * d,
        positions=arch.context_length * d if arch.positions == "learned" else 0,
        attention=arch.layers * attention,
        feed_forward=arch.layers * 3 * d * arch.intermediate_size,
        norms=arch.layers * norms + d,
        head=0 if arch.tied_embeddings else arch.vocabulary_size * d,
    )


def flops_per_token(arch: Architecture, context: int) -> float:
    """Training FLOPs (forward and backward) for one token of a row of ``context`` tokens, causal convention.

    Six for each parameter that multiplies activations, the head included whether tied or not (Kaplan et al. 2020,
    arXiv 2001.08361, eq. 2.1-2.2), and 6 · layers · heads · head_dim · context for the lower triangle of the
    attention scores and of their product with the values (half of PaLM's 12, appendix B of arXiv 2204.02311).
    """
    count = parameter_count(arch)
    head = arch.vocabulary_size * arch.hidden_size
    matmul = count.attention + count.feed_forward + head
    return 6.0 * matmul + 6.0 * arch.layers * arch.heads * arch.head_dim * context
