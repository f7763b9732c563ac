"""``[pretrain]``: learning to continue text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.training import TokenTrainSection


class PretrainSection(TokenTrainSection):
    """Next-token prediction over the packed corpus."""

    kind: Literal["pretrain"] = Field(default="pretrain", description="What the stage does.")
    start: str | None = Field(
        default=None, description="Stage whose weights training goes on from; absent means fresh weights."
    )
