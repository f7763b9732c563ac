"""What the recipe asked of the corpus, in the recipe's own words, and what came of it: for the data chapter."""

from __future__ import annotations

from typing import Any

from groundup.book.text import excerpt
from groundup.corpus.look import SETTINGS, Corpus, limits, sample_rejections
from groundup.corpus.report import Passed
from groundup.recipe import CorpusSection
from groundup.recipe.base import Section

Facts = dict[str, Any]
EXAMPLES = 24  # of refused documents, of different rules
EXAMPLE_CHARACTERS = 240
PERSONAL_DATA, CONTAMINATION = "personal_data", "contamination"
FOUND = ("texts", "too_short", "found", "documents")  # of each test


def policy(section: CorpusSection, passed: list[Passed]) -> list[Facts]:
    """Each filter that was on: what it is for, its settings with their meaning, and what each of them refused."""
    refused = {step.name: step.refused for step in passed}
    edits = {step.name: step.edits for step in passed}
    found = []
    for name, field in type(section.filters).model_fields.items():
        table = getattr(section.filters, name)
        if table is not None:
            rules = {SETTINGS.get((name, rule), (rule,))[0]: tally for rule, tally in refused.get(name, {}).items()}
            settings = settings_of(table, rules)
            named = {setting["name"] for setting in settings}
            settings += [{"name": rule, "documents": rules[rule]["documents"]} for rule in rules if rule not in named]
            about = " ".join((type(table).__doc__ or "").split())
            found.append(
                {
                    "name": name,
                    "title": field.description,
                    "about": about,
                    "settings": settings,
                    "edits": edits.get(name, {}),
                }
            )
    return found


def settings_of(table: Section, rules: Facts | None = None) -> list[Facts]:
    """The settings of a table of the recipe that apply: name, value, meaning, and how many documents fell under it."""
    return [
        {
            "name": name,
            "value": _written(getattr(table, name)),
            "about": field.description,
            "documents": (rules or {}).get(name, {}).get("documents"),
        }
        for name, field in type(table).model_fields.items()
        if getattr(table, name) not in (None, ())
    ]


def _written(value: Any) -> str:
    """A setting's value in few words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def refused_examples(corpus: Corpus, seed: int) -> list[Facts]:
    """One example of what each rule refused; of very many rules of those that refused most."""
    rejections = corpus.funnel["total"]["rejections"]
    often = {(step, rule): tally["documents"] for step, rules in rejections.items() for rule, tally in rules.items()}
    chosen = sorted(often, key=lambda key: (-often[key], key))[:EXAMPLES]
    found, _ = sample_rejections(corpus, len(often), seed=seed)
    shown = {(each.step, each.rule): each for each in reversed(found)}
    order = {step: place for place, step in enumerate(corpus.funnel["steps"])}
    return [
        _example(corpus.section, shown[key], often[key])
        for key in sorted(chosen, key=lambda key: (order.get(key[0], 0), -often[key], key))
        if key in shown
    ]


def _example(section: CorpusSection, example: Any, documents: int) -> Facts:
    text, cut = excerpt(" ".join(example.text.split()), EXAMPLE_CHARACTERS)
    asked = limits(section, example.step, example.rule)
    return {
        "step": example.step,
        "rule": example.rule,
        "documents": documents,
        "value": example.value,
        "setting": example.rule.rpartition("/")[2],
        "asked": {
            key.rpartition(".")[2]: _written(tuple(value) if isinstance(value, list) else value)
            for key, value in asked.items()
        },
        "file": example.file,
        "record": example.record,
        "text": text,
        "cut": cut,
    }


def personal_data(section: CorpusSection, passed: list[Passed]) -> Facts | None:
    """What was replaced, by kind; None where nothing was looked for."""
    if section.personal_data is None:
        return None
    counts = next((step.edits for step in passed if step.name == PERSONAL_DATA), {})
    kinds = [{"kind": kind, "times": counts.get(kind, 0)} for kind in section.personal_data.kinds]
    return {"placeholder": section.personal_data.placeholder, "kinds": sorted(kinds, key=lambda each: -each["times"])}


def repetitions(section: CorpusSection, passed: list[Passed]) -> Facts:
    """The kinds of deduplication that were on, with their settings and what they took away; None for those off."""
    by_name = {step.name: step for step in passed}
    found: Facts = {
        "exact": None,
        "boilerplate": None,
        "lines": None,
        "near": None,
        "against": len(section.dedup.against),
    }
    for kind in ("exact", "boilerplate", "lines", "near"):
        table = getattr(section.dedup, kind)
        if not table:
            continue
        step = by_name.get(f"{kind}_duplicates" if kind in ("exact", "near") else kind)
        tallies = step.refused.values() if step else ()
        found[kind] = {
            "documents": sum(tally["documents"] for tally in tallies),
            "bytes": sum(tally["bytes"] for tally in tallies),
            "nothing_left": step.refused.get("nothing_left", {}).get("documents", 0) if step else 0,
            "edits": step.edits if step else {},
            "before": (step.documents if step else 0) + sum(tally["documents"] for tally in tallies),
            "settings": settings_of(table) if isinstance(table, Section) else [],
        }
    near = section.dedup.near
    if near is not None:
        found["near"] |= {"bands": near.bands, "rows": near.rows, "hashes": near.signature, "ngram": near.ngram}
        found["near"] |= {"threshold": near.threshold, "keep": near.keep, "curve": banding_curve(near.bands, near.rows)}
        found["near"]["error"] = (near.threshold * (1 - near.threshold) / near.signature) ** 0.5
        shown = sorted({0.3, 0.5, near.threshold, 0.8, 0.9})
        found["near"]["compared"] = [[s, compared(s, near.bands, near.rows)] for s in shown]
    return found


def compared(similarity: float, bands: int, rows: int) -> float:
    """The probability 1 − (1 − s^r)^b that documents of Jaccard similarity s are equal in one of b bands of r hashes.

    Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4.
    """
    return 1 - (1 - similarity**rows) ** bands


def banding_curve(bands: int, rows: int, points: int = 100) -> list[list[float]]:
    """`compared` from similarity 0 to 1."""
    return [[place / points, compared(place / points, bands, rows)] for place in range(points + 1)]


def contamination(section: CorpusSection, funnel: Facts) -> Facts | None:
    """What of tests was found among the documents, most documents first; None where nothing was looked for."""
    table = section.decontaminate
    if table is None:
        return None
    sought = funnel.get("contamination", {})
    tasks = [{"task": task, **{key: found[key] for key in FOUND}} for task, found in sought.items()]
    refused = funnel["total"]["rejections"].get(CONTAMINATION, {}).values()
    return {
        "ngram": table.ngram,
        "remove": table.remove,
        "tasks": sorted(tasks, key=lambda each: (-each["documents"], each["task"])),
        "documents": sum(tally["documents"] for tally in refused),
        "shortened": funnel["total"]["edits"].get(f"{CONTAMINATION}/documents shortened", 0),
    }
