"""``[ladder]``: models of several sizes, a law of their losses, and each next loss foretold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from groundup.recipe.architectures import architecture, proportions
from groundup.recipe.base import Section
from groundup.recipe.errors import RecipeError
from groundup.recipe.model import ModelSection
from groundup.recipe.training import OptimizerTable, TokenBatches

SHAPE = ("layers", "hidden_size", "heads", "kv_heads", "head_dim", "intermediate_size")
"""What rungs differ in. All else is `[model]`'s."""


class Rung(Section):
    """One size of a ladder: a preset, or layers and a width. What is not given follows from the width, as in our own
    family (docs/architectures.md): heads of 32 channels, two of them to a key and value head, and 8/3 of the width in
    the feed-forward layer."""

    name: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="Its directory below RUN/ladder/rungs; absent means the preset's name, or LAYERSxWIDTH.",
    )
    preset: str | None = Field(
        default=None, description="An architecture, as `ladder-d9`, of which the rung has layers, widths and heads."
    )
    layers: int | None = Field(default=None, ge=1, description="Number of transformer blocks.")
    hidden_size: int | None = Field(default=None, ge=8, description="Width of the residual stream. Unit: channels.")
    heads: int | None = Field(default=None, ge=1, description="Number of query heads.")
    kv_heads: int | None = Field(default=None, ge=1, description="Number of key and value heads.")
    head_dim: int | None = Field(default=None, ge=2, description="Width of one head. Unit: channels.")
    intermediate_size: int | None = Field(
        default=None, ge=8, description="Inner width of the feed-forward layer. Unit: channels."
    )
    seeds: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Models of this size, from seeds of their own: how far they differ is the noise that the law's "
        "interval rests on. The first has the run's seed.",
    )
    optimizer: OptimizerTable | None = Field(
        default=None, description="An optimizer for this rung alone; absent means the ladder's."
    )

    @model_validator(mode="after")
    def _has_a_size(self) -> Rung:
        if self.preset is None and (self.layers is None or self.hidden_size is None):
            raise ValueError("a rung needs layers and hidden_size, or a preset")
        try:
            self.shape()
        except RecipeError as error:  # an unknown preset
            raise ValueError(str(error)) from error
        return self

    @property
    def label(self) -> str:
        """The rung's name, given or not."""
        return self.name or self.preset or f"{self.layers}x{self.hidden_size}"

    def shape(self) -> dict[str, int | None]:
        """The rung's fields of `[model]`. Raises RecipeError for an unknown preset."""
        if self.preset is not None:
            base = {name: value for name, value in architecture(self.preset).model.items() if name in SHAPE}
        else:
            assert self.hidden_size is not None
            base = proportions(self.hidden_size)
        given = {name: getattr(self, name) for name in SHAPE}
        return {"head_dim": None, **base, **{name: value for name, value in given.items() if value is not None}}


def _preset_as_table(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


class LadderSection(TokenBatches):
    """Trains rung after rung, each on `tokens_per_parameter` tokens for each of its parameters, fits
    L = E + A · C^-α to their bits per byte, and writes down each next rung's loss with its interval before training it.
    The shape of a rung is `[model]` with the rung's own layers and widths."""

    kind: Literal["ladder"] = Field(default="ladder", description="What the stage does.")
    rungs: tuple[Annotated[Rung, BeforeValidator(_preset_as_table)], ...] = Field(
        min_length=5,
        description="The sizes, each with more training FLOPs than the one before: presets' names or tables. The law "
        "has three unknowns: the fourth rung is the first to be foretold, and the fifth the first with an interval.",
    )
    tokens_per_parameter: float = Field(
        default=20.0,
        gt=0,
        description="Tokens that a rung reads for each of its parameters. Those that multiply activations are counted, "
        "the head among them and looked-up embeddings not: without the head, laws of small models bend (Porian et al. "
        "2024, arXiv 2406.19146). 20 is about what is best for a given compute (Hoffmann et al. 2022, arXiv "
        "2203.15556). Unit: tokens a parameter.",
    )
    max_epochs: float = Field(
        default=4.0,
        gt=0,
        description="The largest rung may read the corpus at most so often. Up to four times, text read again is worth "
        "nearly as much as new text (Muennighoff et al. 2023, arXiv 2305.16264); beyond, the law would bend. Unit: "
        "passes.",
    )
    validation_tokens: int = Field(
        default=2**20,
        ge=1024,
        description="Each rung is measured on so many tokens of the validation documents at most, all on the same. "
        "Unit: tokens.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> LadderSection:
        labels = [rung.label for rung in self.rungs]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two rungs named {label!r}; give one another `name`")
        return self


def rung_model(model: ModelSection, rung: Rung) -> ModelSection:
    """`[model]` with the shape of a rung. Raises ValueError, naming the rung, where they don't fit together."""
    values: dict[str, Any] = {**model.model_dump(), **rung.shape(), "preset": None}
    try:
        return ModelSection.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"rung {rung.label!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
