"""``[model]``: the shape of the transformer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from groundup.recipe.base import Section


class ModelSection(Section):
    """A decoder in the Qwen3 layout: RMSNorm first, rotary positions, grouped queries, SwiGLU."""

    layers: int = Field(default=4, ge=1, description="Number of transformer blocks.")
    hidden_size: int = Field(default=192, ge=8, description="Width of the residual stream. Unit: channels.")
    heads: int = Field(default=4, ge=1, description="Number of query heads.")
    kv_heads: int = Field(
        default=4,
        ge=1,
        description="Number of key and value heads: equal to heads is multi-head, 1 is multi-query, "
        "between is grouped-query attention.",
    )
    head_dim: int | None = Field(
        default=None, ge=2, description="Width of one head; absent means hidden_size / heads. Unit: channels."
    )
    intermediate_size: int = Field(
        default=512, ge=8, description="Inner width of the feed-forward layer. Unit: channels."
    )
    context_length: int = Field(default=512, ge=8, description="Longest sequence the model is made for. Unit: tokens.")
    positions: Literal["rotary", "learned", "sinusoidal"] = Field(
        default="rotary",
        description="How the model knows positions. Only `rotary` has a stock layout for export.",
    )
    rope_theta: float = Field(default=10_000.0, gt=1, description="Base wavelength of rotary positions.")
    qk_norm: bool = Field(
        default=True, description="Whether queries and keys are normalised head by head (Qwen3 does)."
    )
    tied_embeddings: bool = Field(default=True, description="Whether the output head is the embedding table itself.")
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the mean square inside every RMSNorm.")
    initializer_range: float = Field(
        default=0.02, gt=0, description="Standard deviation of fresh embeddings and of a head of their own."
    )
    attention_start: Literal["zero", "lookup"] = Field(
        default="zero",
        description="How fresh attention begins: `zero` adds nothing at first; `lookup` already looks back at earlier "
        "words like the present ones and copies what stood near them, which small models otherwise learn late.",
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelSection:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads = {self.heads} must be a multiple of kv_heads = {self.kv_heads}")
        if self.head_dim is None and self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size = {self.hidden_size} must be a multiple of heads = {self.heads}, or set head_dim"
            )
        if self.positions == "rotary" and self.resolved_head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, not {self.resolved_head_dim}")
        able = self.positions == "rotary" and self.qk_norm and self.resolved_head_dim <= self.hidden_size
        if self.attention_start == "lookup" and not able:
            raise ValueError(
                'attention_start = "lookup" needs positions = "rotary", qk_norm = true and head_dim <= hidden_size'
            )
        return self

    @property
    def resolved_head_dim(self) -> int:
        """Width of one head in channels."""
        return self.head_dim or self.hidden_size // self.heads
