"""Whether the measured scores reach the thresholds of ``[expect]``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.recipe import EvaluateSection, Expectation, Recipe, Seq2SeqSection, parse_expectation
from groundup.run import read_json


@dataclass(frozen=True)
class Outcome:
    """One expectation and the value measured for it; None where nothing was measured."""

    expectation: Expectation
    value: float | None

    @property
    def met(self) -> bool:
        """Whether the value reaches the threshold."""
        return self.expectation.met_by(self.value)

    def __str__(self) -> str:
        wish = f"{self.expectation.comparison} {self.expectation.threshold:g}"
        measured = "not measured" if self.value is None else f"measured {self.value:.4g}"
        return f"{self.expectation.key}: {measured}, expected {wish}"


def load_results(recipe: Recipe, run: Path) -> dict[str, Any]:
    """results.json of every stage that measures and is built, merged by model and task; empty where none is."""
    merged: dict[str, Any] = {}
    for stage in recipe.ordered_stages():
        path = run / stage.name / "results.json"
        if not isinstance(stage.section, EvaluateSection | Seq2SeqSection) or not path.is_file():
            continue
        for model, tasks in read_json(path).items():
            for task, splits in tasks.items():
                merged.setdefault(model, {}).setdefault(task, {}).update(splits)
    return merged


def load_comparisons(recipe: Recipe, run: Path) -> dict[str, Any]:
    """comparisons.json of the last evaluate stage that is built; empty where there is none."""
    found: dict[str, Any] = {}
    for stage in recipe.ordered_stages():
        path = run / stage.name / "comparisons.json"
        if isinstance(stage.section, EvaluateSection) and path.is_file():
            found = read_json(path)
    return found


def check_expectations(recipe: Recipe, run: Path) -> list[Outcome]:
    """Each entry of ``[expect]`` with what was measured."""
    results = load_results(recipe, run)
    wishes = [parse_expectation(key, condition) for key, condition in recipe.expect.items()]
    return [Outcome(wish, wish.value_in(results)) for wish in wishes]
