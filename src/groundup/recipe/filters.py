"""``[corpus.filters]``: which documents are refused, rule by rule; each filter is on where its table is present."""

from __future__ import annotations

from pydantic import Field

from groundup.recipe.base import Section


class FiltersSection(Section):
    """Each filter is on where it is named; an empty table takes its thresholds from the papers."""
