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
    precision: Literal["auto", "fp32", "bf16", "fp8"] = Field(
        default="auto",
        description="Type of matrix products in training (weights stay fp32): `auto` measures the faster of fp32 and "
        "bf16. `fp8`, on NVIDIA GPUs that have it (Ada, Hopper, Blackwell), is bf16 with the projections of all blocks "
        "in 8 bits, which has fewer digits.",
    )
    compile: bool | Literal["auto"] = Field(
        default="auto",
        description="Whether torch.compile is used: `auto` does where a C++ compiler is found. A stage too short "
        "to win the compiling back runs without.",
    )
    threads: int | Literal["auto"] = Field(
        default="auto", description="CPU threads: `auto` is one for each physical core. Unit: threads."
    )

    processes: int | Literal["auto"] = Field(
        default="auto",
        description="Processes that make the corpus: `auto` is one for each physical core, as far as memory reaches. "
        "The result is the same for any number. Unit: processes.",
    )
    cluster: str | None = Field(
        default=None,
        description='A Ray cluster that makes the corpus: its address, as "10.0.0.5:6379", "auto" for the one this '
        'machine belongs to, or "local" to start one here. Its nodes need groundup and the run directory at the same '
        "path. Absent: this machine alone.",
    )

    @model_validator(mode="after")
    def _numbers_positive(self) -> HardwareSection:
        for name in ("threads", "processes"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} = {value} must be at least 1, or 'auto'")
        return self
