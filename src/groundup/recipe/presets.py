"""The presets of `[corpus]`: bundles of its tables for one kind of text."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "web": {
        "filters": {
            "language": {"keep": ["en"]},
            "gopher_repetition": {},
            "gopher_quality": {},
            "c4": {},
            "fineweb": {},
        },
        "personal_data": {},
        "dedup": {"boilerplate": {}, "near": {}},
    },
    "books": {
        "filters": {"length": {"min_words": 100}},
        "dedup": {"near": {}},
    },
    "code": {
        "filters": {"length": {"min_characters": 40, "max_line_characters": 1000, "max_mean_line_characters": 100}},
        "personal_data": {"kinds": ["email", "key"]},
        "dedup": {"near": {}},
    },
}


def with_preset(values: dict[str, Any]) -> Any:
    """The section's written values with those of its preset beneath, table by table; what is written wins."""
    return _frozen({**PRESETS.get(str(values.get("preset")), {}), **values})


def _frozen(value: Any) -> Any:
    """Lists become tuples: what a validator hands on is no JSON any more, in which a list would do for one."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
