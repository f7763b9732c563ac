"""What every section of a recipe shares: immutable, no unknown keys, every field documented."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A table of the recipe. Instances are immutable; change one with ``model_copy(update=...)``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


def written_fields(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """The fields of a class by the names that a recipe writes: `import`, which Python keeps for itself, too."""
    return {field.alias or name: field for name, field in model.model_fields.items()}
