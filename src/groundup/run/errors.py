"""Errors that end a command with a plain sentence and an exit code, never a traceback."""

from __future__ import annotations


class GroundupError(Exception):
    """Something failed that is not the user's doing. Exit code 1."""

    exit_code = 1


class UserError(GroundupError):
    """A mistake in what the user asked for: a recipe, an option, a file. Exit code 2.

    Args:
        what: the mistake in one sentence, with the offending value.
        where: file, key and line, where known.
        expected: what would have been right.
        mend: what to do about it.
    """

    exit_code = 2

    def __init__(
        self, what: str, *, where: str | None = None, expected: str | None = None, mend: str | None = None
    ) -> None:
        self.what, self.where, self.expected, self.mend = what, where, expected, mend
        super().__init__(explain(what, where, expected, mend))


class ExpectationMissed(GroundupError):
    """The build is whole, but a measured score misses a threshold of ``[expect]``. Exit code 3."""

    exit_code = 3


class Interrupted(GroundupError):
    """Stopped by a signal; the same command carries on from the last saved state. Exit code 130."""

    exit_code = 130


def explain(what: str, where: str | None, expected: str | None, mend: str | None) -> str:
    """Lay out the four parts of an error, one a line, leaving out those that are unknown."""
    lines = [what]
    for label, part in (("where", where), ("expected", expected), ("try", mend)):
        if part:
            lines.append(f"  {label}: {part}")
    return "\n".join(lines)
