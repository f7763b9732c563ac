"""What the corpus stage did, for a reader: the funnel as tables on a terminal (as a figure: `sankey`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

SPLITS = {"train": "passages to train on", "validation": "passages to validate on"}
Refusals = dict[str, dict[str, Any]]  # rule: {"documents", "bytes", "words", …}


@dataclass(frozen=True)
class Passed:
    """A step of the funnel as readers want it.

    Args:
        documents: that went through it.
        bytes, words: of these; words are None where they weren't counted yet.
        refused: rule to its tally, the rule that refused most first.
        edits: what was changed and not refused, to how often.
    """

    name: str
    documents: int
    bytes: int
    words: int | None
    refused: Refusals
    edits: dict[str, int]


def steps(part: dict[str, Any], names: list[str]) -> list[Passed]:
    """The steps that documents pass, from "read" to "kept"; extraction is left out where there was no page.

    Args:
        part: the "total" of a funnel, or one of its sources.
        names: the funnel's "steps".

    "read" counts what came in before any refusal. Of every later step, documents = documents before − refused.
    """
    found: list[Passed] = []
    left = part["steps"]["read"]["documents"]
    for name in [name for name in names if name not in SPLITS]:
        tally, refused = part["steps"][name], part["rejections"].get(name, {})
        prefix = f"{name}/"
        edits = {key.removeprefix(prefix): times for key, times in part["edits"].items() if key.startswith(prefix)}
        if name != "read":
            left -= sum(rule["documents"] for rule in refused.values())
        if name != "extracted" or refused or tally["bytes"] != part["steps"]["read"]["bytes"]:
            ordered = dict(sorted(refused.items(), key=lambda item: (-item[1]["documents"], item[0])))
            words = tally["words"] if tally["words"] or not tally["bytes"] else None
            found.append(Passed(name, left, tally["bytes"], words, ordered, edits))
        if name == "read":
            left -= sum(rule["documents"] for rule in refused.values())
    return found


def passages(part: dict[str, Any]) -> dict[str, dict[str, int]]:
    """The tallies of what the kept documents were cut into: {"train": …, "validation": …}."""
    return {split: part["steps"][split] for split in SPLITS}


def funnel_table(funnel: dict[str, Any], source: str | None = None) -> Table:
    """Every step with the documents that it left, and below it the rules with what they refused.

    Args:
        funnel: the content of funnel.json.
        source: one source's funnel instead of the total.
    """
    part = next(each for each in funnel["sources"] if each["name"] == source) if source else funnel["total"]
    read = part["steps"]["read"]["documents"]
    table = table_of(f"Funnel of {source}" if source else "Funnel", ["", "documents", "of read", "bytes", "words"])
    for step in steps(part, funnel["steps"]):
        row = [f"{step.documents:,}", share(step.documents, read), size(step.bytes), number(step.words)]
        table.add_row(step.name, *row, style="bold")
        for rule, tally in step.refused.items():
            gone = tally["documents"]
            row = [f"−{gone:,}", share(gone, read), size(tally["bytes"] or None), number(tally["words"] or None)]
            table.add_row(f"  {rule}", *row, style="dim")
    table.add_section()
    for split, tally in passages(part).items():
        table.add_row(SPLITS[split], f"{tally['documents']:,}", "", size(tally["bytes"]), number(tally["words"]))
    return table


def sources_table(funnel: dict[str, Any]) -> Table:
    """A row a source: what was read of it, what was kept, and its share of all that was kept."""
    table = table_of("Sources", ["", "files", "read", "kept", "of read", "bytes kept", "of kept"])
    kept_bytes = funnel["total"]["steps"]["kept"]["bytes"]
    for source in funnel["sources"]:
        read, kept = source["steps"]["read"], source["steps"]["kept"]
        table.add_row(
            source["name"],
            f"{source['files']:,}" if source["files"] else "–",
            f"{read['documents']:,}",
            f"{kept['documents']:,}",
            share(kept["documents"], read["documents"]),
            size(kept["bytes"]),
            share(kept["bytes"], kept_bytes),
        )
    return table


def edits_table(funnel: dict[str, Any]) -> Table:
    """What was changed in documents that were not refused for it, and how often."""
    table = table_of("Changed and kept", ["", "times"])
    for edit, times in sorted(funnel["total"]["edits"].items()):
        table.add_row(edit, f"{times:,}")
    return table


def tables(funnel: dict[str, Any]) -> list[Table]:
    """The funnel; the sources where there are several; edits and tests where there are any."""
    found = [funnel_table(funnel)]
    if len(funnel["sources"]) > 1:
        found.append(sources_table(funnel))
    if funnel["total"]["edits"]:
        found.append(edits_table(funnel))
    if funnel.get("contamination"):
        found.append(_tests(funnel["contamination"]))
    return found


def _tests(contamination: dict[str, dict[str, Any]], most: int = 20) -> Table:
    """The tests that were looked for, those found in most documents first."""
    table = table_of("Tests among the documents", ["", "texts", "too short", "found", "in documents"])
    ordered = sorted(contamination.items(), key=lambda item: (-item[1]["documents"], item[0]))
    for task, found in ordered[:most]:
        table.add_row(task, *(f"{found[key]:,}" for key in ("texts", "too_short", "found", "documents")))
    if len(ordered) > most:
        table.add_row(f"{len(ordered) - most} more", "", "", "", "")
    return table


def show(funnel: dict[str, Any]) -> None:
    """Print the tables of a finished corpus to stderr."""
    from groundup.run.progress import console

    for table in tables(funnel):
        console().print(table)


def figures_tables(figures: dict[str, Any]) -> list[Table]:
    """What `corpus_statistics` measured, and under "repeated" what `removed_as_repeated` found."""
    found = [_lengths(figures["lengths"]), _by_name("Passages by source", figures["sources"])]
    for title, key in (("Passages by language", "languages"), ("Passages by licence", "licences")):
        if set(figures[key]) != {"unknown"}:
            found.append(_by_name(title, figures[key]))
    if any(figures["quality"]["counts"]):
        found.append(_quality(figures["quality"]))
    if figures["repeated"]:
        found.append(_repeated(figures["repeated"]))
    if any(each["file"] for each in figures["largest_files"]):
        found.append(_files(figures["largest_files"]))
    return found


def _lengths(lengths: dict[str, dict[str, float]]) -> Table:
    table = table_of("Length of passages", ["", *lengths])
    names = {"p1": "1 %", "p5": "5 %", "p25": "25 %", "p50": "half", "p75": "75 %", "p95": "95 %", "p99": "99 %"}
    for key in lengths["bytes"]:
        label = f"{names[key]} have at most" if key in names else {"min": "shortest", "max": "longest"}.get(key, key)
        table.add_row(label, *(f"{found[key]:,.0f}" for found in lengths.values()))
    return table


def _by_name(title: str, rows: dict[str, dict[str, int]], most: int = 20) -> Table:
    """A row a name with a bar for its bytes; of many names the first, and the others as one."""
    table = table_of(title, ["", "passages", "bytes", "words", "of bytes"])
    table.add_column("", justify="left", no_wrap=True)
    shown = dict(list(rows.items())[:most])
    if rest := list(rows.values())[most:]:
        shown[f"{len(rest)} more"] = {key: sum(row[key] for row in rest) for key in ("passages", "bytes", "words")}
    total = sum(row["bytes"] for row in shown.values())
    largest = max((row["bytes"] for row in shown.values()), default=0)
    for name, row in shown.items():
        cells = [f"{row['passages']:,}", size(row["bytes"]), f"{row['words']:,}", share(row["bytes"], total)]
        table.add_row(name, *cells, _bar(row["bytes"], largest))
    return table


def _quality(quality: dict[str, Any]) -> Table:
    table = table_of("Passages by quality, as the classifier scores them", ["", "passages", "of all"])
    table.add_column("", justify="left", no_wrap=True)
    counts, edges = quality["counts"], quality["edges"]
    total = sum(counts) + quality["unknown"]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        table.add_row(f"{low:.2f} to {high:.2f}", f"{count:,}", share(count, total), _bar(count, max(counts)))
    if quality["unknown"]:
        table.add_row("no score", f"{quality['unknown']:,}", share(quality["unknown"], total), "")
    return table


def _repeated(repeated: dict[str, dict[str, int]]) -> Table:
    table = table_of("Removed as repetition", ["", "documents", "bytes of these", "cut out of others"])
    for step, found in repeated.items():
        cut = ", ".join(f"{times:,} {what}" for what, times in found.items() if what not in ("documents", "bytes"))
        table.add_row(step, f"{found['documents']:,}", size(found["bytes"]), cut or "–")
    return table


def _files(files: list[dict[str, Any]]) -> Table:
    table = table_of("Largest files", ["", "passages", "bytes", "words"])
    for each in files:
        table.add_row(
            each["file"] or each["source"], f"{each['passages']:,}", size(each["bytes"]), f"{each['words']:,}"
        )
    return table


def _bar(value: float, largest: float, width: int = 24) -> str:
    """A bar in eighths of a column, of at least one where there is anything."""
    eighths = max(round(8 * width * value / largest), 1) if value else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def share(part: float, whole: float) -> str:
    """`part` of `whole` in percent; a little is never shown as nothing, nor almost all as all."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "<0.1 %"
    if 99.95 <= percent < 100:
        return ">99.9 %"
    return f"{percent:.1f} %"


def size(count: float | None) -> str:
    """Bytes in decimal units, as 12.3 MB; a dash for None."""
    if count is None:
        return "–"
    if count < 1000:
        return f"{count:,.0f} B"
    value, unit = count / 1000, "kB"
    for unit in ("kB", "MB", "GB", "TB"):
        if value < 999.95 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.1f} {unit}"


def number(count: int | None) -> str:
    """A whole number with its thousands apart; a dash for None."""
    return "–" if count is None else f"{count:,}"


def table_of(title: str, header: list[str]) -> Table:
    """An empty table: the first column of names, the others of numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    return table
