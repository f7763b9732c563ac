"""A run's translator: load it, and show what became of some test sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.build.verify import find_stage, open_run
from groundup.recipe import Recipe
from groundup.run import UserError, read_manifest

if TYPE_CHECKING:
    from groundup.inference import Translator

SHOWN = 3
"""Translations shown of each test split, the first wrong one among them."""


def translators(recipe: Recipe) -> list[str]:
    """Names of the stages that make a translator, in order."""
    return [stage.name for stage in recipe.ordered_stages() if stage.kind == "seq2seq"]


def open_translator(run: Path, stage: str | None = None) -> tuple[str, Translator]:
    """Load a translator of a run: the named stage's, or the last that is built. Returns its stage's name too.

    Raises:
        UserError: the stage is none of translation, or not built yet.
    """
    recipe = open_run(run)
    names = translators(recipe)
    if stage is not None and find_stage(recipe, stage).kind != "seq2seq":
        raise UserError(f"stage {stage!r} makes no translator", expected=" or ".join(names) or "a seq2seq stage")
    if not names:
        raise UserError(
            "this run has no translator", where=str(run), mend="groundup build seq2seq makes one; groundup chat talks"
        )
    for name in [stage] if stage is not None else list(reversed(names)):
        if read_manifest(run / name) is not None:
            from groundup.inference import Translator

            return name, Translator.load(run / name / "final")
    raise UserError(
        f"stage {stage!r} is not built yet" if stage else "no translator is built yet",
        where=str(run),
        mend="run groundup build first; the same command carries on",
    )


def sample_translations(recipe: Recipe, run: Path) -> list[dict[str, Any]]:
    """Test sentences of every built translator, ``SHOWN`` a split, wrong ones first to one: see translations.jsonl."""
    shown: list[dict[str, Any]] = []
    for name in translators(recipe):
        path = run / name / "translations.jsonl"
        if not path.is_file():
            continue
        by_split: dict[str, list[dict[str, Any]]] = {}
        with path.open(encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                by_split.setdefault(record["split"], []).append(record)
        for records in by_split.values():
            wrong = [record for record in records if not record["right"]][:1]
            right = [record for record in records if record["right"]][: SHOWN - len(wrong)]
            shown += [*right, *wrong]
    return shown
