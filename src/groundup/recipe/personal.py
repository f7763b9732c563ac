"""``[corpus.personal_data]``: what is replaced by placeholders."""

from __future__ import annotations

from groundup.recipe.base import Section


class PersonalDataSection(Section):
    """Personal data become typed placeholders, as <email>, counted by kind."""
