"""Rotary positions and windows in a config.json, under their old and their new names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from groundup.interchange.layouts.settings import Settings
from groundup.model import Architecture
from groundup.recipe.model import RopeScaling

FULL, SLIDING = "full_attention", "sliding_attention"
_KEYS = {
    "default": set[str](),
    "linear": {"factor"},
    "llama3": {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
    "yarn": {
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim", "truncate"),
    },
}
"""Kinds of rope and what belongs to each, besides the base and the kind."""


def read_rope(settings: Settings, theta: float, context: int) -> tuple[float, dict[str, Any] | None]:
    """The base of the frequencies and our `rope_scaling`, from `rope_theta` and `rope_scaling` (names until version 4
    of `transformers`) or `rope_parameters` (since 5).

    Args:
        theta: the base where the file names none.
        context: max_position_embeddings, which is the original context where none is named.

    Raises UserError for other kinds, for keys that don't belong to the kind, and where old and new names disagree.
    """
    old, new = settings.table("rope_scaling"), settings.table("rope_parameters")
    base = settings.number("rope_theta", default=theta)
    context = settings.whole("original_max_position_embeddings", default=context)
    settings.only("partial_rotary_factor", (1, None))
    theirs = new.get("rope_theta")
    if settings.values.get("rope_theta") not in (None, theirs) and theirs is not None:
        raise settings.refusal("rope_theta", base, f"{theirs!r}, as in rope_parameters")
    clash = sorted(key for key in old.keys() & new.keys() if old[key] != new[key])
    if clash:
        raise settings.refusal(f"rope_scaling.{clash[0]}", old[clash[0]], f"{new[clash[0]]!r}, as in rope_parameters")
    return read_parameters(settings, {**new, **old}, base, context)


def read_parameters(
    settings: Settings, parameters: Mapping[str, Any], theta: float, context: int
) -> tuple[float, dict[str, Any] | None]:
    """One table of rope's parameters; see :func:`read_rope`."""
    table = Settings(
        {key: value for key, value in parameters.items() if key != "type"},
        f"{settings.where}: rope_parameters",
        {"rope_type": parameters.get("type", "default")},
    )
    kind = table.get("rope_type")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise table.refusal("rope_type", kind, f"one of {', '.join(_KEYS)}")
    base = table.number("rope_theta", default=theta)
    table.only("partial_rotary_factor", (1, None))
    known = {"rope_type", "rope_theta", "partial_rotary_factor", *_KEYS[kind]}
    if kind != "default" and (strange := sorted(table.values.keys() - known)):
        raise table.refusal(strange[0], table.values[strange[0]], f"for {kind} only {', '.join(sorted(known))}")
    if kind == "default":
        return base, None
    scaling: dict[str, Any] = {"kind": kind}
    if kind != "linear":
        scaling["original_context"] = table.whole("original_max_position_embeddings", default=context)
    if kind == "llama3":
        scaling["low_frequency_factor"] = table.number("low_freq_factor")
        scaling["high_frequency_factor"] = table.number("high_freq_factor")
    if kind == "yarn":
        table.only("truncate", (True,), default=True)
        scaling["beta_fast"] = table.number("beta_fast", default=32.0)
        scaling["beta_slow"] = table.number("beta_slow", default=1.0)
    scaling["factor"] = table.number("factor")
    if kind == "yarn":
        scaling["attention_factor"] = _attention_factor(table, scaling["factor"])
    return base, scaling


def _attention_factor(table: Settings, factor: float) -> float | None:
    """yarn's factor of queries and keys; None for the paper's."""
    given = table.number("attention_factor", default=None)
    above, below = table.number("mscale", default=None), table.number("mscale_all_dim", default=None)
    if given is not None or not above or not below:
        return None if given is None else float(given)
    grown = math.log(factor) if factor > 1 else 0.0
    return float((0.1 * above * grown + 1) / (0.1 * below * grown + 1))


def write_parameters(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """The table `rope_parameters`."""
    table: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if scaling is None:
        return table
    table |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        table["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        table |= {"low_freq_factor": scaling.low_frequency_factor, "high_freq_factor": scaling.high_frequency_factor}
    if scaling.kind == "yarn":
        table |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor is not None:
            table["attention_factor"] = scaling.attention_factor
    return table


def write_rope(arch: Architecture) -> dict[str, Any]:
    """The keys of rope, old and new: new versions of `transformers` write only the new ones, older readers know only
    the old ones."""
    parameters = write_parameters(arch.rope_theta, arch.rope_scaling)
    old = {key: value for key, value in parameters.items() if key != "rope_theta"}
    return {
        "rope_theta": arch.rope_theta,
        "rope_scaling": old if arch.rope_scaling else None,
        "rope_parameters": parameters,
    }


def read_windows(settings: Settings, window: int | None, windowed: Sequence[bool]) -> dict[str, Any]:
    """Our `window` and `window_pattern`, from `layer_types`, or where it is absent from what the family makes of its
    other keys.

    Raises UserError for types other than full and sliding attention.
    """
    types = settings.get("layer_types")
    if types is not None:
        if not isinstance(types, list) or len(types) != len(windowed):
            raise settings.refusal("layer_types", types, f"one for each of {len(windowed)} layers")
        if strange := [kind for kind in types if kind not in (FULL, SLIDING)]:
            raise settings.refusal("layer_types", strange[0], f"{FULL} or {SLIDING}")
        windowed = [kind == SLIDING for kind in types]
    if not any(windowed):
        return {"window": None}
    if window is None:
        raise settings.refusal("layer_types", SLIDING, "a sliding_window that is used")
    return {"window": window, "window_pattern": pattern(windowed)}


def pattern(windowed: Sequence[bool]) -> str:
    """The shortest `window_pattern` that gives these layers a window."""
    period = next(p for p in range(1, len(windowed) + 1) if all(w == windowed[i % p] for i, w in enumerate(windowed)))
    return "".join("S" if w else "L" for w in windowed[:period])


def windows(arch: Architecture) -> list[bool]:
    """Which layers have the window."""
    return [arch.has_window(layer) for layer in range(arch.layers)]


def mixed_windows(arch: Architecture) -> list[str]:
    """What families cannot express in which all layers have the window, or none."""
    return [f'window_pattern = "{arch.window_pattern}"'] if len(set(windows(arch))) > 1 else []


def layer_types(arch: Architecture) -> list[str]:
    """The key `layer_types`."""
    return [SLIDING if windowed else FULL for windowed in windows(arch)]
