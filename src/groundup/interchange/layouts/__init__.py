"""Layouts that other programs load with no custom code, one small file a family.

Each says which architectures it expresses, what its config.json says, and how its tensors are named and laid out; see
`layout.Layout`. Another family is another class here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.interchange.layouts.gemma3 import Gemma3
from groundup.interchange.layouts.gpt2 import Gpt2
from groundup.interchange.layouts.layout import Layout
from groundup.interchange.layouts.llama import Llama, Mistral
from groundup.interchange.layouts.mixtral import Mixtral
from groundup.interchange.layouts.olmo2 import Olmo2
from groundup.interchange.layouts.qwen import Qwen2, Qwen3, Qwen3Moe
from groundup.interchange.layouts.settings import Settings
from groundup.run import UserError

LAYOUTS: tuple[Layout, ...] = (
    Qwen3(),
    Llama(),
    Qwen2(),
    Mistral(),
    Olmo2(),
    Gemma3(),
    Gpt2(),
    Mixtral(),
    Qwen3Moe(),
)
"""In the order in which they are tried for an architecture that fits several."""

_WRAPPERS = {"gemma3": ("text_config", "gemma3_text")}
"""Models of several parts: the key of the text model's configuration, and its layout."""
_QUANTISED = ("quantization_config", "compression_config")


def layout_named(model_type: str) -> Layout | None:
    """The layout of a `model_type`."""
    return next((layout for layout in LAYOUTS if layout.model_type == model_type), None)


def open_config(config: Mapping[str, Any], where: str) -> tuple[Layout, Settings]:
    """The layout of a config.json and its settings, of the text model where there are several parts.

    Raises UserError for a model_type that is not known.
    """
    kind = config.get("model_type")
    values, layout = dict(config), None
    if isinstance(kind, str) and kind in _WRAPPERS:
        key, name = _WRAPPERS[kind]
        text, layout = config.get(key), layout_named(name)
        if not isinstance(text, dict):
            raise UserError(f"no {key}", where=where, expected="the text model's configuration")
        shared = {"tie_word_embeddings": config["tie_word_embeddings"]} if "tie_word_embeddings" in config else {}
        values = {**text, **shared, **{k: config[k] for k in (*_QUANTISED, "auto_map") if k in config}}
        where = f"{where}: {key}"
    elif isinstance(kind, str):
        layout = layout_named(kind)
    if layout is None:
        known = sorted([*(each.model_type for each in LAYOUTS), *_WRAPPERS])
        raise UserError(f"model_type = {kind!r} is not supported", where=where, expected=f"one of {', '.join(known)}")
    settings = Settings(values, where, layout.defaults)
    if isinstance(code := values.get("auto_map"), dict) and "AutoModelForCausalLM" in code:
        raise settings.refusal("auto_map", code["AutoModelForCausalLM"], "a model without code of its own")
    for key in _QUANTISED:
        if settings.get(key) is not None:
            raise settings.refusal(key, settings.get(key), "weights that are not quantised")
    return layout, settings
