"""The report on a tokenizer (`groundup.tokenizer.report`) as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.corpus.report import share, size, table_of

if TYPE_CHECKING:
    from rich.table import Table

ROWS = 20  # of a table by name, or of tokens
ACROSS = 8  # tokens named in a line


def tables(report: dict[str, Any]) -> list[Table]:
    """Fertility of both splits, the use of the vocabulary with its remarkable tokens, and the advice on its size."""
    found = []
    for split, part in report["fertility"].items():
        if part["documents"]:
            found.append(_fertility(split, part))
    use = report["vocabulary"]
    found += [_use(report["tokenizer"], use), _lengths(use["lengths"])]
    found.append(_tokens("Most frequent tokens", use["most_frequent"], use["tokens"]))
    found.append(_tokens("Longest tokens", use["longest"], use["tokens"]))
    if report["advice"] is not None:
        found.append(_curve(report["advice"]))
    return found


def remarks(report: dict[str, Any]) -> list[str]:
    """What the tables leave unsaid: how much was measured, and what the advice is and is not."""
    lines = []
    for split, part in report["fertility"].items():
        if part["documents"]:
            lines.append(
                f"{split}: measured on {part['documents']:,} documents, {size(part['bytes'])}, "
                f"{share(part['share'], 1)} of the split"
            )
    if _any_without_words(report):
        lines.append("tokens per word: – where much of the text is in scripts without spaces between words")
    if report["compare"] is not None:
        lines.append(
            f"other: {report['compare']['path']}, {report['compare']['vocabulary_size']:,} tokens; "
            "ratio: our tokens for one of its"
        )
    if report["advice"] is not None:
        lines += _advice(report["advice"])
    return lines


def _any_without_words(report: dict[str, Any]) -> bool:
    parts = report["fertility"].values()
    rows = [row for part in parts for row in [*part["sources"].values(), *part["languages"].values()]]
    return any(row["tokens_per_word"] is None for row in rows)


def _fertility(split: str, part: dict[str, Any]) -> Table:
    compared = "ratio" in part["all"]
    header = ["", "bytes", "tokens", "per byte", "per character", "per word", "bytes per token"]
    table = table_of(f"Tokens of {split} texts", [*header, *(["other per byte", "ratio"] if compared else [])])

    def row(name: str, rates: dict[str, Any], style: str = "") -> None:
        word = rates["tokens_per_word"]
        cells = [
            size(rates["bytes"]),
            f"{rates['tokens']:,}",
            f"{rates['tokens_per_byte']:.4f}",
            f"{rates['tokens_per_character']:.4f}",
            "–" if word is None else f"{word:.3f}",
            f"{rates['bytes_per_token']:.3f}",
        ]
        if compared:
            cells += [f"{rates['other_tokens_per_byte']:.4f}", f"{rates['ratio']:.3f}"]
        table.add_row(name, *cells, style=style)

    row("all", part["all"], "bold")
    for kind in ("sources", "languages"):
        rows = list(part[kind].items())
        if len(rows) > 1 or (kind == "languages" and rows):
            table.add_section()
            for name, rates in rows[:ROWS]:
                row(name, rates)
            if len(rows) > ROWS:
                table.add_row(f"{len(rows) - ROWS} more {kind}, in --json", *[""] * (len(table.columns) - 1))
    return table


def _use(tokenizer: dict[str, Any], use: dict[str, Any]) -> Table:
    table = table_of("Vocabulary", ["", "tokens", "of all"])
    table.add_column("", justify="left", overflow="fold")

    def row(name: str, count: int, what: str = "") -> None:
        table.add_row(name, f"{count:,}", share(count, use["size"]), what)

    never, rare, partial = use["never_used"], use["under_trained"], use["partial"]
    row("in the vocabulary", use["size"], f"{tokenizer['special']:,} special, {tokenizer['merges']:,} merges")
    row("used in training texts", use["used"], f"{use['tokens']:,} times in all")
    row("never used", never["count"], f"{never['special']:,} special, {never['bytes']:,} bytes{_some(never['tokens'])}")
    row(f"used less than {rare['below']} times", rare["count"], _some(rare["tokens"], " "))
    row("unreachable by themselves", use["unreachable"]["count"], _some(use["unreachable"]["tokens"], " "))
    row("part of a character", partial["count"], f"{share(partial['share'], 1)} of all that occur")
    return table


def _some(tokens: list[dict[str, Any]], before: str = "; ") -> str:
    """The first of some tokens."""
    return (before + "  ".join(token["text"] for token in tokens[:ACROSS])).rstrip() if tokens else ""


def _lengths(lengths: list[dict[str, Any]]) -> Table:
    table = table_of("Tokens by length", ["bytes", "tokens", "of all that occur"])
    for row in lengths[:ROWS]:
        table.add_row(f"{row['bytes']}", f"{row['tokens']:,}", share(row["share"], 1))
    if rest := lengths[ROWS:]:
        label = f"{rest[0]['bytes']} to {rest[-1]['bytes']}"
        table.add_row(label, f"{sum(row['tokens'] for row in rest):,}", share(sum(row["share"] for row in rest), 1))
    return table


def _tokens(title: str, tokens: list[dict[str, Any]], total: int) -> Table:
    table = table_of(title, ["", "id", "times", "of all"])
    for token in tokens[:ROWS]:
        table.add_row(token["text"], str(token["id"]), f"{token['count']:,}", share(token["count"], total))
    return table


def _curve(advice: dict[str, Any]) -> Table:
    table = table_of("Size of vocabulary", ["tokens", "per byte of text", "FLOPs per byte", "of these the head", ""])
    best, present = advice["best"]["vocabulary_size"], advice["present"]["vocabulary_size"]
    for row in advice["curve"]:
        number = row["vocabulary_size"]
        notes = [
            *(["present"] if number == present else []),
            *(["best"] if number == best else []),
            *(["extrapolated"] if row["extrapolated"] else []),
        ]
        cells = [f"{row['tokens_per_byte']:.4f}", f"{row['flops_per_byte']:.3e}", share(row["head_share"], 1)]
        table.add_row(f"{number:,}", *cells, ", ".join(notes), style="bold" if number in (best, present) else "")
    return table


def _advice(advice: dict[str, Any]) -> list[str]:
    present, best, reach = advice["present"], advice["best"], advice["extrapolation"]
    low, high = advice["as_good"]
    model = advice["model"]
    lines = [
        f"Advice for the recipe's model: {model['layers']} layers of width {model['hidden_size']}, trained in rows of "
        f"{model['context']:,} tokens, on {size(advice['text_bytes'])} of text.",
        f"The head takes {share(present['head_share'], 1)} of training FLOPs at {present['vocabulary_size']:,} tokens"
        + (f", {share(best['head_share'], 1)} at {best['vocabulary_size']:,}." if best != present else "."),
    ]
    if best["vocabulary_size"] == present["vocabulary_size"]:
        lines.append("No smaller vocabulary takes fewer FLOPs per byte of text." if advice["open"] else
                     "The present size takes the fewest FLOPs per byte of text.")  # fmt: skip
    else:
        lines.append(
            f"{'At least ' if advice['open'] else ''}{best['vocabulary_size']:,} tokens take the fewest FLOPs per byte "
            f"of text, {share(advice['saved'], 1)} fewer than now; {low:,} to {high:,} are within 1 %."
        )
    if reach["to"] > reach["from"]:
        tested = "" if reach["missed"] is None else (
            f"; foretold in the same way from half its size, the present text length would have been missed by "
            f"{100 * abs(reach['missed']):.1f} %"
        )  # fmt: skip
        lines.append(f"Sizes above {reach['from']:,} are extrapolated{tested}.")
    elif not advice["exhausted"]:
        lines.append(f"Sizes above {reach['from']:,} can't be foretold.")
        if reach["missed"] is not None:
            missed = f"{100 * abs(reach['missed']):.0f} %"
            lines.append(f"From half its size, the present text length would have been missed by {missed}.")
    if advice["exhausted"]:
        lines.append("The corpus has no more merges to give: larger sizes would need more text.")
    if not advice["exact"]:
        lines.append("The merges are not in the order they were learned in: smaller sizes are approximate.")
    return [*lines, *advice["caveats"], f"See {advice['reference']}."]
