"""``[import]``: the weights and the vocabulary of somebody's checkpoint, as the run's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from groundup.recipe.base import Section
from groundup.recipe.tokenizer import TokenizerSection

# Which stage a section starts from where it doesn't say, as its class declares.
_STARTS = {"pretrain": None, "sft": "pretrain", "dpo": "sft"}
_LEARNED = ("vocabulary_size", "split_pattern", "digits", "min_frequency", "sample_bytes", "adopt")


class ImportSection(Section):
    """A checkpoint in Hugging Face's layout becomes RUN/import, and its vocabulary RUN/tokenizer. Its own
    configuration says the shape: `[model]` is not asked for."""

    kind: Literal["import"] = Field(default="import", description="What the stage does.")
    source: str = Field(
        min_length=1,
        description="The checkpoint's directory: config.json, *.safetensors and the tokenizer's files. Nothing is "
        "downloaded. Relative paths start at the working directory.",
    )
    sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Digest of the files that are read, as `groundup import` writes it; a source of another one is "
        "refused. With it, a finished import does without its source.",
    )
    tokenizer: str | None = Field(
        default=None,
        min_length=1,
        description="Where the vocabulary is, in a form that `tokenizer.adopt` takes; absent means in `source`.",
    )


def with_import(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The written tables of a recipe, with what `[import]` implies.

    It brings a vocabulary, so there is a `[tokenizer]`; and a training stage whose `start` is absent begins from it,
    where the recipe lacks the stage that it would begin from otherwise.
    """
    complete = dict(raw)
    if "import" not in raw:
        return complete
    complete.setdefault("tokenizer", {})
    for name in _STARTS:
        if name in raw:
            complete[name] = _started(raw[name], name, raw)
    stages = raw.get("stages")
    if isinstance(stages, dict):
        complete["stages"] = {
            name: _started(table, table.get("kind"), raw) if isinstance(table, dict) else table
            for name, table in stages.items()
        }
    return complete


def _started(table: Any, kind: Any, raw: Mapping[str, Any]) -> Any:
    if not isinstance(table, dict) or kind not in _STARTS or "start" in table or _STARTS[kind] in raw:
        return table
    return {**table, "start": "import"}


def foreign_fields(section: TokenizerSection) -> list[str]:
    """The fields of a `[tokenizer]` beside `[import]` that contradict it: its vocabulary is there already."""
    return [name for name in _LEARNED if getattr(section, name) != TokenizerSection.model_fields[name].default]
