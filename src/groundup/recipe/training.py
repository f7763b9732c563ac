"""What ``[pretrain]``, ``[sft]`` and ``[dpo]`` share: a budget, an optimizer, a schedule, a rhythm."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from groundup.recipe.base import Section

BUDGETS = ("steps", "tokens", "epochs", "minutes")


class OptimizerTable(Section):
    """Muon for hidden matrices, AdamW for embeddings, head, norms and gains."""

    muon_lr: float = Field(
        default=0.02,
        ge=0,
        description="Peak learning rate of Muon (hidden matrices). 0 gives those matrices to AdamW.",
    )
    adamw_lr: float = Field(
        default=3e-3, gt=0, description="Peak learning rate of AdamW for everything but embeddings."
    )
    embedding_lr: float = Field(
        default=3e-3, gt=0, description="Peak learning rate of AdamW for the embedding table and head."
    )
    base_width: int | None = Field(
        default=None,
        ge=1,
        description="The hidden_size at which the rates were found; absent means that they are used as they stand. In "
        "a model of another width AdamW's rate of tables is multiplied by (base_width / hidden_size)^0.5 and that of "
        "matrices by base_width / hidden_size. Muon's rate, whose steps have the same spectral norm at any width, and "
        "that of gains stay.",
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="AdamW's decay of the first and second moment.")
    epsilon: float = Field(default=1e-8, gt=0, description="Added to AdamW's denominator.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="Decoupled weight decay of matrices; gains are never decayed."
    )
    cautious_decay: bool = Field(
        default=False,
        description="Weight decay pulls only at numbers that the update moves towards zero anyway (Chen et al. 2025).",
    )
    muon_momentum: float = Field(default=0.95, ge=0, lt=1, description="Muon's Nesterov momentum.")
    grad_clip: float | None = Field(
        default=None,
        gt=0,
        description="Gradients of a greater global norm are scaled down to it; absent means no clipping.",
    )

    @model_validator(mode="after")
    def _betas_below_one(self) -> OptimizerTable:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {list(self.betas)} must lie in [0, 1)")
        return self


# What a table of one stage gives another default.
ScheduleKind = Literal["wsd", "cosine", "inverse_sqrt"]
WarmupFraction = Annotated[float, Field(ge=0, le=1, description="Share of the steps over which the rate rises from 0.")]
CooldownFraction = Annotated[
    float, Field(ge=0, le=1, description="Share of the steps over which the rate falls at the end.")
]


class ScheduleTable(Section):
    """The learning rate rises, holds (or sinks slowly), and falls in a straight line or a half cosine."""

    kind: ScheduleKind = Field(
        default="wsd",
        description="Between warm-up and cool-down the rate stays (`wsd`: warm-up, stable, decay), or falls with the "
        "square root of the step (`inverse_sqrt`, Vaswani et al. 2017; with cooldown_fraction = 0 it is theirs). "
        "`cosine` cools down along a half cosine, by default from the end of the warm-up on.",
    )
    warmup_fraction: WarmupFraction = 0.02
    cooldown_fraction: CooldownFraction = 0.5
    final_lr_fraction: float = Field(
        default=0.0, ge=0, le=1, description="The last learning rate as a share of the peak."
    )

    @model_validator(mode="before")
    @classmethod
    def _whole_cosine(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("kind") != "cosine" or "cooldown_fraction" in values:
            return values
        warmup = values.get("warmup_fraction", cls.model_fields["warmup_fraction"].default)
        return {**values, "cooldown_fraction": 1 - warmup} if isinstance(warmup, int | float) else values

    @model_validator(mode="after")
    def _fits(self) -> ScheduleTable:
        if self.warmup_fraction + self.cooldown_fraction > 1 + 1e-9:
            raise ValueError(
                f"warmup_fraction {self.warmup_fraction} + cooldown_fraction {self.cooldown_fraction} exceed 1"
            )
        return self


class RampStep(Section):
    """A part of training in which rows are shown shorter."""

    until: float = Field(gt=0, lt=1, description="Share of the stage's steps at which this length ends.")
    length: int = Field(ge=8, description="Length of the shorter rows; it divides the row's. Unit: tokens.")


class BatchRampStep(Section):
    """A part of training in which updates are smaller."""

    until: float = Field(gt=0, lt=1, description="Share of the stage's steps at which this size ends.")
    tokens_per_update: int = Field(
        ge=8, description="Tokens in one of the smaller updates, padding counted: whole rows. Unit: tokens."
    )


class Budget(Section):
    """How long a stage trains: exactly one of steps, tokens, epochs and minutes."""

    steps: int | None = Field(default=None, gt=0, description="Budget: optimizer updates.")
    tokens: int | None = Field(default=None, gt=0, description="Budget: tokens read, padding not counted.")
    epochs: float | None = Field(default=None, gt=0, description="Budget: passes over the data.")
    minutes: float | None = Field(
        default=None,
        gt=0,
        description="Budget: minutes on this machine. A probe turns them into steps before the first update; "
        "the clock never ends training. Unit: minutes.",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Budget:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) if given else "none"
            raise ValueError(f"exactly one of {', '.join(BUDGETS)} must be given, not {said}")
        return self


class EngineSection(Section):
    """What every stage that trains says of how, but for how long."""

    sequence_length: int | None = Field(
        default=None,
        ge=8,
        description="Length of a packed row; absent means the model's context_length. Unit: tokens.",
    )
    micro_batch: int | Literal["auto"] = Field(
        default="auto",
        description="Rows in one forward pass, for memory only: it never changes the gradient beyond "
        "rounding. Where rows are shorter, as many as have the same number of tokens. `auto` finds a fitting number. "
        "Unit: rows of the full length.",
    )
    recomputed_blocks: int | Literal["auto"] = Field(
        default="auto",
        description="Blocks whose activations the backward pass makes again, so that they need not be kept (activation "
        "checkpointing): for memory only, at a third more work for each such block. `auto` takes none, but on a GPU as "
        "many as a well-filled pass needs to fit, by a measurement. Unit: blocks.",
    )
    optimizer: OptimizerTable = Field(default=OptimizerTable(), description="The optimizer.")
    schedule: ScheduleTable = Field(default=ScheduleTable(), description="The learning-rate schedule.")
    log_every: int = Field(default=10, gt=0, description="A line of metrics.jsonl is written so often. Unit: steps.")
    validate_every: int = Field(
        default=200,
        ge=0,
        description="Validation runs so often, and at the end; 0 is at the end only. Unit: steps.",
    )
    checkpoint_every: int = Field(
        default=500, ge=0, description="A checkpoint is saved so often; 0 is by the clock only. Unit: steps."
    )
    checkpoint_minutes: float = Field(
        default=10.0, gt=0, description="A checkpoint is saved at least so often. Unit: minutes."
    )
    keep_checkpoints: int = Field(default=2, ge=2, description="How many of the newest checkpoints are kept.")
    sample_every: int = Field(
        default=0, ge=0, description="Samples are written so often; 0 is at the end only. Unit: steps."
    )
    sample_prompts: tuple[str, ...] = Field(
        default=(), description="Texts continued (or, after tuning, questions answered) as training goes."
    )

    @model_validator(mode="after")
    def _whole_rows(self) -> EngineSection:
        if isinstance(self.micro_batch, int) and self.micro_batch < 1:
            raise ValueError(f"micro_batch = {self.micro_batch} must be at least 1 row, or 'auto'")
        if isinstance(self.recomputed_blocks, int) and self.recomputed_blocks < 0:
            raise ValueError(f"recomputed_blocks = {self.recomputed_blocks} must be 0 or more, or 'auto'")
        return self


class TrainSection(EngineSection, Budget):
    """The base of the stages that train one model."""


class TokenBatches(EngineSection):
    """Of a stage whose batch is counted in tokens."""

    tokens_per_update: int = Field(
        default=8192,
        ge=8,
        description="Batch size: tokens in one optimizer update, padding counted. Unit: tokens.",
    )
    packing: Literal["packed", "best_fit", "padded"] = Field(
        default="packed",
        description="How documents become rows; nothing is discarded. `packed`: less than 0.1 % of the places stay "
        "empty (or less than one row), for which a few documents are cut. `best_fit`: only documents longer than a "
        "row are cut. `padded`: a document a row, with others of similar length, and the rest padding; updates then "
        "differ in shape and are not compiled. The stage's metrics state the padding.",
    )
    sequence_ramp: tuple[RampStep, ...] = Field(
        default=(),
        max_length=7,
        description="Rows are cut into shorter ones early on, as `[{until = 0.1, length = 256}]`: shares of the "
        "steps and lengths both rise, then rows are whole. The tokens of an update stay the same. Not for `padded`.",
    )
    batch_ramp: tuple[BatchRampStep, ...] = Field(
        default=(),
        max_length=7,
        description="Updates are smaller early on, as `[{until = 0.1, tokens_per_update = 2048}]`: shares of the "
        "steps and sizes both rise, then updates have `tokens_per_update`. The order of rows stays. The learning rate "
        "is not scaled with the size: it follows `schedule`, by steps. With `padded` each size divides the next.",
    )

    @model_validator(mode="after")
    def _ramp_rises(self) -> TokenBatches:
        ramp = self.sequence_ramp
        for before, after in pairwise(ramp):
            if before.until >= after.until or before.length >= after.length:
                raise ValueError("sequence_ramp must rise, in `until` and in `length`")
        if ramp and self.packing == "padded":
            raise ValueError('sequence_ramp cuts packed rows; packing = "padded" has none')
        return self

    @model_validator(mode="after")
    def _sizes_rise(self) -> TokenBatches:
        for before, after in pairwise(self.batch_ramp):
            if before.until >= after.until or before.tokens_per_update >= after.tokens_per_update:
                raise ValueError("batch_ramp must rise, in `until` and in `tokens_per_update`")
        sizes = [*(step.tokens_per_update for step in self.batch_ramp), self.tokens_per_update]
        for size, larger in pairwise(sizes):
            if size > larger:
                raise ValueError(f"batch_ramp: {size} must be at most tokens_per_update, {larger}")
            if self.packing == "padded" and larger % size:
                raise ValueError(f'batch_ramp: with packing = "padded" {size} must divide {larger}, the size after it')
        if self.sequence_length is not None:
            self.require_ramps_fit(self.sequence_length)
        return self

    def require_ramps_fit(self, length: int) -> None:
        """Raise ValueError where rows of ``length`` tokens can't be cut as ``sequence_ramp`` says, or updates of
        ``batch_ramp`` are not whole rows: at least one, or where rows are packed, a multiple."""
        for step in self.sequence_ramp:
            if step.length >= length or length % step.length:
                raise ValueError(f"sequence_ramp: {step.length} must divide rows of {length} tokens and be less")
        for tokens in (step.tokens_per_update for step in self.batch_ramp):
            if tokens < length or (self.packing != "padded" and tokens % length):
                raise ValueError(f"batch_ramp: {tokens} tokens must be whole rows of {length}")


class TokenTrainSection(TokenBatches, TrainSection):
    """A stage that trains one model, and whose batch is counted in tokens."""
