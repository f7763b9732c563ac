"""The shape of a transformer: every choice that decides its tensors, in one frozen record."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from groundup.recipe import ModelSection
from groundup.recipe.base import Section
from groundup.recipe.model import ModelShape, RopeScaling


class Record(Section):
    """A shape that travels with the weights, in config.json, and is changed by copies."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able record; :meth:`from_dict` reads it back."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """Read the record of :meth:`to_dict`."""
        return cls.model_validate(record)

    def replace(self, **changes: Any) -> Self:
        """The same but for these fields, checked anew."""
        return self.from_dict({**self.model_dump(), **changes})


class Architecture(ModelShape, Record):
    """All that is needed to build a model: a recipe's [model] and the tokenizer's size. It travels with the weights,
    in config.json. Immutable, and equal records are interchangeable (hashable).

    Raises:
        pydantic.ValidationError: (a ``ValueError``) for a value out of range, an unknown key, or choices that don't
            go together.
    """

    vocabulary_size: int = Field(ge=1, description="Rows of the embedding table. Unit: tokens.")

    @classmethod
    def from_section(cls, section: ModelSection, vocabulary_size: int) -> Architecture:
        """The architecture that a recipe's [model] section describes, for a tokenizer of this size."""
        return cls.from_dict({**section.model_dump(exclude={"preset"}), "vocabulary_size": vocabulary_size})

    @property
    def key_dim(self) -> int:
        """Width of one query or key head in channels, the part that turns included."""
        return self.resolved_head_dim + (self.latent.rotary_dim if self.latent else 0)

    @property
    def value_dim(self) -> int:
        """Width of one value head in channels."""
        return (self.latent and self.latent.value_dim) or self.resolved_head_dim

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that turn with the position."""
        return self.latent.rotary_dim if self.latent else self.resolved_head_dim

    def rope(self, windowed: bool) -> tuple[float, RopeScaling | None]:
        """Base of the frequencies of rotary positions, and their stretching, in layers with or without a window."""
        if windowed and self.local_rope_theta is not None:
            return self.local_rope_theta, None
        return self.rope_theta, self.rope_scaling

    def has_experts(self, layer: int) -> bool:
        """Whether a layer, counted from 0, is a mixture of experts."""
        return self.experts is not None and layer >= self.experts.dense_layers

    def has_value_embedding(self, layer: int) -> bool:
        """Whether a layer has a table of values: every other one, the last included."""
        return self.value_embeddings and (self.layers - 1 - layer) % 2 == 0

    def cache_shapes(self) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """For each layer the (heads, width) of the two tensors that a token leaves in the cache: keys and values, or
        with latent attention the short vector and the shared key that turns."""
        if self.latent is not None:
            return [((1, self.latent.kv_rank), (1, self.latent.rotary_dim))] * self.layers
        return [((self.kv_heads, self.key_dim), (self.kv_heads, self.value_dim))] * self.layers
