"""Commands that look into a run's corpus: corpus inspect, corpus stats."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cyclopts

from groundup.cli.output import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from groundup.corpus.look import Corpus, Example
    from groundup.corpus.store import Document

SHOWN = 800  # characters of a long text shown without --full
SHORT = 950  # a text of no more is shown whole
BEFORE = 200  # of which so many stand before what was searched
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

corpus = cyclopts.App(
    name="corpus",
    help="Look into the corpus of a run: what was kept, what was refused and why, and its figures.\n\n"
    "Example: groundup corpus inspect runs/laptop",
    version_flags=[],
)


@corpus.command
def inspect(
    run: Path,
    /,
    *,
    rejected: bool = False,
    rule: str | None = None,
    source: str | None = None,
    search: str | None = None,
    count: int = 5,
    seed: int = 0,
    full: bool = False,
    json: bool = False,
) -> None:
    """Read passages of the corpus drawn at random, or examples of what was refused and why.

    Every passage that was kept has the same probability. Of what was refused the
    corpus holds up to 20 beginnings for each rule and source; they are drawn one of
    each rule in turn.

    Example: groundup corpus inspect runs/laptop --rejected --count 10

    Parameters
    ----------
    run
        A run directory.
    rejected
        Show what was refused.
    rule
        Show what this rule or this step refused, as exact_duplicates.
    source
        Only of this item of corpus.sources.
    search
        Only texts that contain this, in upper or lower case.
    count
        How many to show.
    seed
        Another seed draws others.
    full
        Show texts whole.
    json
        Print all of each, texts whole, as one JSON object.
    """
    from groundup.corpus.look import open_corpus, sample_passages, sample_rejections
    from groundup.run import UserError

    if count < 1:
        raise UserError(f"--count {count} can't be used", expected="a number of at least 1")
    if search == "":
        raise UserError("--search needs a text to look for")
    found = open_corpus(run)
    if rejected or rule is not None:
        examples, total = sample_rejections(found, count, seed=seed, rule=rule, source=source, search=search)
        if json:
            print_json({"run": str(run), "examples": total, "shown": [_refused(found, each) for each in examples]})
        else:
            _show_examples(found, examples, total, full=full, search=search)
        return
    passages, total = sample_passages(found, count, seed=seed, source=source, search=search)
    if json:
        print_json({"run": str(run), "passages": total, "shown": [_kept(split, each) for split, each in passages]})
    else:
        _show_passages(passages, total, full=full, search=search)


@corpus.command
def stats(run: Path, /, *, json: bool = False) -> None:
    """Show the figures of a corpus: its funnel, sources, lengths, languages, quality, licences.

    The documents are read through once; memory stays small however many there are.

    Example: groundup corpus stats runs/laptop

    Parameters
    ----------
    run
        A run directory.
    json
        Print the figures as one JSON object.
    """
    from groundup.corpus.look import open_corpus
    from groundup.corpus.report import figures_tables, tables
    from groundup.corpus.stats import corpus_statistics, removed_as_repeated

    found = open_corpus(run)
    figures = corpus_statistics(found.directory) | {"repeated": removed_as_repeated(found.funnel)}
    if json:
        print_json({"run": str(run), "funnel": found.funnel, **figures})
        return
    console = _console()
    for table in [*tables(found.funnel), *figures_tables(figures)]:
        console.print(table)


def _kept(split: str, document: Document) -> dict[str, Any]:
    from dataclasses import asdict

    return {"split": split, **asdict(document)}


def _refused(found: Corpus, example: Example) -> dict[str, Any]:
    from groundup.corpus.look import limits

    return example.as_json() | {"recipe": limits(found.section, example.step, example.rule)}


def _show_passages(passages: list[tuple[str, Document]], total: int, *, full: bool, search: str | None) -> None:
    console = _console()
    for number, (split, document) in enumerate(passages, 1):
        _head(console, f"{number} of {len(passages)}", "to train on" if split == "train" else "to validate on")
        size, words = len(document.text.encode()), len(document.text.split())
        facts = {
            "from": _place(document.source, document.record, document.mixture),
            "url": document.url,
            "language": document.language and _with_measure(document.language, document.language_confidence),
            "quality": None if document.quality is None else f"{document.quality:.3f}",
            "licence": document.licence,
            "size": f"{size:,} bytes, {words:,} words",
            "id": document.id,
        }
        _facts(console, facts)
        _text(console, _as_read(document), full=full, search=search)
    console.print(f"{len(passages):,} of {total:,} such passages" if total else "no such passage", style="dim")


def _show_examples(found: Corpus, examples: list[Example], total: int, *, full: bool, search: str | None) -> None:
    from groundup.corpus.funnel import EXCERPT
    from groundup.corpus.look import limits
    from groundup.corpus.report import share

    console = _console()
    read = {each["name"]: each["steps"]["read"]["documents"] for each in found.funnel["sources"]}
    for number, example in enumerate(examples, 1):
        _head(console, f"{number} of {len(examples)}", f"refused by {example.step}/{example.rule}")
        asked = limits(found.section, example.step, example.rule)
        part = share(example.documents, read.get(example.source, 0))
        facts = {
            "measured": None if example.value is None else f"{example.value:.4g}",
            "recipe": ", ".join(f"{key} = {_toml(value)}" for key, value in asked.items()),
            "from": _place(example.file, example.record, example.source),
            "refused": f"{example.documents:,} by this rule, {part} of the source's documents",
        }
        _facts(console, facts)
        _text(console, example.text, full=full, search=search)
        if len(example.text) >= EXCERPT and full:
            console.print(f"[of refused texts only the first {EXCERPT:,} characters were kept]", style="dim")
    shown = f"{len(examples):,} of {total:,} examples kept" if total else "nothing of the kind was refused"
    console.print(shown, style="dim")


def _as_read(document: Document) -> str:
    """The text; of a chat with the roles."""
    from json import loads

    if document.messages is None:
        return document.text
    return "\n".join(f"{message['role']}: {message['content']}" for message in loads(document.messages))


def _head(console: Console, number: str, what: str) -> None:
    from rich.text import Text

    console.print(Text.assemble((f"── {number} ", "bold"), (_visible(what), "bold"), " ──"), soft_wrap=True)


def _facts(console: Console, facts: dict[str, str | None]) -> None:
    for name, value in facts.items():
        if value:
            console.print(f"{name:<9}{_visible(value)}", style="dim", soft_wrap=True)


def _text(console: Console, text: str, *, full: bool, search: str | None) -> None:
    """The text, or the part of it that matters, with a word on what is left out."""
    start, stop = 0, len(text)
    if not full and len(text) > SHORT:
        at = text.lower().find(search.lower()) if search else 0
        start = max(0, min(at - BEFORE, len(text) - SHOWN))
        stop = start + SHOWN
    console.print()
    if start:
        console.print(f"[{start:,} characters before]", style="dim")
    console.print(_visible(text[start:stop]).strip("\n") or "[no text]", soft_wrap=True)
    if stop < len(text):
        console.print(f"[{len(text) - stop:,} more characters; --full shows them]", style="dim")
    console.print()


def _place(file: str, record: int, source: str) -> str:
    place = f"{file}, record {record:,}" if record else file
    return place if source in ("", file) else f"{place} (source {source})"


def _with_measure(name: str, measured: float | None) -> str:
    return name if measured is None else f"{name} ({measured:.2f})"


def _toml(value: Any) -> str:
    """A value as a recipe has it."""
    from json import dumps

    return dumps(value, ensure_ascii=False)


def _visible(text: str) -> str:
    """The text with what would command a terminal, or turn its direction, shown as a code."""
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text)


def _console() -> Console:
    """On stdout, wide enough for tables where it is no terminal. Texts are no markup, and never stop the output."""
    import io
    import sys

    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=140)
