"""The book: gather what the run knows, hand it to the templates as JSON, compile."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch
import typst

from groundup.book import curves, data, ladder, opening, scores, shape, talk, tokens
from groundup.book.listings import listings
from groundup.book.text import visible_everywhere
from groundup.interchange import load_model
from groundup.model import Transformer
from groundup.recipe import DECODER_KINDS, BookSection, Recipe
from groundup.run import Manifest, progress, read_json, write_bytes, write_json
from groundup.tokenizer import Tokenizer

Facts = dict[str, Any]
DATA = "book.json"


def build_book(section: BookSection, *, run: Path, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Write out/book.pdf, and out/book.json with everything it shows; returns pages, bytes and seconds.

    Stages that the run lacks are left out of the book; nothing else in the run is read or changed. Equal runs and
    equal sources give equal books.
    """
    started = time.monotonic()
    with progress("book", total=None, unit="part") as bar:
        content = visible_everywhere(gather(section, run, recipe, bar.note))
        bar.note("typesetting")
        pdf, pages = typeset(content)
    write_json(out / DATA, content)
    write_bytes(out / "book.pdf", pdf)
    return {"pages": pages, "bytes": len(pdf), "seconds": round(time.monotonic() - started, 3)}


@torch.no_grad()
def gather(section: BookSection, run: Path, recipe: Recipe, note: Callable[[str], None] = lambda _: None) -> Facts:
    """Everything the templates show, JSON-able. Chapters whose stage isn't there are None or empty."""
    done = opening.manifests(run, recipe)
    run_facts = opening.opening(section, run, recipe, done)
    note("data and tokenizer")
    world = data.uses_storyworld(recipe)
    tokenizer = tokens.tokenizer(run, recipe, done["tokenizer"].metrics) if "tokenizer" in done else None
    vocabulary = tokenizer["vocabulary_size"] if tokenizer else 0
    described = run_facts["models"] or ladder.largest(run, recipe, done)
    content: Facts = {
        "run": run_facts,
        "code": listings(),
        "corpus": data.corpus(run, recipe) if "corpus" in done else None,
        "world": data.story_world(recipe.run.seed) if world else None,
        "tokenizer": tokenizer,
        "model": shape.architecture(run, recipe, described, vocabulary) if tokenizer else None,
        "ladders": [],
        "training": [],
        "evaluation": [],
        "row_mask": curves.row_mask(run, recipe) if tokenizer else None,
        "export": [],
        "reproduction": opening.reproduction(run, recipe, done),
    }
    for stage in recipe.ordered_stages():
        if stage.name not in done:
            continue
        if stage.kind in DECODER_KINDS:
            content["training"].append(curves.training(run, stage, done[stage.name]))
        elif stage.kind == "ladder":
            content["ladders"].append(ladder.climbed(run, stage))
        elif stage.kind == "evaluate":
            content["evaluation"].append(scores.evaluation(run, recipe, stage.name))
        elif stage.kind == "export":
            content["export"].append(_export(run, stage.name, done[stage.name]))
    content["ladders"] = [each for each in content["ladders"] if each]
    content["evaluation"] = [each for each in content["evaluation"] if each]
    if run_facts["models"] and tokenizer:
        note("asking the models")
        content |= _spoken(run, recipe, run_facts["models"], world)
    return content


def _spoken(run: Path, recipe: Recipe, names: list[str], world: bool) -> Facts:
    """What takes a loaded model: attention maps, examples of training data, answers."""
    tool = Tokenizer.load(run / "tokenizer")
    stages = {stage.name: stage for stage in recipe.ordered_stages()}
    device = _device(run)

    def opened(name: str) -> Transformer:
        return load_model(run / name / "final", device)

    chats = {name: stages[name].kind != "pretrain" for name in names}
    last = opened(names[-1])
    tuned = [name for name in names if stages[name].kind == "sft"]
    own = not world
    return {
        "attention": shape.attention(run, recipe, last, tool, chats=chats[names[-1]], world=world),
        "focus": shape.answer_focus(recipe, last, tool) if world and chats[names[-1]] else None,
        "conversations": {name: curves.conversation(run, stages[name], tool) for name in tuned},
        "preferences": {
            name: curves.preference(stages[name], tool, recipe.run.seed) for name in names if stages[name].kind == "dpo"
        },
        "answered": talk.questions_answered(chats, opened, tool, recipe.run.seed) if world else [],
        "chatted": talk.conversations_answered(last, tool, run / tuned[-1] / "data") if own and tuned else [],
        "continued": talk.texts_continued(run, opened(names[0]), tool, recipe.run.seed) if own else [],
        "last": names[-1],
    }


def _device(run: Path) -> str:
    """Where the run computed, if this machine has it too; else the CPU."""
    wanted = str(opening.record(run).get("hardware", {}).get("device", "cpu"))
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return wanted if there.get(wanted) else "cpu"


def _export(run: Path, name: str, manifest: Manifest) -> Facts:
    """The files of an export, and the configuration that other tools read."""
    path = run / name / "hf" / "config.json"
    config = read_json(path) if path.is_file() else {}
    config.pop("groundup", None)  # our own record of the same shape
    return {
        "name": name,
        "files": [{"path": path, **entry} for path, entry in sorted(manifest.files.items())],
        "metrics": manifest.metrics,
        "config": json.dumps(config, indent=2) if config else None,
    }


def lay_out(content: Facts, directory: Path) -> Path:
    """Write the templates and the data into ``directory`` as one typst project; returns its main file."""

    def copy(folder: Traversable, below: Path) -> None:
        below.mkdir(exist_ok=True)
        for entry in folder.iterdir():
            if entry.is_dir():
                copy(entry, below / entry.name)
            elif entry.name.endswith(".typ"):
                (below / entry.name).write_bytes(entry.read_bytes())

    copy(resources.files("groundup.book") / "templates", directory)
    write_json(directory / DATA, content)
    return directory / "main.typ"


def typeset(content: Facts) -> tuple[bytes, int]:
    """The PDF of the content and its pages: no network, no system fonts, the date of the run and not of today."""
    with tempfile.TemporaryDirectory() as directory:
        main = lay_out(content, Path(directory))
        compiler = typst.Compiler(main, root=directory, ignore_system_fonts=True)
        pdf = compiler.compile(format="pdf", timestamp=_timestamp(content["run"]["finished"]))
        pages = compiler.query("<last-page>", field="value", one=True)
    assert isinstance(pdf, bytes)
    return pdf, int(json.loads(pages))


def _timestamp(finished: str) -> int:
    try:
        return int(datetime.fromisoformat(finished).timestamp())
    except ValueError:
        return 0
