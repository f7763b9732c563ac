"""The evaluation chapter: results, intervals, answers by kind, paired differences, expectations."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from groundup.recipe import Recipe
from groundup.recipe.expect import parse_expectation
from groundup.run import read_json
from groundup.storyworld import KINDS, SPLITS

Facts = dict[str, Any]
QA = "storyworld_qa"
WORDS = {
    "bits_per_byte": "Bits per byte",
    "answers": "Bits per byte of held-out answers",
    "storyworld_qa": "Story questions",
    "storyworld_honesty": "Honesty",
    "storyworld_harmlessness": "Harmlessness",
    "storyworld_helpfulness": "Helpfulness",
}


def evaluation(run: Path, recipe: Recipe, stage: str) -> Facts | None:
    """What RUN/<stage> measured, in the order a reader wants it; None where nothing was."""
    try:
        results: Facts = read_json(run / stage / "results.json")
    except (FileNotFoundError, ValueError):
        return None
    models = [name for name in results if not name.startswith("baseline_")]
    baselines = [name for name in results if name.startswith("baseline_")]
    names = [*models, *baselines]
    tasks = list(dict.fromkeys(task for name in names for task in results[name]))
    kinds = [kind for kind in KINDS if f"{QA}_{kind}" in tasks]
    main = [task for task in tasks if not task.startswith(f"{QA}_")]
    return {
        "stage": stage,
        "models": models,
        "baselines": baselines,
        "tasks": [_table(results, task, names) for task in main],
        "kinds": _kinds(results, names, kinds),
        "comparisons": _comparisons(run / stage / "comparisons.json"),
        "expectations": _expectations(results, recipe),
        "errors": _errors(run / stage / "items.jsonl", models[-1] if models else ""),
    }


def _table(results: Facts, task: str, names: list[str]) -> Facts:
    found = {name: results[name][task] for name in names if task in results[name]}
    present = list(dict.fromkeys(split for cells in found.values() for split in cells))
    splits = [split for split in SPLITS if split in present] + [split for split in present if split not in SPLITS]
    return {
        "task": task,
        "words": WORDS.get(task, task),
        "rate": task not in ("bits_per_byte", "answers"),
        "splits": splits,
        "rows": [
            {
                "name": name,
                "model": not name.startswith("baseline_"),
                "cells": [cells.get(split) for split in splits],
            }
            for name, cells in found.items()
        ],
        "n": [next((cells[split]["n"] for cells in found.values() if split in cells), None) for split in splits],
    }


def _kinds(results: Facts, names: list[str], kinds: list[str]) -> Facts | None:
    """Accuracy by kind on the split of ordinary stories."""
    rows = [
        {"kind": kind, "cells": [results[name].get(f"{QA}_{kind}", {}).get("iid") for name in names]} for kind in kinds
    ]
    rows = [row for row in rows if any(row["cells"])]
    return {"names": names, "rows": rows} if rows else None


def _comparisons(path: Path) -> list[Facts]:
    try:
        content: Facts = read_json(path)
    except (FileNotFoundError, ValueError):
        return []
    return [
        {
            "pair": pair,
            "rows": [
                {"task": task, "words": WORDS.get(task, task), "split": split, **cell}
                for task, splits in tasks.items()
                for split, cell in splits.items()
            ],
        }
        for pair, tasks in content.items()
    ]


def _expectations(results: Facts, recipe: Recipe) -> list[Facts]:
    """Every line of [expect] with what was measured."""
    rows = []
    for key, condition in recipe.expect.items():
        expected = parse_expectation(key, condition)
        value = expected.value_in(results)
        rows.append({"key": key, "condition": condition, "value": value, "met": expected.met_by(value)})
    return rows


def _errors(path: Path, model: str) -> Facts | None:
    """How the last model's wrong answers to answerable questions on ordinary stories are wrong."""
    if not path.is_file():
        return None
    tally: Counter[str] = Counter()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if (record["model"], record.get("task"), record.get("split")) != (model, "storyworld", "iid"):
                continue
            if QA in record["scores"]:
                tally[_fault(record)] += 1
    total = sum(tally.values())
    return {"model": model, "total": total, "faults": [list(item) for item in tally.most_common()]} if total else None


def _fault(record: Facts) -> str:
    verdict = record["verdict"]
    if record["scores"][QA]:
        return "right"
    if not record["finished"]:
        return "did not end"
    if verdict["abstains"]:
        return "said the story does not say"
    return "named another candidate" if verdict["claim"] is not None else "made no single clear claim"
