"""``[dpo]``: learning what is preferred, from pairs of answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.sft import DataTable
from groundup.recipe.training import TrainSection


class DpoSection(TrainSection):
    """Direct preference optimisation against the frozen model it starts from (Rafailov et al., 2023)."""

    kind: Literal["dpo"] = Field(default="dpo", description="What the stage does.")
    start: str = Field(
        default="sft", description="Stage whose weights training begins from, and which is the reference."
    )
    data: tuple[str | DataTable, ...] = Field(
        default=("builtin:storyworld",),
        min_length=1,
        description="Preferences: `builtin:storyworld`, or JSONL files with `prompt`, `chosen`, `rejected`.",
    )
    pairs_per_update: int = Field(
        default=32, gt=0, description="Batch size: preference pairs in one optimizer update. Unit: pairs."
    )
    beta: float = Field(
        default=0.1, gt=0, description="Strength of the pull to the reference model; small lets it move far."
    )
    loss: Literal["sigmoid"] = Field(default="sigmoid", description="The loss on the difference of log ratios.")
