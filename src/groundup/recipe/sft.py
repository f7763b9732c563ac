"""``[sft]``: learning to answer, from conversations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.base import Section
from groundup.recipe.training import TokenTrainSection


class DataTable(Section):
    """A source of conversations or preferences with options; a plain string is a source with none."""

    path: str = Field(
        min_length=1,
        description="`builtin:storyworld` or a JSONL file. Relative paths start at the working directory.",
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        description="How often each record appears in one pass: 2 is twice, 0.5 every second.",
    )
    count: int | None = Field(
        default=None,
        gt=0,
        description="At most this many records; for `builtin:storyworld` how many are written. "
        "Absent means all (for the simulator its default).",
    )
    overclaiming: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="For `builtin:storyworld` conversations: share of unanswerable questions that are "
        "wrongly answered all the same, as real data do, so that there is something to align.",
    )
    wrong_tone: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="For `builtin:storyworld` conversations: share of answers in a wrong tone: unkind "
        "requests that are obeyed, or answers that ramble.",
    )


class SftSection(TokenTrainSection):
    """Supervised fine-tuning: the loss counts assistant text only."""

    kind: Literal["sft"] = Field(default="sft", description="What the stage does.")
    start: str = Field(default="pretrain", description="Stage whose weights training begins from.")
    data: tuple[str | DataTable, ...] = Field(
        default=("builtin:storyworld",),
        min_length=1,
        description="Conversations: `builtin:storyworld`, or JSONL files with `messages`, Alpaca records or "
        "ShareGPT `conversations`.",
    )
    fresh_blocks: int = Field(
        default=0,
        ge=0,
        description="So many of the last transformer blocks begin anew and keep nothing of pretraining (Zhang et al. "
        "2021, arXiv 2006.05987); 0 keeps all. Worth trying where tuning from the pretrained weights stays behind "
        "tuning from fresh ones.",
    )
