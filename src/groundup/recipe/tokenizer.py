"""``[tokenizer]``: how text becomes ids."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.base import Section


class TokenizerSection(Section):
    """A byte-level BPE vocabulary learned from the corpus, and the corpus as token shards."""

    kind: Literal["tokenizer"] = Field(default="tokenizer", description="What the stage does.")
    vocabulary_size: int = Field(
        default=4096,
        ge=512,
        le=2**20,
        description="Size of the vocabulary: special tokens, 256 bytes and merges together. Unit: tokens.",
    )
    split_pattern: Literal["qwen2"] = Field(
        default="qwen2", description="The pattern that splits text before merging; llama.cpp knows Qwen2's."
    )
    sample_bytes: int = Field(
        default=64 * 2**20,
        ge=2**12,
        description="Merges are learned from this much text at most. Unit: bytes.",
    )
    reserved_tokens: int = Field(
        default=9, ge=0, le=1024, description="Special tokens kept free for later uses. Unit: tokens."
    )
