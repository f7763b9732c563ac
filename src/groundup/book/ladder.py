"""The ladder's chapter: rungs, the law before and after the last one, what was foretold and what was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundup.planning import LADDER, LawFit, fit_law, run_directory
from groundup.recipe import Recipe, Stage
from groundup.run import Manifest, read_json
from groundup.training import read_journal

Facts = dict[str, Any]
DRAWN = 60
"""Points of a drawn law."""
STEPS_A_DECADE = 8
"""Points of a training curve for each tenfold of compute."""
BEYOND = 1.6
"""How much farther than its last point a law is drawn."""


def climbed(run: Path, stage: Stage) -> Facts | None:
    """What a ladder found, and the law that foretold its last rung; None where ladder.json isn't there."""
    try:
        found: Facts = read_json(run / stage.name / LADDER)
    except (FileNotFoundError, ValueError):
        return None
    rungs: list[Facts] = found["rungs"]
    compute = [rung["compute"] for rung in rungs]
    losses = [rung["bits_per_byte"] for rung in rungs]
    before = fit_law(compute[:-1], losses[:-1])
    last = compute[-1]
    every = fit_law(compute, losses)
    end = max(last, found["forecast"]["compute"]) * BEYOND
    return {
        "name": stage.name,
        **found,
        "before": {"law": found["rungs"][-1]["prediction"]["law"], **drawn(before, compute[0] / BEYOND, last * BEYOND)},
        "after": drawn(every, compute[0] / BEYOND, end),
        "curves": [_curve(run_directory(run / stage.name, rung["rung"], 0), rung) for rung in rungs],
        "seeds": max(len(each) for each in losses),
        "floor_known": bool(found["floor"]["low"]),
    }


def drawn(fit: LawFit, low: float, high: float) -> Facts:
    """A law as points (compute, loss), and its 95 % band for a further run, [] where there is none."""
    places = np.geomspace(low, high, DRAWN).tolist()
    estimates = [fit.predict(place) for place in places]
    band = [[place, each.low, each.high] for place, each in zip(places, estimates, strict=True) if each.low is not None]
    return {"line": [[place, each.value] for place, each in zip(places, estimates, strict=True)], "band": band}


def _curve(directory: Path, rung: Facts) -> Facts:
    """The training loss of a rung's first run over the compute spent, the mean over equal steps of its logarithm:
    one update's loss says as much about its text as about the model."""
    share = rung["compute"] / max(1, rung["tokens"])
    rows = read_journal(directory / "metrics.jsonl")
    points = np.array(
        [(row["tokens"] * share, row["loss"]) for row in rows if math.isfinite(row.get("loss", math.nan))]
    ).reshape(-1, 2)
    steps = np.floor(np.log10(np.maximum(points[:, 0], 1.0)) * STEPS_A_DECADE)
    means = [points[steps == step].mean(0).tolist() for step in np.unique(steps)]
    return {"rung": rung["rung"], "points": means}


def largest(run: Path, recipe: Recipe, done: dict[str, Manifest]) -> list[str]:
    """Where below the run the largest rung's weights lie: the model that a book of a ladder alone describes."""
    names: Sequence[str] = [stage.name for stage in recipe.ordered_stages() if stage.kind == "ladder"]
    for name in names:
        if name in done:
            rung = read_json(run / name / LADDER)["rungs"][-1]["rung"]
            return [run_directory(Path(name), rung, 0).as_posix()]
    return []
