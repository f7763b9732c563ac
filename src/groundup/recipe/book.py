"""``[book]``: the PDF that explains the run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from groundup.recipe.base import Section


class BookSection(Section):
    """A PDF: how each stage works, with the project's own code and this run's figures."""

    kind: Literal["book"] = Field(default="book", description="What the stage does.")
    title: str = Field(default="A language model from the ground up", min_length=1, description="Title on the cover.")
    author: str = Field(default="", description="Name under the title; empty leaves it out.")
