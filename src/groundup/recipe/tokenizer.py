"""``[tokenizer]``: how text becomes ids."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from groundup.recipe.base import Section

SPECIAL_AND_BYTES = 7 + 256  # named special tokens, and one token a byte


class TokenizerSection(Section):
    """A BPE vocabulary, learned from the corpus or adopted, and the corpus as token shards."""

    kind: Literal["tokenizer"] = Field(default="tokenizer", description="What the stage does.")
    vocabulary_size: int = Field(
        default=4096,
        ge=512,
        le=2**20,
        description="Size of the vocabulary: special tokens, 256 bytes, merges and extra tokens together. "
        "Unit: tokens.",
    )
    split_pattern: str | None = Field(
        default=None,
        min_length=1,
        description='The pattern that splits text into words before merging: "qwen2", "gpt4", "llama3", "gpt2", '
        '"o200k", or a regular expression that matches every text. llama.cpp knows the named ones; encoding is forty '
        "times faster with them. Absent: qwen2, or what belongs to the file that is adopted.",
    )
    digits: Literal["pattern"] | Annotated[int, Field(ge=1, le=9)] = Field(
        default="pattern",
        description="Longest number that is one word; `pattern` leaves it to the split pattern (qwen2: 1, gpt4 and "
        "o200k: 3, gpt2: any). Unit: digits.",
    )
    min_frequency: int = Field(
        default=2,
        ge=1,
        description="A pair that stands fewer times in the sample is not merged. Unit: occurrences.",
    )
    sample_bytes: int = Field(
        default=64 * 2**20,
        ge=2**12,
        le=2**32,
        description="Merges are learned from this much text at most, a sample drawn by the documents' digests. "
        "Unit: bytes.",
    )
    reserved_tokens: int = Field(
        default=9, ge=0, le=1024, description="Special tokens kept free for later uses. Unit: tokens."
    )
    adopt: str | None = Field(
        default=None,
        description="A vocabulary to take instead of learning one: a tokenizer.json or its directory, GPT-2's pair of "
        "files (directory), or a .tiktoken file. What it lacks of the special tokens is added at its end.",
    )
    extra_tokens: tuple[str, ...] = Field(
        default=(),
        description="Words of the field that are to be one token each wherever they stand, added at the end.",
    )

    @model_validator(mode="after")
    def _learned_or_adopted(self) -> TokenizerSection:
        if self.adopt is not None:
            learning = ("vocabulary_size", "digits", "min_frequency", "sample_bytes")
            fields = type(self).model_fields
            given = [name for name in learning if getattr(self, name) != fields[name].default]
            if given:
                raise ValueError(f"{', '.join(given)} can't be given beside adopt: nothing is learned")
            return self
        needed = SPECIAL_AND_BYTES + self.reserved_tokens + len(self.extra_tokens)
        if self.vocabulary_size <= needed:
            raise ValueError(
                f"vocabulary_size = {self.vocabulary_size} has no room for merges beside {needed} special tokens, "
                "bytes and extra tokens"
            )
        return self
