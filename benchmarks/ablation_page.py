"""The page of benchmarks/ablation.py: its table, and around it how it was made and what was concluded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

MARK = "<!-- From here on written by hand; kept when the page is made anew. -->"
MORE = ("start", "two")
"""Groups of rows with a table of their own."""
COLUMNS = ("option", "", "bits per byte", "against plain", "tokens/s", "memory", "parameters")


def verdict(row: dict[str, Any]) -> str:
    """Better or worse where the 95 % interval leaves out zero; lower is better."""
    if row["option"] == "plain":
        return ""
    if row["difference"] + row["half_width"] < 0:
        return "better"
    return "worse" if row["difference"] - row["half_width"] > 0 else "undecided"


def _cells(row: dict[str, Any]) -> list[str]:
    own = row["option"] == "plain"
    extra = "" if row["active"] == row["parameters"] else f" ({row['active'] / 1e6:.2f} active)"
    return [
        f"`{row['option']}`",
        row["about"],
        f"{row['bits_per_byte']:.4f}",
        "" if own else f"{row['difference']:+.4f} ± {row['half_width']:.4f} {verdict(row)}",
        f"{row['tokens_per_second']:,}"
        if own
        else f"{row['speed']:.2f}× ({row['speed_low']:.2f}–{row['speed_high']:.2f})",
        f"{row['peak_mb']:,} MB",
        f"{row['parameters'] / 1e6:.2f} M{extra}",
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table, best first below the plain model."""
    ordered = sorted(rows, key=lambda row: (row["option"] != "plain", row["difference"]))
    lines = [COLUMNS, ["---", "---", *["---:"] * 5], *map(_cells, ordered)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(rows: Sequence[dict[str, Any]], tokens: int, per_update: int, machine: dict[str, Any], written: Path) -> str:
    """The whole page; what was written by hand in the file that it replaces stays."""
    runs = rows[0]["n"]
    kept = written.read_text(encoding="utf-8").partition(MARK)[2] if written.exists() else ""
    return f"""# What each idea buys at small scale

<!-- Made by `python benchmarks/ablation.py --write docs/ablations.md`. -->

Every option of `[model]` alone, switched on in the smallest rung of our ladder (`ladder-1m`: 4 layers, width 128, rows
of 256 tokens, a vocabulary of 2,048), trained on {tokens / 1e6:.2f} million tokens of Wikipedia's featured articles:
{tokens // per_update} updates of {per_update:,} tokens, with the recipe's default optimizer and schedule, nothing
tuned for any of them. {runs} runs of each, with the seeds 1 to {runs}; runs of one seed read the same texts in the same
order, and what two models have in common begins with the same numbers. The *plain* model is the
Qwen3 layout: what `[model]` gives with `embedding_scale = false` and as many key-value heads as queries.

- **bits per byte** of 32,768 tokens of articles held out, the mean of the runs; lower is better.
- **against plain**: the mean of the paired differences, and its 95 % interval (Student's t, {runs} pairs).
  *Better* and *worse* where that leaves out zero. Of {len(rows) - 1} comparisons one or two go wrong by chance.
- **tokens/s** of a training update on one core without compiling, float32, by CPU time: of the plain model the
  best update, of the others the median ratio to it, updates of both taken by turns in one process, and its quartiles.
- **memory**: the most that the training process held, Python and PyTorch included.

Measured on {machine["cores"]} cores of {machine["cpu"]}.

{table([row for row in rows if row["group"] not in MORE])}

## Two at a time, and how embeddings begin

{table([row for row in rows if row["option"] == "plain" or row["group"] in MORE])}

{MARK}{kept or chr(10)}"""
