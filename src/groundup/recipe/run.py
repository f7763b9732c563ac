"""``[run]``: the name of the run and the seed everything random is drawn from."""

from __future__ import annotations

from pydantic import Field

from groundup.recipe.base import Section


class RunSection(Section):
    """The run as a whole."""

    name: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="Name of the run; its directory is runs/NAME unless --out says otherwise. "
        "Empty means the recipe's own name.",
    )
    seed: int = Field(
        default=1, ge=0, lt=2**31, description="Seed of everything random. Same recipe, same seed, same bits."
    )
