"""``[hardware]``: what the run computes on, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from groundup.recipe.base import Section


class HardwareSection(Section):
    """Each `auto` is settled once, by a look or a short measurement, and kept in the run."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="What computes: `auto` takes a GPU where there is one."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Type of matrix products in training (weights stay fp32): `auto` measures the faster.",
    )
    compile: bool | Literal["auto"] = Field(
        default="auto",
        description="Whether torch.compile is used: `auto` does where a C++ compiler is found. A stage too short "
        "to win the compiling back runs without.",
    )
    threads: int | Literal["auto"] = Field(
        default="auto", description="CPU threads: `auto` is one for each physical core. Unit: threads."
    )

    @model_validator(mode="after")
    def _threads_positive(self) -> HardwareSection:
        if isinstance(self.threads, int) and self.threads < 1:
            raise ValueError(f"threads = {self.threads} must be at least 1, or 'auto'")
        return self
