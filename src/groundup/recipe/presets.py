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


def with_preset(values: dict[str, Any]) -> dict[str, Any]:
    """The section's written values with those of its preset beneath, table by table; what is written wins."""
    bundle = PRESETS.get(str(values.get("preset")))
    return values if bundle is None else {**_plain(bundle), **values}


def _plain(value: Any) -> Any:
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
