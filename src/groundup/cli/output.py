"""Printing results: JSON for scripts."""

from __future__ import annotations

import json
from typing import Any


def print_json(value: Any) -> None:
    """Print ``value`` to stdout as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
