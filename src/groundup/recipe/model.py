"""``[model]``: the shape of the transformer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from groundup.recipe.architectures import with_architecture
from groundup.recipe.base import Section

GATED = ("swiglu", "geglu", "geglu_tanh")
"""Feed-forward layers of three matrices: activation(gate(x)) · up(x), then down."""


class RopeScaling(Section):
    """How rotary positions are stretched over a longer context than they were trained for."""

    kind: Literal["linear", "yarn", "llama3"] = Field(
        description="`linear` divides every frequency (Chen et al. 2023, arXiv 2306.15595); `yarn` the slow ones only, "
        "and sharpens attention (Peng et al. 2023, arXiv 2309.00071); `llama3` the slow ones only (Llama 3.1)."
    )
    factor: float = Field(ge=1, description="How many times longer the context becomes.")
    original_context: int | None = Field(
        default=None, ge=8, description="The context before stretching; `yarn` and `llama3` need it. Unit: tokens."
    )
    low_frequency_factor: float = Field(
        default=1.0, gt=0, description="llama3: waves longer than original_context / this are stretched wholly."
    )
    high_frequency_factor: float = Field(
        default=4.0, gt=0, description="llama3: waves shorter than original_context / this stay as they are."
    )
    beta_fast: float = Field(default=32.0, gt=0, description="yarn: pairs that turn more often than this stay.")
    beta_slow: float = Field(default=1.0, gt=0, description="yarn: pairs that turn less often are stretched wholly.")
    attention_factor: float | None = Field(
        default=None,
        gt=0,
        description="yarn: multiplies queries and keys, and so all scores by its square; absent means "
        "0.1 ln(factor) + 1.",
    )

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> RopeScaling:
        if self.kind != "linear" and self.original_context is None:
            raise ValueError(f'rope_scaling of kind "{self.kind}" needs original_context')
        if self.kind == "llama3" and self.low_frequency_factor >= self.high_frequency_factor:
            raise ValueError("low_frequency_factor must be below high_frequency_factor")
        return self


class LatentTable(Section):
    """Multi-head latent attention: keys and values are kept as one short vector a token (DeepSeek-V2)."""

    kv_rank: int = Field(ge=1, description="Width of the vector that keys and values are made from. Unit: channels.")
    query_rank: int | None = Field(
        default=None, ge=1, description="Width of the like for queries; absent means none. Unit: channels."
    )
    rotary_dim: int = Field(
        ge=2, multiple_of=2, description="Channels of queries and of one shared key that turn with the position."
    )
    value_dim: int | None = Field(
        default=None, ge=1, description="Width of a value head; absent means head_dim. Unit: channels."
    )


class ExpertsTable(Section):
    """A mixture of experts in place of the feed-forward layer: each token goes through a few of many."""

    count: int = Field(ge=2, description="Number of experts.")
    per_token: int = Field(ge=1, description="How many of them a token goes through; no token is ever dropped.")
    intermediate_size: int | None = Field(
        default=None, ge=1, description="Inner width of an expert; absent means the model's. Unit: channels."
    )
    shared: int = Field(default=0, ge=0, description="Experts besides, through which every token goes.")
    dense_layers: int = Field(default=0, ge=0, description="First layers that keep a plain feed-forward layer.")
    renormalise: bool = Field(default=True, description="Whether the chosen experts' weights are scaled to sum to 1.")
    scale: float = Field(default=1.0, gt=0, description="Multiplies the weights of the chosen experts.")
    balance_weight: float = Field(
        default=0.01,
        ge=0,
        description="Weight of the load-balance loss, row by row (Fedus et al. 2021, arXiv 2101.03961, eq. 4).",
    )
    z_weight: float = Field(
        default=0.001, ge=0, description="Weight of the router's z-loss (Zoph et al. 2022, arXiv 2202.08906, eq. 5)."
    )

    @model_validator(mode="after")
    def _enough_experts(self) -> ExpertsTable:
        if self.per_token > self.count:
            raise ValueError(f"per_token = {self.per_token} experts of {self.count}")
        return self


def _qk_norm(value: Any) -> Any:
    return {True: "head", False: "none"}[value] if isinstance(value, bool) else value


class ModelShape(Section):
    """Every choice that makes a transformer, but its vocabulary. The defaults are the Qwen3 layout."""

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

    positions: Literal["rotary", "learned", "sinusoidal", "alibi", "none"] = Field(
        default="rotary",
        description="How the model knows positions: queries and keys turned by them, a learned or a fixed vector "
        "added to the embedding, a penalty on distance, or not at all.",
    )
    rope_theta: float = Field(default=10_000.0, gt=1, description="Base wavelength of rotary positions.")
    rope_scaling: RopeScaling | None = Field(default=None, description="Stretches rotary positions.")
    local_rope_theta: float | None = Field(
        default=None, gt=1, description="Base wavelength in layers with a window, never stretched; absent: the same."
    )

    qk_norm: Annotated[Literal["none", "head", "width"], BeforeValidator(_qk_norm)] = Field(
        default="head",
        description="Whether queries and keys are normalised: head by head (Qwen3), over their whole width (OLMo-2), "
        "or not. true means head, false none.",
    )
    window: int | None = Field(
        default=None, ge=1, description="A token sees so many tokens, itself included; absent: all. Unit: tokens."
    )
    window_pattern: str = Field(
        default="S",
        pattern="^[SL]+$",
        description="Which layers have the window, repeated over the layers: S have it, L see everything.",
    )
    attention_scale: float | None = Field(
        default=None, gt=0, description="Multiplies the scores; absent means 1 / sqrt(head width)."
    )
    attention_softcap: float | None = Field(
        default=None, gt=0, description="Scores are bent to stay below it, c · tanh(score / c) (Gemma 2)."
    )
    attention_sinks: bool = Field(
        default=False, description="Whether each head can look at nothing, with a learned score (gpt-oss)."
    )
    latent: LatentTable | None = Field(default=None, description="Multi-head latent attention; absent: none.")
    biases: Literal["none", "qkv", "all"] = Field(
        default="none", description="Which matrices add a bias: none, those of queries, keys and values, or all."
    )

    feed_forward: Literal["relu", "gelu", "gelu_tanh", "squared_relu", "swiglu", "geglu", "geglu_tanh"] = Field(
        default="swiglu",
        description="The feed-forward layer's activation; swiglu and geglu have a third matrix, the gate.",
    )
    experts: ExpertsTable | None = Field(default=None, description="A mixture of experts; absent: none.")

    norm: Literal["rms", "layer"] = Field(default="rms", description="RMSNorm, or LayerNorm with its mean and bias.")
    norm_placement: Literal["pre", "post", "sandwich", "output"] = Field(
        default="pre",
        description="Where: `pre` x + f(norm(x)); `post` norm(x + f(x)), the original; `sandwich` "
        "x + norm(f(norm(x))) (Gemma 2); `output` x + norm(f(x)) (OLMo-2).",
    )
    norm_gains: bool = Field(default=True, description="Whether norms multiply by learned gains.")
    norm_offset: bool = Field(default=False, description="Whether a gain is 1 + its weight (Gemma).")
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the variance inside every norm.")

    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of embeddings, attention weights and layer outputs set to 0."
    )
    attention_dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Of attention weights alone; absent means as `dropout`. The fastest kernels have none.",
    )
    tied_embeddings: bool = Field(default=True, description="Whether the output head is the embedding table itself.")
    embedding_scale: bool = Field(default=False, description="Whether embeddings are multiplied by sqrt(hidden_size).")
    embedding_norm: bool = Field(default=False, description="Whether embeddings are normalised, without gains.")
    residual_scalars: bool = Field(
        default=False, description="Whether each block first multiplies the residual stream by a learned number."
    )
    x0_skip: bool = Field(
        default=False, description="Whether each block adds the embedding again, times a learned number."
    )
    value_embeddings: bool = Field(
        default=False,
        description="Whether every other layer, the last included, adds a table's row for the token to its values, "
        "by a learned gate.",
    )
    bigram_rows: int = Field(
        default=0, ge=0, description="Rows of a hashed table for pairs of tokens, added to the embedding; 0 is none."
    )
    logit_softcap: float | None = Field(
        default=None, gt=0, description="Logits are bent to stay below it, c · tanh(logit / c)."
    )
    predict_ahead: int = Field(
        default=0,
        ge=0,
        le=4,
        description="Further tokens that training predicts at each place, by one more block each (DeepSeek-V3).",
    )
    predict_ahead_weight: float = Field(default=0.3, ge=0, description="Weight of their mean loss.")

    initializer_range: float = Field(
        default=0.02, gt=0, description="Standard deviation of fresh embeddings and of a head of their own."
    )
    residual_start: Literal["zero", "scaled"] = Field(
        default="zero",
        description="How matrices that write into the residual stream begin: at zero, or at random, smaller the more "
        "layers there are (GPT-2). With norms behind them (`sandwich`, `output`) these begin at zero instead.",
    )
    attention_start: Literal["zero", "lookup"] = Field(
        default="zero",
        description="How fresh attention begins: `zero` adds nothing at first; `lookup` already looks back at earlier "
        "words like the present ones and copies what stood near them, which small models otherwise learn late.",
    )

    @model_validator(mode="after")
    def _fits(self) -> ModelShape:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads = {self.heads} must be a multiple of kv_heads = {self.kv_heads}")
        if self.head_dim is None and self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size = {self.hidden_size} must be a multiple of heads = {self.heads}, or set head_dim"
            )
        if self.positions == "rotary" and self.latent is None and self.resolved_head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, not {self.resolved_head_dim}")
        for message in (*self._latent_faults(), *self._other_faults()):
            raise ValueError(message)
        return self

    def _latent_faults(self) -> list[str]:
        """What cannot go with latent attention."""
        if self.latent is None:
            return []
        checks = (
            (self.kv_heads == self.heads, "latent attention has as many key heads as heads: kv_heads = heads"),
            (self.positions == "rotary", 'latent attention needs positions = "rotary"'),
            (self.qk_norm == "none", 'latent attention normalises its short vectors: qk_norm = "none"'),
            (not self.value_embeddings, "latent attention has no value embeddings"),
            (self.biases == "none", 'latent attention has no biases: biases = "none"'),
        )
        return [message for good, message in checks if not good]

    def _other_faults(self) -> list[str]:
        rotary = self.positions == "rotary"
        lookup = rotary and self.qk_norm == "head" and self.latent is None
        plain = self.biases == "none" and self.residual_start == "zero" and self.norm_gains and not self.norm_offset
        plain = plain and self.norm_placement == "pre"
        checks = (
            (rotary or self.rope_scaling is None, 'rope_scaling needs positions = "rotary"'),
            (rotary or self.local_rope_theta is None, 'local_rope_theta needs positions = "rotary"'),
            (self.norm_gains or not self.norm_offset, "norm_offset without norm_gains"),
            (
                self.norm_gains or self.residual_start == "scaled" or self.norm_placement not in ("sandwich", "output"),
                'norms behind attention and feed-forward begin at 0: norm_gains = true, or residual_start = "scaled"',
            ),
            (self.norm == "rms" or not self.norm_offset, 'norm_offset needs norm = "rms"'),
            (self.window is not None or "L" not in self.window_pattern, "window_pattern without window"),
            (self.window is not None or self.local_rope_theta is None, "local_rope_theta without window"),
            (
                self.experts is None or self.experts.dense_layers < self.layers,
                "experts.dense_layers leaves no layer with experts",
            ),
            (
                self.experts is None or self.feed_forward in GATED,
                f"experts are gated: feed_forward = one of {', '.join(GATED)}",
            ),
            (self.experts is None or self.biases != "all", 'experts have no biases: biases = "none" or "qkv"'),
            (
                self.attention_start == "zero" or (lookup and plain and self.resolved_head_dim <= self.hidden_size),
                'attention_start = "lookup" needs positions = "rotary", qk_norm = "head", no biases, '
                'norm_placement = "pre", residual_start = "zero" and head_dim <= hidden_size',
            ),
        )
        return [message for good, message in checks if not good]

    @property
    def resolved_attention_dropout(self) -> float:
        """Share of attention weights set to 0 in training."""
        return self.dropout if self.attention_dropout is None else self.attention_dropout

    @property
    def resolved_head_dim(self) -> int:
        """Width of one head in channels; of latent attention the part that doesn't turn."""
        return self.head_dim or self.hidden_size // self.heads

    def has_window(self, layer: int) -> bool:
        """Whether a layer, counted from 0, sees only the window."""
        return self.window is not None and self.window_pattern[layer % len(self.window_pattern)] == "S"


class ModelSection(ModelShape):
    """A decoder: the Qwen3 layout by default (RMSNorm first, rotary positions, grouped queries, SwiGLU), with scaled
    embeddings."""

    embedding_scale: bool = Field(
        default=True,
        description="Whether embeddings are multiplied by sqrt(hidden_size): small models learn faster so "
        "(docs/ablations.md). False in published architectures, but Gemma and the original transformer.",
    )
    preset: str | None = Field(
        default=None,
        description="A known architecture to begin from, as `qwen3-0.6b`; `groundup show` lists them. What is written "
        "beside it wins.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        return with_architecture(values) if isinstance(values, dict) and values.get("preset") is not None else values
