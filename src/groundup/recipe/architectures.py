"""The presets of `[model]`: published architectures as data, and our ladder, in which depth sets everything else.

The data are in architectures.toml beside this file; docs/architectures.md shows them with their parameters.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from groundup.recipe.errors import RecipeError, nearest
from groundup.recipe.presets import _frozen, _merged

PUBLISHED = {"embedding_scale": False}
"""Where our own default differs from what is usual, and so from that of most published architectures."""
RUNG = re.compile(r"ladder-d([1-9][0-9]?)")
"""Any rung of the ladder, by its depth: ``ladder-d11``."""


@dataclass(frozen=True)
class ArchitecturePreset:
    """A named architecture.

    ``parameters`` is the published count, each parameter once; None where nobody has published one. ``model`` are
    fields of `[model]`, ``vocabulary_size`` the tokens that the published model knows; a build's own tokenizer
    decides that. ``note`` says where a published figure counts otherwise.
    """

    name: str
    family: str
    about: str
    source: str
    parameters: int | None
    vocabulary_size: int
    model: Mapping[str, Any]
    note: str = ""


def architecture_names() -> tuple[str, ...]:
    """The names of all presets, family by family."""
    return tuple(_presets())


def architecture(name: str) -> ArchitecturePreset:
    """The preset of a name. Raises RecipeError, with the nearest name, where there is none."""
    known = _presets()
    if name in known:
        return known[name]
    if rung := RUNG.fullmatch(name):
        return _rung(name, int(rung[1]))
    raise RecipeError(
        f"no architecture {name!r}",
        expected=f"one of {', '.join(known)}; or ladder-dN of N layers",
        mend=nearest(name, known),
    )


def with_architecture(values: dict[str, Any]) -> dict[str, Any]:
    """The written values of `[model]` with those of its preset beneath, key by key; what is written wins.

    Raises RecipeError for a name that is no preset.
    """
    merged: dict[str, Any] = _frozen(_merged(dict(architecture(str(values["preset"])).model), values))
    return merged


def ladder(depth: int) -> tuple[int, dict[str, Any]]:
    """The rung of this many layers: its vocabulary's size and its fields of `[model]`. Depth is the only dial.

    - Width grows with the square of the depth, 4 · depth · (depth + 4), so that small models are narrow (32 channels
      a layer at 4 layers) and large ones as wide as is usual (64 at 12, as GPT-2; 100 at 20). It is rounded to
      multiples of 64, and of 256 from 512 on, without which the k-quants of GGUF fall back to larger types.
    - Heads are 32 wide below a width of 256, 64 below 1024 and 128 from there on; two query heads share keys
      and values, unless their number is odd: no worse at a million parameters (docs/ablations.md), and half the cache.
    - The feed-forward layer is 8/3 of the width, as much as 4 with two matrices (Shazeer 2020, arXiv 2002.05202),
      rounded up to multiples of 32, 64 or 256 like the width.
    - The context is the power of two nearest to twice the width, and the vocabulary 8 times that, close to what Tao
      et al. 2024 (arXiv 2407.13623) find best for models of each size trained at equal compute.

    Embeddings are tied; all else is the default of `[model]`. Raises RecipeError for a depth outside 1 to 99.
    """
    if not 1 <= depth <= 99:
        raise RecipeError(f"a ladder of {depth} layers", expected="1 to 99 layers")
    raw = 4 * depth * (depth + 4)
    step = 256 if raw >= 448 else 64
    width = max(64, (raw + step // 2) // step * step)
    context = _power_of_two(2 * width)
    return 8 * context, {"layers": depth, "hidden_size": width, **proportions(width), "context_length": context}


def proportions(width: int) -> dict[str, int]:
    """Heads and the feed-forward layer of a model of our family of this width, as :func:`ladder` says. Below a width
    of 32 there is one head."""
    head_dim = 128 if width >= 1024 else 64 if width >= 256 else min(32, width)
    heads = width // head_dim
    multiple = 256 if width >= 512 else 64 if width >= 256 else 32
    return {
        "heads": heads,
        "kv_heads": heads if heads % 2 else heads // 2,
        "head_dim": head_dim,
        "intermediate_size": -(-8 * width // (3 * multiple)) * multiple,
    }


def _power_of_two(number: int) -> int:
    """The nearest power of two, the larger of two equally near."""
    below = 1 << (number.bit_length() - 1)
    return below if number - below < 2 * below - number else 2 * below


def _rung(name: str, depth: int) -> ArchitecturePreset:
    vocabulary_size, model = ladder(depth)
    about = f"our ladder at {depth} layers: width {model['hidden_size']:,}, context {model['context_length']:,}"
    return ArchitecturePreset(
        name=name,
        family="ladder",
        about=about,
        source="",
        parameters=None,
        vocabulary_size=vocabulary_size,
        model=MappingProxyType(model),
    )


@lru_cache(maxsize=1)
def _presets() -> Mapping[str, ArchitecturePreset]:
    """Every preset of architectures.toml. A family's `model` lies beneath that of each of its members."""
    text = files("groundup.recipe").joinpath("architectures.toml").read_text(encoding="utf-8")
    found: dict[str, ArchitecturePreset] = {}
    for family, table in tomllib.loads(text).items():
        shared = table.get("model", {})
        for name, entry in table["members"].items():
            if family == "ladder":
                found[name] = _rung(name, entry["depth"])
                continue
            found[name] = ArchitecturePreset(
                name=name,
                family=family,
                about=entry["about"],
                source=entry.get("source", table.get("source", "")),
                parameters=entry.get("parameters"),
                vocabulary_size=entry.get("vocabulary_size", table.get("vocabulary_size")),
                model=MappingProxyType(_frozen(_merged(PUBLISHED | shared, entry.get("model", {})))),
                note=entry.get("note", ""),
            )
    return MappingProxyType(found)
