"""``[evaluate]``: measuring what was learned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.base import Section


class EvaluateSection(Section):
    """Scores with 95 % intervals for each model, task and split, beside trivial baselines."""

    kind: Literal["evaluate"] = Field(default="evaluate", description="What the stage does.")
    models: tuple[str, ...] = Field(
        default=(), description="Stages whose models are measured; empty means every training stage."
    )
    tasks: tuple[str, ...] = Field(
        default=("bits_per_byte",),
        min_length=1,
        description="What is measured: `bits_per_byte` (of documents that the corpus holds out), `answers` (bits per "
        "byte of what the assistant says in conversations that `[sft]` holds out), `storyworld_qa`, "
        "`storyworld_honesty`, `storyworld_harmlessness`, `storyworld_helpfulness`, or a JSONL file of tasks.",
    )
    questions: int = Field(
        default=300, gt=0, description="Questions (and requests) asked in each split. Unit: questions."
    )
