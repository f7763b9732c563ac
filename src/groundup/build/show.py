"""What a finished build shows on stdout: scores with intervals, a conversation, and where things are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from groundup.build.chat import Message
from groundup.build.expectations import Outcome
from groundup.recipe import Recipe

BITS = "bits_per_byte"


def results_table(results: Mapping[str, Any], *, details: bool = False) -> Table:
    """A heading for each task, a row for each split, models across, n in the last column.

    Args:
        results: {model: {task: {split: {value, low, high, n, metric}}}}.
        details: also the scores of each kind of question.
    """
    table = Table(title="Evaluation (95 % intervals)", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for model in results:
        table.add_column(model.replace("baseline_", "baseline\n"), justify="right")
    table.add_column("n", justify="right")
    rows: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for model, tasks in results.items():
        for task, splits in tasks.items():
            for split, leaf in splits.items():
                rows.setdefault(task, {}).setdefault(split, {})[model] = leaf
    for task, of_split in rows.items():
        part_of_another = any(task.startswith(f"{name}_") for name in rows)
        if part_of_another and not details:
            continue
        first = next(iter(next(iter(of_split.values())).values()))
        table.add_row(Text(task + ("" if first["metric"] == BITS else ", %"), style="bold"))
        for split, leaves in of_split.items():
            cells = [_score(leaves.get(model)) for model in results]
            table.add_row(f"  {split}", *cells, f"{max(leaf['n'] for leaf in leaves.values()):,}")
    return table


def _score(leaf: Mapping[str, Any] | None) -> str:
    """A score and its interval; rates in percent."""
    if leaf is None:
        return "-"
    if leaf["metric"] == BITS:
        return f"{leaf['value']:.3f} ({leaf['low']:.3f}-{leaf['high']:.3f})"
    return f"{100 * leaf['value']:.1f} ({100 * leaf['low']:.0f}-{100 * leaf['high']:.0f})"


def changes_table(comparisons: Mapping[str, Any]) -> Table:
    """What the last tuning stage changed: paired differences on the same items, in points, with their intervals."""
    name, changes = list(comparisons.items())[-1]
    table = Table(title=f"Change {name} (paired, points)", title_justify="left", box=SIMPLE_HEAD)
    tasks = {task: of for task, of in changes.items() if not any(task.startswith(f"{whole}_") for whole in changes)}
    splits = list(dict.fromkeys(split for of in tasks.values() for split in of))
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    for task, of in tasks.items():
        cells = [of.get(split) for split in splits]
        table.add_row(task, *("-" if leaf is None else _change(leaf) for leaf in cells))
    return table


def _change(leaf: Mapping[str, Any]) -> str:
    return f"{100 * leaf['value']:+.1f} ({100 * leaf['low']:+.0f} to {100 * leaf['high']:+.0f})"


def expectations_table(outcomes: Sequence[Outcome]) -> Table:
    """Each expectation, what was measured, and whether it was met."""
    table = Table(title="Expectations", title_justify="left")
    table.add_column("score")
    table.add_column("expected", justify="right")
    table.add_column("measured", justify="right")
    table.add_column("")
    for outcome in outcomes:
        wish = outcome.expectation
        measured = "-" if outcome.value is None else f"{outcome.value:.4g}"
        table.add_row(wish.key, f"{wish.comparison} {wish.threshold:g}", measured, "met" if outcome.met else "MISSED")
    return table


def show_conversation(console: Console, talk: Sequence[Message]) -> None:
    """Print a conversation, a role a paragraph."""
    console.print("A conversation", style="bold")
    for message in talk:
        console.print(f"{message['role']}: {message['content']}", markup=False, highlight=False, soft_wrap=True)
    console.print()


def show_translations(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    """Print test sentences with their translations, and what would have been right where it isn't."""
    console.print("Translations of test sentences", style="bold")
    for record in records:
        console.print(f"{record['split']}: {record['source']}", markup=False, highlight=False, soft_wrap=True)
        verdict = "" if record["right"] else f"   (wrong: {record['target']})"
        console.print(f"  {record['translation']}{verdict}", markup=False, highlight=False, soft_wrap=True)
    console.print()


def result_paths(recipe: Recipe, run: Path) -> dict[str, str]:
    """Name to path of what a reader wants next, where it is built."""
    candidates: list[tuple[str, Path]] = []
    for stage in recipe.ordered_stages():
        if stage.kind == "book":
            candidates.append((stage.name, run / stage.name / "book.pdf"))
        elif stage.kind == "ladder":
            candidates.append((stage.name, run / stage.name / "ladder.json"))
        elif stage.kind == "export":
            candidates.append((stage.name, run / stage.name / "hf"))
            candidates.append((f"{stage.name} (gguf)", run / stage.name / "model.gguf"))
    found = {name: str(path) for name, path in candidates if path.exists()}
    return {"run": str(run), **found}


def stdout_console() -> Console:
    """A console on stdout, wide enough for tables where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)
