"""Finding a misspelt key before anything else is checked, with the line it stands on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from groundup.recipe.base import written_fields
from groundup.recipe.errors import RecipeError, nearest

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Source:
    """Where a recipe was read: its name, its TOML text, and what ``--set`` changed (keys to override)."""

    name: str
    text: str = ""
    overrides: Mapping[tuple[str, ...], str] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """File, key, and line number where the text shows one; or the override that brought the key."""
        for keys, override in self.overrides.items():
            if path[: len(keys)] == keys:
                return f"--set {override}"
        line = find_line(self.text, path)
        return ", ".join([self.name, *([dotted(path)] if path else []), *([f"line {line}"] if line else [])])


def check_names(raw: Mapping[str, Any], model: type[BaseModel], source: Source, path: Path = ()) -> None:
    """Raise RecipeError for the first key of ``raw`` (or of tables in it) that ``model`` doesn't have.

    Args:
        source: where the recipe was read, for messages.
        path: keys and indices from the top of the recipe to ``raw``.
    """
    fields = written_fields(model)
    for key, value in raw.items():
        here = (*path, key)
        if key not in fields:
            _unknown(key, fields, source, path)
        for inner, table, at in _tables(fields[key].annotation, value, here, source):
            check_names(table, inner, source, at)


def _tables(
    annotation: Any, value: Any, at: Path, source: Source
) -> Iterable[tuple[type[BaseModel], Mapping[str, Any], Path]]:
    """The tables inside ``value`` with the class each must be, following the field's annotation."""
    models = [part for part in _flatten(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
    if isinstance(value, Mapping) and get_origin(annotation) is dict:
        for name, table in value.items():
            yield from _tables(get_args(annotation)[1], table, (*at, name), source)
    elif isinstance(value, Mapping) and models:
        yield _choose(models, value, at, source), value, at
    elif isinstance(value, list) and get_origin(annotation) is tuple:
        for index, item in enumerate(value):
            yield from _tables(get_args(annotation)[0], item, (*at, index), source)


def _choose(models: list[type[BaseModel]], table: Mapping[str, Any], at: Path, source: Source) -> type[BaseModel]:
    """The class of a table: the only one, or for [stages.NAME] the one its ``kind`` names."""
    if len(models) == 1:
        return models[0]
    by_kind = {model.model_fields["kind"].default: model for model in models}
    kind = table.get("kind")
    if kind not in by_kind:
        raise RecipeError(
            f"[{dotted(at)}] " + (f"has an unknown kind {kind!r}" if kind is not None else "lacks its kind"),
            where=source.place((*at, "kind") if kind is not None else at),
            expected="kind = one of " + ", ".join(by_kind),
            mend=nearest(str(kind), by_kind) if kind is not None else None,
        )
    return by_kind[kind]


def _flatten(annotation: Any) -> list[Any]:
    """The alternatives of a (possibly annotated) union."""
    if get_origin(annotation) is Annotated:
        return _flatten(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for alternative in get_args(annotation) for part in _flatten(alternative)]
    return [] if get_origin(annotation) is Literal else [annotation]


def _unknown(key: str, valid: Iterable[str], source: Source, path: Path) -> None:
    at = (*path, key)
    what = f"unknown key {dotted(at)!r}" if path else f"unknown section [{key}]"
    raise RecipeError(
        what,
        where=source.place(at),
        expected=("a key of [" + dotted(path) + "]: " if path else "a section: ") + ", ".join(valid),
        mend=nearest(key, valid),
    )


def dotted(path: Path) -> str:
    """A path as a recipe writes it: ``corpus.sources[0].weight``, ``expect."sft/storyworld_qa/iid"``."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"'
            out += f".{name}" if out else name
    return out


def find_line(text: str, path: Path) -> int | None:
    """Line (from 1) on which the deepest key of ``path`` that has a line of its own stands, or None."""
    wanted = [part for part in path if isinstance(part, str)]
    best, depth = None, 0
    section: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            header = re.match(r"\[\[?\s*([^\[\]]+?)\s*\]", stripped)
            found = _key_parts(header[1]) if header else None
            if found is None:
                continue
            section = keys = found
        else:
            key = re.match(r"""((?:[\w-]+|"[^"]*"|'[^']*'|\s*\.\s*)+?)\s*=""", stripped)
            inner = _key_parts(key[1]) if key else None
            if inner is None:
                continue
            keys = section + inner
        if len(keys) > depth and wanted[: len(keys)] == keys:
            best, depth = number, len(keys)
    return best


def _key_parts(key: str) -> list[str] | None:
    """The parts of a TOML key, or None where it is none."""
    try:
        table = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return None
    parts = []
    value: Any = table
    while isinstance(value, dict):
        name, value = next(iter(value.items()))
        parts.append(name)
    return parts
