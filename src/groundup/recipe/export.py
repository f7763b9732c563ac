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
    formats: tuple[Literal["hf", "gguf"], ...] = Field(
        default=("hf",),
        min_length=1,
        description="Layouts: `hf` is Hugging Face's, `gguf` the one file of llama.cpp, Ollama and LM Studio.",
    )
    dtype: Literal["fp32", "bf16", "fp16"] | None = Field(
        default=None, description="Numbers of the `hf` export; absent means those of the model."
    )
    quantization: Literal["f32", "f16", "bf16", "q8_0", "q4_0"] | None = Field(
        default=None,
        description="Numbers of the `gguf` export: plain ones, or blocks of 8 or 4 bits a weight (docs/export.md says "
        "what they cost); absent means those of the model.",
    )
    licence: str | None = Field(
        default=None, description='Licence of the model that the `gguf` file states, as an SPDX name: "apache-2.0".'
    )
