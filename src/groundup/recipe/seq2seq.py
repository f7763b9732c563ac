"""``[seq2seq]``: learning to translate, with the encoder-decoder of Attention Is All You Need."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from groundup.recipe.base import Section
from groundup.recipe.training import (
    CooldownFraction,
    OptimizerTable,
    ScheduleKind,
    ScheduleTable,
    TrainSection,
    WarmupFraction,
)


class EncoderDecoderShape(Section):
    """The original transformer (Vaswani et al. 2017, arXiv 1706.03762), but for its vocabulary. The paper's base model
    has 6 layers, width 512, 8 heads, inner width 2,048 and dropout 0.1."""

    layers: int = Field(default=3, ge=1, description="Blocks of the encoder, and as many of the decoder.")
    hidden_size: int = Field(default=128, ge=8, multiple_of=2, description="Width of the model. Unit: channels.")
    heads: int = Field(default=4, ge=1, description="Attention heads; they share the width.")
    intermediate_size: int = Field(default=512, ge=8, description="Inner width of the feed-forward layers.")
    context_length: int = Field(
        default=64, ge=8, description="Longest sentence, its end mark included. Unit: words (or characters, or bytes)."
    )
    dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of each layer's output, and of the embeddings with their positions, set to 0 in training.",
    )
    embeddings: Literal["shared", "tied", "separate"] = Field(
        default="shared",
        description="`shared`: one vocabulary and one matrix for source, target and output (section 3.4); `tied`: "
        "target and output share theirs; `separate`: three matrices.",
    )

    @model_validator(mode="after")
    def _heads_fit(self) -> EncoderDecoderShape:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size = {self.hidden_size} must be a multiple of heads = {self.heads}")
        return self


class PairsTable(Section):
    """A source of sentence pairs with options; a plain string is a source with none."""

    path: str = Field(
        min_length=1,
        description="`builtin:translation`, a JSONL file with `source` and `target`, or a TSV file of two columns, "
        "each plain or .gz. Relative paths start at the working directory.",
    )
    count: int | None = Field(
        default=None,
        gt=0,
        description="At most this many pairs; for `builtin:translation` how many are written. Absent means all "
        "(built in: 60,000).",
    )


class AdamTable(OptimizerTable):
    """Adam as in section 5.3 of the paper, for every weight."""

    muon_lr: float = Field(default=0.0, ge=0, description="Peak learning rate of Muon; 0 gives all weights to Adam.")
    adamw_lr: float = Field(default=1e-3, gt=0, description='Peak learning rate, where peak_lr = "given".')
    embedding_lr: float = Field(
        default=1e-3, gt=0, description='Peak learning rate of the embedding tables, where peak_lr = "given".'
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.98), description="Decay of the first and second moment.")
    epsilon: float = Field(default=1e-9, gt=0, description="Added to Adam's denominator.")


class InverseSqrtTable(ScheduleTable):
    """The schedule of section 5.3 of the paper. The paper warms up for 4 % of 100,000 steps; a short training of a
    post-norm model needs a larger share."""

    kind: ScheduleKind = Field(
        default="inverse_sqrt", description="As in every training section; here the paper's by default."
    )
    warmup_fraction: WarmupFraction = 0.2
    cooldown_fraction: CooldownFraction = 0.0


class Seq2SeqSection(TrainSection):
    """Translation from sentence pairs. The data are the section's own: it needs no corpus, tokenizer or [model]."""

    kind: Literal["seq2seq"] = Field(default="seq2seq", description="What the stage does.")
    model: EncoderDecoderShape = Field(default=EncoderDecoderShape(), description="The shape of the encoder-decoder.")
    data: tuple[str | PairsTable, ...] = Field(
        default=("builtin:translation",), min_length=1, description="Sentence pairs to learn from."
    )
    held_out_fraction: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="Share of the pairs of files kept for the test split `held_out`, by a hash of the source. "
        "`builtin:translation` brings test splits of its own.",
    )
    validation_fraction: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="Share of the pairs of files kept for validation, by the same hash: 200 of them at most are "
        "translated as training goes. They are in no test split. `builtin:translation` brings its own.",
    )
    test_data: tuple[str, ...] = Field(
        default=(),
        description="Further files of pairs, each a test split of its name; what of them is in the "
        "training data is not tested. Nothing of it is validated with.",
    )
    unit: Literal["words", "characters", "bytes"] = Field(
        default="words",
        description="What a sentence is made of: words and marks parted by white space, characters, or bytes of "
        "UTF-8. The vocabulary is what the training data have; another word or character is unknown.",
    )
    max_vocabulary: int = Field(
        default=32_000, ge=8, description="The vocabulary's size at most; the rarest are left out. Unit: words."
    )
    sequence_length: int | None = Field(
        default=None,
        ge=4,
        description="Longest sentence trained on, its end mark included; longer pairs are left out and counted. "
        "Absent means the model's context_length. Unit: words.",
    )
    pairs_per_update: int = Field(default=128, gt=0, description="Batch size: sentence pairs in one update.")
    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the target probability spread over the vocabulary (section 5.4)."
    )
    peak_lr: Literal["paper", "given"] = Field(
        default="paper",
        description='`paper`: with schedule.kind = "inverse_sqrt" the rate of all weights is that of section 5.3, '
        "hidden_size^-0.5 · min(step^-0.5, step · warm-up^-1.5), whose peak is 1 / sqrt(hidden_size · warm-up); "
        "`given`: the rates in `optimizer`.",
    )
    optimizer: AdamTable = Field(default=AdamTable(), description="The optimizer.")
    schedule: InverseSqrtTable = Field(default=InverseSqrtTable(), description="The learning-rate schedule.")
    beam: int = Field(default=4, ge=1, description="Hypotheses kept by beam search in the test (section 6.1).")
    length_penalty: float = Field(
        default=0.6, ge=0, description="Exponent of beam search's length penalty (Wu et al. 2016, eq. 14)."
    )
    tests: int = Field(default=1000, gt=0, description="Sentences translated at most in each test split.")

    @model_validator(mode="after")
    def _some_are_left(self) -> Seq2SeqSection:
        if self.held_out_fraction + self.validation_fraction >= 1:
            raise ValueError("held_out_fraction + validation_fraction leave nothing to learn from")
        return self

    @model_validator(mode="after")
    def _paper_rate_fits(self) -> Seq2SeqSection:
        if self.peak_lr == "paper" and (self.schedule.kind != "inverse_sqrt" or not self.schedule.warmup_fraction):
            raise ValueError(
                'peak_lr = "paper" needs schedule.kind = "inverse_sqrt" and a warmup_fraction above 0; with another '
                'schedule set peak_lr = "given"'
            )
        if self.peak_lr == "paper" and self.optimizer.muon_lr > 0:
            raise ValueError('peak_lr = "paper" is a rate of Adam: set optimizer.muon_lr = 0, or peak_lr = "given"')
        return self
