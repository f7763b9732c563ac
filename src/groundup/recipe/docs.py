"""``docs/recipe.md``, made from the classes: every section, field, type, default and meaning."""

from __future__ import annotations

import json
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from groundup.recipe.base import written_fields
from groundup.recipe.corpus import SourceTable
from groundup.recipe.ladder import Rung
from groundup.recipe.load import builtin_recipes
from groundup.recipe.presets import PRESETS
from groundup.recipe.recipe import Recipe
from groundup.recipe.seq2seq import PairsTable
from groundup.recipe.sft import DataTable
from groundup.recipe.training import OptimizerTable, ScheduleTable

_HEAD = """# The recipe

<!-- Made from the classes in src/groundup/recipe by `python -m groundup.recipe`; edit those. -->

A recipe is a TOML file that says everything a build is made from. `groundup build` takes a built-in name or a
file, and `--set section.key=value` changes one value. Unknown keys are refused with the nearest valid name.
A stage runs if its section is present, so an empty `[corpus]` is a corpus stage with every default.

A further stage is `[stages.NAME]` with `kind` (ladder, pretrain, sft, dpo, seq2seq, evaluate, export or book) and the
keys of that kind; training stages have `start`, the stage whose weights they begin from.
"""
_TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("An item of `corpus.sources`", SourceTable),
    ("`optimizer`, in every training section", OptimizerTable),
    ("`schedule`, in every training section", ScheduleTable),
    ("An item of `ladder.rungs`", Rung),
    ("An item of `sft.data` and `dpo.data`", DataTable),
    ("An item of `seq2seq.data`", PairsTable),
)


def recipe_markdown() -> str:
    """The whole page."""
    parts = [_HEAD, "## Built-in recipes\n"]
    parts.append("\n".join(f"- `{name}`: {about}" for name, about in builtin_recipes().items()) + "\n")
    for name, field in written_fields(Recipe).items():
        sections = [part for part in _alternatives(field.annotation) if _is_model(part)]
        parts.append(f"## `[{name}]`\n\n{field.description}\n")
        if len(sections) == 1:
            parts.append(f"{sections[0].__doc__}\n\n{_table(sections[0])}")
            parts += _nested(name, sections[0])
        if name == "corpus":
            parts.append(_presets())
    for title, model in _TABLES:
        parts.append(f"## {title}\n\n{model.__doc__}\n\n{_table(model)}")
    return "\n".join(parts)


def _nested(path: str, model: type[BaseModel]) -> list[str]:
    """The tables within a section, but those that many sections share."""
    shared = [table for _, table in _TABLES]
    parts = []
    for name, field in model.model_fields.items():
        for part in _alternatives(field.annotation):
            if _is_model(part) and part not in shared:
                parts.append(f"### `[{path}.{name}]`\n\n{part.__doc__}\n\n{_table(part)}")
                parts += _nested(f"{path}.{name}", part)
    return parts


def _presets() -> str:
    """What the presets of the corpus stand for."""
    import tomli_w

    text = "### The presets\n\nWhat the recipe writes itself is added, and wins where both say something.\n"
    for name, tables in PRESETS.items():
        text += f'\n`preset = "{name}"` stands for\n\n```toml\n{tomli_w.dumps({"corpus": tables})}```\n'
    return text


def _table(model: type[BaseModel]) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {_type(field.annotation)} | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _type(annotation: Any) -> str:
    """A type in a reader's words."""
    simple = {str: "string", int: "integer", float: "number", bool: "true or false"}
    if annotation in simple:
        return simple[annotation]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        items = [item for item in get_args(annotation) if item is not Ellipsis]
        return "list of " + _type(items[0]) + (f", {len(items)} of them" if len(items) > 1 else "")
    parts = _alternatives(annotation)
    if len(parts) > 1:
        return " or ".join(_type(part) for part in parts)
    return "table" if _is_model(parts[0]) or get_origin(parts[0]) is dict else _type(parts[0])


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "absent"
    if isinstance(field.default, BaseModel):
        return "its defaults"
    return f"`{json.dumps(field.default)}`"


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for part in get_args(annotation) if part is not type(None)]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
