"""Looking into a finished corpus: passages drawn at random, and examples of what was refused, with the reason."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.corpus.funnel import VERSION
from groundup.corpus.store import Document, documents_files, read_groups
from groundup.recipe import CorpusSection, load_recipe, nearest
from groundup.recipe.base import Section
from groundup.run import UserError, read_json

SPLITS = ("train", "validation")
# The settings of rules that are not called as they are, the one that decides first.
SETTINGS = {
    ("language", "language"): ("keep",),
    ("language", "language_confidence"): ("min_confidence",),
    ("classifier", "classifier"): ("threshold",),
    ("bad_words", "bad_words"): ("files", "keep_fraction"),
    ("near_duplicates", "near_duplicate"): ("threshold", "ngram"),
}


@dataclass(frozen=True)
class Corpus:
    """A run's finished corpus: its directory, what the recipe says of it, and the content of funnel.json."""

    directory: Path
    section: CorpusSection
    funnel: dict[str, Any]


@dataclass(frozen=True)
class Example:
    """A refused document as RUN/corpus/rejected keeps it; `text` is its beginning.

    `documents` is how many the same rule of the same step refused in this source.
    """

    source: str
    file: str
    record: int
    step: str
    rule: str
    value: float | None
    text: str
    documents: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def open_corpus(run: Path) -> Corpus:
    """The corpus of a run. Raises UserError where `run` is no run or has no finished corpus."""
    if not (run / "recipe.toml").is_file():
        raise UserError(
            f"{str(run)!r} is not a run: it has no recipe.toml",
            mend="give a directory made by groundup build; groundup runs lists them",
        )
    directory = run / "corpus"
    try:
        funnel = read_json(directory / "funnel.json")
    except FileNotFoundError:
        raise UserError(
            f"{str(run)!r} has no corpus yet", mend="groundup build RECIPE --until corpus makes it"
        ) from None
    if funnel.get("version") != VERSION:
        raise UserError(
            f"the corpus of {str(run)!r} was made by another version of groundup",
            where=str(directory / "funnel.json"),
            expected=f"version {VERSION}",
            mend="build the corpus stage again",
        )
    return Corpus(directory, load_recipe(run / "recipe.toml").corpus or CorpusSection(), funnel)


def sample_passages(
    corpus: Corpus, count: int, *, seed: int = 0, source: str | None = None, search: str | None = None
) -> tuple[list[tuple[str, Document]], int]:
    """Draw `count` passages of the corpus, all with the same probability; the same seed draws the same.

    Reads only what the files' own indices don't say: without `search` the row groups that hold the drawn ones.

    Args:
        source: only of this item of corpus.sources.
        search: only those whose text has this in it, in upper or lower case.

    Returns (split, document) in the order drawn, and how many there were to draw from. Raises UserError for a source
    that the corpus lacks.
    """
    if source is not None:
        _known(source, [each["name"] for each in corpus.funnel["sources"]], "source")
    groups: list[tuple[str, Path, int]] = []
    counts: list[int] = []
    for split in SPLITS:
        for path in documents_files(corpus.directory, split):
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    groups.append((split, path, group))
                    counts.append(_count(file, group, source, search))
    ends = np.cumsum(np.array(counts, np.int64))
    total = int(ends[-1]) if len(ends) else 0
    drawn = random.Random(f"{seed}/corpus").sample(range(total), min(count, total))
    wanted: dict[int, list[tuple[int, int]]] = {}
    for place, number in enumerate(drawn):
        group = int(np.searchsorted(ends, number, side="right"))
        wanted.setdefault(group, []).append((number - int(ends[group]) + counts[group], place))
    found: dict[int, tuple[str, Document]] = {}
    for group, places in wanted.items():
        split, path, number = groups[group]
        with pq.ParquetFile(path) as file:
            table = file.read_row_group(number)
        table = table.filter(_fits(table, source, search))
        for row, place in places:
            found[place] = split, Document(**table.slice(row, 1).to_pylist()[0])
    return [found[place] for place in range(len(drawn))], total


def _count(file: pq.ParquetFile, group: int, source: str | None, search: str | None) -> int:
    """How many rows of the group fit."""
    rows: int = file.metadata.row_group(group).num_rows
    if source is None and search is None:
        return rows
    if search is None and (only := _only_source(file, group)) is not None:
        return rows if only == source else 0
    columns = [name for name, wish in (("mixture", source), ("text", search)) if wish is not None]
    return int(pc.sum(_fits(file.read_row_group(group, columns=columns), source, search)).as_py() or 0)


def _only_source(file: pq.ParquetFile, group: int) -> str | None:
    """The source of all rows of the group, where its statistics say that there is just one."""
    column = file.metadata.row_group(group).column(file.schema_arrow.get_field_index("mixture"))
    found = column.statistics
    if found is None or not found.has_min_max or found.min != found.max:
        return None
    return str(found.min)


def _fits(table: pa.Table, source: str | None, search: str | None) -> Any:
    """Which rows fit, as a boolean array."""
    fits = pa.array(np.ones(len(table), bool))
    if source is not None:
        fits = pc.and_(fits, pc.equal(table.column("mixture"), source))
    if search is not None:
        fits = pc.and_(fits, pc.match_substring(table.column("text"), search, ignore_case=True))
    return fits


def sample_rejections(
    corpus: Corpus,
    count: int,
    *,
    seed: int = 0,
    rule: str | None = None,
    source: str | None = None,
    search: str | None = None,
) -> tuple[list[Example], int]:
    """Draw `count` of the examples of refused documents, one of each rule in turn, so that many rules are seen.

    Args:
        rule: only of this rule; a step's name stands for all its rules, and "step/rule" for one of several that
            share a name.
        source: only of this item of corpus.sources.
        search: only those whose kept beginning has this in it, in upper or lower case.

    Returns the examples and how many there were to draw from. Raises UserError for a source that the corpus lacks and
    for a rule that refused nothing.
    """
    if source is not None:
        _known(source, [each["name"] for each in corpus.funnel["sources"]], "source")
    if rule is not None:
        rejections = corpus.funnel["total"]["rejections"]
        names = {each for step, rules in rejections.items() for each in (step, *rules)}
        if not any(rule == f"{step}/{each}" for step, rules in rejections.items() for each in rules):
            _known(rule, sorted(names), "rule", "has refused a document of this run")
    refused = {
        (each["name"], step, name): tally["documents"]
        for each in corpus.funnel["sources"]
        for step, rules in each["rejections"].items()
        for name, tally in rules.items()
    }
    by_rule: dict[tuple[str, str], list[Example]] = {}
    for path in sorted((corpus.directory / "rejected").glob("*.parquet")):
        for table in read_groups(path):
            for row in table.to_pylist():
                step, name = row["step"], row["rule"]
                fits = rule in (None, step, name, f"{step}/{name}") and source in (None, row["source"])
                if fits and (search is None or search.lower() in row["excerpt"].lower()):
                    text = row.pop("excerpt")
                    example = Example(**row, text=text, documents=refused.get((row["source"], step, name), 0))
                    by_rule.setdefault((step, name), []).append(example)
    chance = random.Random(f"{seed}/rejected")
    piles = [chance.sample(pile, len(pile)) for _, pile in sorted(by_rule.items())]
    chance.shuffle(piles)
    turns = [pile[turn] for turn in range(max(map(len, piles), default=0)) for pile in piles if turn < len(pile)]
    return turns[:count], len(turns)


def limits(section: CorpusSection, step: str, rule: str) -> dict[str, Any]:
    """What the recipe says of a rule: {"corpus.filters.gopher_quality.min_words": 50}; empty where it says nothing.

    A rule that has no setting of its name goes by all of its step's. What has lost lines is judged by the filters once
    more; "gopher_quality/min_words" is then a rule of the step that took the lines.
    """
    if step in ("boilerplate", "lines") and "/" in rule:
        step, _, rule = rule.partition("/")
    path, table = _table(section, step)
    if not isinstance(table, Section):
        return {} if table is None else {path: table}
    fields = table.model_dump(mode="json")
    names = SETTINGS.get((step, rule)) or ((rule,) if rule in fields else tuple(fields))
    return {f"{path}.{name}": fields[name] for name in names if fields.get(name) is not None}


def _table(section: CorpusSection, step: str) -> tuple[str, Any]:
    """The part of the recipe that a step goes by, and its name; None where it has none."""
    if step == "contamination":
        return "corpus.decontaminate", section.decontaminate
    for name, part in ((step, section.filters), (step.removesuffix("_duplicates"), section.dedup)):
        if getattr(part, name, None) is not None:
            return f"corpus.{'filters' if part is section.filters else 'dedup'}.{name}", getattr(part, name)
    return "", None


def _known(name: str, names: Iterable[str], what: str, does: str = "is in this corpus") -> None:
    names = list(names)
    if name not in names:
        raise UserError(
            f"no {what} {name!r} {does}",
            expected="one of " + ", ".join(names) if names else "nothing was refused",
            mend=nearest(name, names),
        )
