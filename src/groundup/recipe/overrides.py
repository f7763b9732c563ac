"""``--set a.b=c``: one value of the recipe changed from the command line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from groundup.recipe.errors import RecipeError
from groundup.recipe.training import BUDGETS

# The key: bare or quoted parts joined by dots; what follows the first "=" is the value.
_FORM = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\.(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=(.*)""", re.S
)


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split ``a.b=c`` into its keys and its value.

    The value is TOML; a bare word that is no TOML value is a string. Raises RecipeError.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise RecipeError(
            f"--set {text!r} is not of the form section.key=value",
            mend="write for example --set pretrain.steps=200",
        )
    keys = [part[1:-1] if part[0] in "\"'" else part for part in re.findall(r"""[\w-]+|"[^"]*"|'[^']*'""", form[1])]
    if len(keys) < 2:
        raise RecipeError(f"--set {text!r} names no key of a section", mend=f"write --set {keys[0]}.KEY=VALUE")
    return keys, _value(form[2].strip(), text)


def _value(text: str, override: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[:1] in ("[", "{", '"', "'"):
            raise RecipeError(
                f"--set {override!r}: the value is no TOML: {error}",
                mend="quote the whole for your shell, as --set 'corpus.sources=[\"a.txt\"]'",
            ) from error
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def apply_overrides(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the recipe's tables with each override set, in order; sections are made where absent.

    A budget (steps, tokens, epochs, minutes) takes the place of the one the recipe had.
    """
    changed: dict[str, Any] = _copy(raw)
    for override in overrides:
        keys, value = parse_override(override)
        table = changed
        for key in keys[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise RecipeError(f"--set {override!r}: {key!r} is a value, not a section")
        if keys[-1] in BUDGETS and (keys[0] != "stages" or len(keys) == 3):
            for rival in BUDGETS:
                table.pop(rival, None)
        table[keys[-1]] = value
    return changed


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
