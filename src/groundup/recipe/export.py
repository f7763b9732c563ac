"""``[export]``: the model in formats that other programs load."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.base import Section


class ExportSection(Section):
    """The trained model and its tokenizer in stock layouts."""

    kind: Literal["export"] = Field(default="export", description="What the stage does.")
    stage: str | None = Field(
        default=None, description="Stage whose model is exported; absent means the last training stage."
    )
    formats: tuple[Literal["hf"], ...] = Field(
        default=("hf",), min_length=1, description="Layouts: `hf` is Hugging Face's."
    )
