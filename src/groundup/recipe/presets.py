"""The presets of `[corpus]`: bundles of its tables for one kind of text."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "web": {
        "filters": {
            "language": {"keep": ["en"]},
            "gopher_repetition": {},
            "gopher_quality": {},
            "c4": {"terminal_punctuation": False},  # it costs 30 % of the tokens and gains little: FineWeb, section 3.5
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
    """The section's written values with those of its preset beneath, key by key; what is written wins."""
    return _frozen(_merged(PRESETS.get(str(values.get("preset")), {}), values))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for key, value in below.items():
        if isinstance(value, dict) and isinstance(above.get(key), dict):
            merged[key] = _merged(value, above[key])
    return merged


def _frozen(value: Any) -> Any:
    """Lists become tuples: what a validator hands on is no JSON any more, in which a list would do for one."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
