"""What every section of a recipe shares: immutable, no unknown keys, every field documented."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the recipe. Instances are immutable; change one with ``model_copy(update=...)``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
