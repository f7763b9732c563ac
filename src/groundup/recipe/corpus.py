"""``[corpus]``: which texts the model learns from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.base import Section


class SourceTable(Section):
    """A corpus source with options; a plain string is a source with none."""

    path: str = Field(
        min_length=1,
        description="A file, folder or glob of .txt, .md or .jsonl, each plain or .gz, or `builtin:storyworld`, "
        "`builtin:storyworld-chats` (conversations, each learned whole in the chat format) or "
        "`builtin:python-docs`. Relative paths start at the working directory.",
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        description="How often the source's documents appear in one pass over the corpus: 2 is twice, "
        "0.5 every second one.",
    )
    epochs: float | None = Field(
        default=None,
        gt=0,
        description="At most this many passes over the source in all of training; absent means no limit.",
    )
    documents: int | None = Field(
        default=None,
        gt=0,
        description="At most this many documents; for the story world how many are written. "
        "Absent means all (for the simulator its default).",
    )
    text_field: str = Field(default="text", min_length=1, description="Key of the text in JSONL records.")


class CorpusSection(Section):
    """Sources become normalised, deduplicated documents, split into training and validation."""

    kind: Literal["corpus"] = Field(default="corpus", description="What the stage does.")
    sources: tuple[str | SourceTable, ...] = Field(
        default=("builtin:storyworld",),
        min_length=1,
        description="Where text comes from: strings (paths, folders, globs, `builtin:` names) or tables.",
    )
    validation_fraction: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="Share of documents held out for validation, chosen by each document's hash.",
    )
    passage_characters: int = Field(
        default=8000,
        ge=200,
        description="A document of more characters is cut into passages of at most this many, at blank lines, "
        "before deduplication and the split. Unit: characters.",
    )
    shard_bytes: int = Field(
        default=128 * 2**20,
        ge=2**16,
        description="A documents file is closed at about this much text. Unit: bytes.",
    )
