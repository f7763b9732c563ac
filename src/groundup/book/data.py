"""The data chapter: the funnel, sample documents, and, where it was used, the story world itself."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groundup.book.policy import contamination, personal_data, policy, refused_examples, repetitions
from groundup.book.text import excerpt
from groundup.corpus.look import Corpus, sample_passages
from groundup.corpus.report import passages, steps
from groundup.corpus.sankey import sankey_svg
from groundup.corpus.store import Document
from groundup.recipe import CorpusSection, DpoSection, EvaluateSection, Recipe, SftSection
from groundup.run import UserError, read_json
from groundup.storyworld import KINDS, SPLITS, UNSEEN_NAMES, is_unseen_combination, questions
from groundup.storyworld.lexicon import COLOURS, NAMES, OBJECTS, PLACES
from groundup.storyworld.narrate import CLOSINGS, CONNECTORS, OPENINGS, SENTENCES
from groundup.storyworld.questions import PHRASINGS, UNSEEN_PHRASINGS, answerable, true_answer, unanswerable
from groundup.storyworld.world import SHAPES, Event, World

Facts = dict[str, Any]
STORYWORLD = "builtin:storyworld"
STORYWORLD_CHATS = "builtin:storyworld-chats"
SAMPLES = 3
RULES = 6  # of a step that the figure shows one by one
SAMPLE_CHARACTERS = 700


def uses_storyworld(recipe: Recipe) -> bool:
    """Whether any stage learns from the embedded world or is measured on it."""
    named: list[Any] = list(recipe.corpus.sources) if recipe.corpus else []
    measured = False
    for stage in recipe.ordered_stages():
        if isinstance(stage.section, SftSection | DpoSection):
            named += stage.section.data
        if isinstance(stage.section, EvaluateSection):
            measured |= any(task.startswith("storyworld") for task in stage.section.tasks)
    paths = [item if isinstance(item, str) else item.path for item in named]
    return measured or STORYWORLD in paths


def corpus(run: Path, recipe: Recipe) -> Facts | None:
    """The funnel of RUN/corpus, what made it so, and passages as samples; None where the stage isn't there."""
    section = recipe.corpus or CorpusSection()
    try:
        made = Corpus(run / "corpus", section, read_json(run / "corpus" / "funnel.json"))
        drawn, _ = sample_passages(made, SAMPLES, seed=recipe.run.seed)
    except (FileNotFoundError, UserError):
        return None
    funnel = made.funnel
    passed = steps(funnel["total"], funnel["steps"])
    names = {source["name"] for source in funnel["sources"]}
    return {
        "steps": [asdict(step) for step in passed],
        "splits": passages(funnel["total"]),
        "figure": sankey_svg(funnel, ink="#333333", font="Libertinus Serif", rules=RULES),
        "sources": [_source(source) for source in funnel["sources"]],
        "samples": [_sample(split, document) for split, document in drawn],
        "policy": policy(section, passed),
        "refused": refused_examples(made, recipe.run.seed),
        "personal": personal_data(section, passed),
        "repetitions": repetitions(section, passed),
        "contamination": contamination(section, funnel),
        "validation_fraction": section.validation_fraction,
        "passage_characters": funnel.get("passage_characters"),
        "own_text": any(not name.startswith(STORYWORLD) for name in names),
        "chats": any(name.startswith(STORYWORLD_CHATS) for name in names),
    }


def _sample(split: str, document: Document) -> Facts:
    text, cut = excerpt(document.text, SAMPLE_CHARACTERS)
    return {"split": split, "source": document.source or document.mixture, "text": text, "cut": cut}


def _source(source: Facts) -> Facts:
    counts = source["steps"]
    return {
        "name": source["name"],
        "files": 0 if source["name"].startswith(STORYWORLD) else source["files"],
        "weight": source["weight"],
        "read": counts["read"],
        "kept": counts["kept"],
        "encodings": source["encodings"],
    }


def story_world(seed: int) -> Facts:
    """One test world told in full: its events, its state, its story, and every kind of question with its truth."""
    example = questions(seed, "iid", 1)[0]
    world = example.world
    rng = random.Random(f"{seed}/book")
    asks = answerable(world, rng)
    shown = [next((ask for ask in asks if ask.kind == kind), None) for kind in KINDS]
    open_asks = unanswerable(world)[:1]
    return {
        "story": example.story,
        "people": world.people,
        "events": [_event(event) for event in (*world.setting, *world.events)],
        "setting": len(world.setting),
        "state": _state(world),
        "asks": [
            {"kind": ask.kind, "question": ask.words(rng), "answer": true_answer(ask)}
            for ask in (*shown, *open_asks)
            if ask is not None
        ],
        "splits": [{"name": name, **_shape(name)} for name in ("train", *SPLITS)],
        "words": {
            "names": len(NAMES),
            "unseen_names": len(UNSEEN_NAMES),
            "places": len(PLACES),
            "objects": len(OBJECTS),
            "colours": len(COLOURS),
            "pairs": len(COLOURS) * len(OBJECTS),
            "unseen_pairs": sum(is_unseen_combination(colour, thing) for colour in COLOURS for thing in OBJECTS),
            "openings": len(OPENINGS),
            "closings": len(CLOSINGS),
            "connectors": len(CONNECTORS),
            "events": len(SENTENCES),
            "sentences": sum(map(len, SENTENCES.values())),
            "phrasings": sum(map(len, PHRASINGS.values())),
            "unseen_phrasings": sum(map(len, UNSEEN_PHRASINGS.values())),
            "kinds": len(KINDS),
        },
    }


def _event(event: Event) -> Facts:
    what = f"{event.count} {event.what}" if event.count and event.kind == "counted" else event.what
    return {"kind": event.kind, "who": event.who, "what": what, "to": event.to}


def _state(world: World) -> list[Facts]:
    rows = [{"fact": "place", "of": who, "history": been} for who, been in world.places.items()]
    rows += [
        {"fact": "holder", "of": f"{world.colours[thing]} {thing}", "history": had}
        for thing, had in world.holders.items()
    ]
    rows += [
        {"fact": "count", "of": who, "history": [f"{count} {noun}"]} for who, (noun, count) in world.counts.items()
    ]
    rows += [{"fact": "wish", "of": who, "history": [thing]} for who, thing in world.wishes.items()]
    return rows


def _shape(split: str) -> Facts:
    shape = SHAPES[split]
    return {
        "people": shape.people,
        "objects": shape.objects,
        "events": shape.events,
        "unseen_names": shape.names == UNSEEN_NAMES,
        "unseen_pair": shape.unseen_combination,
        "unseen_phrasing": split == "unseen_phrasing",
    }
