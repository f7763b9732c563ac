"""The one error of the recipe: what is wrong, where, what was expected, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RecipeError(ValueError):
    """A recipe that can't be used. The command line ends with exit code 2.

    Args:
        what: the mistake in one sentence, with the offending value.
        where: file, key and line, where known.
        expected: what would have been right.
        mend: what to do about it, such as the nearest valid name.
    """

    def __init__(
        self, what: str, *, where: str | None = None, expected: str | None = None, mend: str | None = None
    ) -> None:
        self.what, self.where, self.expected, self.mend = what, where, expected, mend
        parts = (("where", where), ("expected", expected), ("try", mend))
        super().__init__("\n".join([what, *(f"  {label}: {part}" for label, part in parts if part)]))


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """A hint naming the valid name closest to ``name``, or None where nothing is close."""
    found = get_close_matches(name, list(valid), n=1, cutoff=0.55)
    return f"did you mean {found[0]!r}?" if found else None
