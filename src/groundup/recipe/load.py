"""Reading a recipe from a TOML file or a built-in name, and writing it back whole."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from groundup.recipe.base import written_fields
from groundup.recipe.errors import RecipeError, nearest
from groundup.recipe.importing import with_import
from groundup.recipe.model import ModelSection
from groundup.recipe.names import Source, check_names, dotted
from groundup.recipe.overrides import apply_overrides, parse_override
from groundup.recipe.recipe import Recipe


def builtin_recipes() -> dict[str, str]:
    """Name of each built-in recipe to its description, the comment on its first line."""
    found = {}
    for entry in files("groundup").joinpath("recipes").iterdir():
        if entry.name.endswith(".toml"):
            first = entry.read_text(encoding="utf-8").partition("\n")[0]
            found[entry.name.removesuffix(".toml")] = first.lstrip("# ").strip()
    return dict(sorted(found.items(), key=lambda item: (item[0] != "laptop", item[0])))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        name_or_path: a built-in name, or the path of a TOML file.
        overrides: items ``a.b=c``, as ``--set`` takes them.

    Raises RecipeError for an unknown recipe, a file that is no TOML, an unknown key or a wrong value.
    """
    name, source, text = _read(name_or_path)
    return parse_recipe(text, overrides, name=name, source=source)


def parse_recipe(text: str, overrides: Sequence[str] = (), *, name: str = "recipe", source: str = "recipe") -> Recipe:
    """Like ``load_recipe``, from TOML text. ``name`` is used where ``run.name`` is empty."""
    try:
        written = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"not valid TOML: {error}", where=source) from error
    raw = apply_overrides(written, overrides)
    origin = Source(source, text, {tuple(parse_override(each)[0]): each for each in overrides})
    _check_tables(raw, origin)
    check_names(raw, Recipe, origin)
    raw = with_import(raw)
    try:
        # JSON mode: types are strict, yet arrays fit tuples and whole numbers fit floats.
        recipe = Recipe.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        raise _explain(error, raw, origin) from error
    if recipe.run.name:
        return recipe
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": name})})


def dump_toml(recipe: Recipe) -> str:
    """The complete recipe as TOML; reading it gives an equal recipe. Absent options are left out, and so is the default
    shape where an imported checkpoint has its own."""
    import tomli_w

    shapeless = recipe.import_ is not None and recipe.model == ModelSection()
    content = recipe.model_dump(mode="json", exclude_none=True, exclude={"model"} if shapeless else None)
    return tomli_w.dumps(content)


def _read(name_or_path: str | Path) -> tuple[str, str, str]:
    """Name, source for messages, and text of a recipe."""
    path = Path(name_or_path)
    known = builtin_recipes()
    if str(name_or_path) in known:
        text = files("groundup").joinpath("recipes", f"{name_or_path}.toml").read_text(encoding="utf-8")
        return str(name_or_path), f"recipe {name_or_path}", text
    if path.suffix == ".toml" or path.exists():
        try:
            return path.stem, str(path), path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RecipeError(f"no recipe file {str(path)!r}", mend="check the path") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"can't read recipe {str(path)!r}: {error}") from error
    raise RecipeError(
        f"no recipe {str(name_or_path)!r}",
        expected="a TOML file, or one of " + ", ".join(known),
        mend=nearest(str(name_or_path), known),
    )


def _check_tables(raw: Mapping[str, Any], source: Source) -> None:
    """Sections must be tables; a bare key at the top is a forgotten header."""
    for key, value in raw.items():
        if key in written_fields(Recipe) and not isinstance(value, dict):
            raise RecipeError(f"{key} = {value!r} is no section", where=source.place((key,)), expected=f"[{key}]")


def _explain(error: ValidationError, raw: Mapping[str, Any], source: Source) -> RecipeError:
    """Turn pydantic's first complaint into one of ours."""
    first = error.errors()[0]
    path, value = _follow(first["loc"], raw)
    message = first["msg"].removeprefix("Value error, ")
    expected = None
    if first["type"] != "value_error":
        expected = message[:1].lower() + message[1:]
        message = f"{dotted(path)} = {_brief(value)} can't be used"
        if first["type"] == "missing":
            message = f"[{dotted(path)}] lacks {first['loc'][-1]!r}"
    mend = None
    choices = str(first.get("ctx", {}).get("expected", "")) if first["type"] == "literal_error" else ""
    if choices and isinstance(value, str):
        mend = nearest(value, [choice.strip(" '") for part in choices.split(",") for choice in part.split(" or ")])
    return RecipeError(message, where=source.place(path), expected=expected, mend=mend)


def _follow(location: tuple[int | str, ...], raw: Any) -> tuple[tuple[str | int, ...], Any]:
    """The part of pydantic's location that exists in the recipe (it adds union members), and its value."""
    path: list[str | int] = []
    value = raw
    for part in location:
        inside = isinstance(value, dict) and part in value
        inside = inside or (isinstance(value, list) and isinstance(part, int) and part < len(value))
        if inside:
            value = value[part]
            path.append(part)
    return tuple(path), value


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
