"""``[expect]``: scores that a build must reach, as ``"sft/storyworld_qa/iid" = ">= 0.60"``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")


@dataclass(frozen=True)
class Expectation:
    """One threshold on one measured value."""

    key: str
    model: str
    task: str
    split: str
    comparison: str
    threshold: float

    def value_in(self, results: Mapping[str, Any]) -> float | None:
        """The value in results.json ({model: {task: {split: {value, ...}}}}), or None where not measured."""
        leaf = results.get(self.model, {}).get(self.task, {}).get(self.split)
        return None if leaf is None else float(leaf["value"])

    def met_by(self, value: float | None) -> bool:
        """Whether ``value`` reaches the threshold; a value that was not measured doesn't."""
        return value is not None and _COMPARISONS[self.comparison](value, self.threshold)


def parse_expectation(key: str, condition: str) -> Expectation:
    """Read one entry of ``[expect]``. Raises ValueError with the offending part."""
    parts = key.split("/")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f'{key!r} must be "model/task/split", such as "sft/storyworld_qa/iid"')
    found = _FORM.fullmatch(condition.strip())
    if found is None:
        raise ValueError(f'{condition!r} must be a comparison and a number, such as ">= 0.60"')
    model, task, split = parts
    return Expectation(key, model, task, split, found[1], float(found[2]))
