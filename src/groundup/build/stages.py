"""One small adapter for each kind of stage: what the room needs, from what the build has.

An adapter takes a ``Context``, writes into ``context.out`` and returns the stage's metrics. Rooms are
imported inside, so that a command which runs no stage loads none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from groundup.hardware import Hardware, corpus_processes
from groundup.recipe import (
    BookSection,
    CorpusSection,
    DpoSection,
    EvaluateSection,
    ExportSection,
    PretrainSection,
    Recipe,
    SftSection,
    Stage,
    TokenizerSection,
)

Metrics = Mapping[str, Any]
_Section = TypeVar("_Section")


@dataclass(frozen=True)
class Context:
    """What a stage is made from. ``out`` is where it writes; ``stop`` says whether a signal came."""

    recipe: Recipe
    run: Path
    stage: Stage
    out: Path
    hardware: Hardware
    fingerprint: str
    fingerprints: Mapping[str, str]
    stop: Callable[[], bool]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.recipe.run.seed

    def section(self, kind: type[_Section]) -> _Section:
        """The stage's section, which must be of class ``kind``."""
        section = self.stage.section
        if not isinstance(section, kind):
            raise TypeError(f"stage {self.stage.name!r} has a {type(section).__name__}, not a {kind.__name__}")
        return section

    @property
    def work(self) -> Path:
        """Scratch folder that outlives a kill; the build removes it when the stage is done."""
        return self.run / f".{self.stage.name}.work"

    @property
    def start(self) -> Path | None:
        """Directory of the weights the stage begins from; None for fresh ones."""
        return self.run / self.stage.start / "final" if self.stage.start else None


def corpus(context: Context) -> Metrics:
    """Sources to documents."""
    from groundup.corpus import build_corpus
    from groundup.evaluation import task_texts

    section, hardware = context.section(CorpusSection), context.recipe.hardware
    sought = context.recipe.sought_tasks(section)
    return build_corpus(
        section,
        seed=context.seed,
        out=context.out,
        work=context.work,
        workers=corpus_processes(hardware.processes),
        cluster=hardware.cluster,
        tests=task_texts(sought, seed=context.seed) if sought is not None else (),
        identity=context.fingerprint,
    )


def tokenizer(context: Context) -> Metrics:
    """Documents to a vocabulary and token shards."""
    from groundup.tokenizer import build_tokenizer

    return build_tokenizer(
        context.section(TokenizerSection),
        context.run / "corpus",
        context.out,
        work=context.work,
        workers=corpus_processes(context.recipe.hardware.processes),
        identity=context.fingerprint,
    )


def pretrain(context: Context) -> Metrics:
    """Token shards to a base model."""
    from groundup.training import pretrain

    context.hardware.apply()
    return pretrain(
        context.section(PretrainSection),
        context.recipe.model,
        run=context.run,
        out=context.out,
        start=context.start,
        seed=context.seed,
        hardware=context.hardware,
        fingerprint=context.fingerprint,
        should_stop=context.stop,
    )


def sft(context: Context) -> Metrics:
    """Conversations to a model that answers."""
    from groundup.posttraining import sft

    context.hardware.apply()
    return sft(
        context.section(SftSection),
        run=context.run,
        out=context.out,
        start=context.start,
        seed=context.seed,
        hardware=context.hardware,
        fingerprint=context.fingerprint,
        should_stop=context.stop,
    )


def dpo(context: Context) -> Metrics:
    """Preference pairs to a model that answers as is preferred."""
    from groundup.posttraining import dpo

    context.hardware.apply()
    return dpo(
        context.section(DpoSection),
        run=context.run,
        out=context.out,
        start=context.start,
        seed=context.seed,
        hardware=context.hardware,
        fingerprint=context.fingerprint,
        should_stop=context.stop,
    )


def evaluate(context: Context) -> Metrics:
    """Models to results.json."""
    section = context.section(EvaluateSection)
    results = measure(context.recipe, context.run, section, context.hardware, out=context.out)
    return {
        "models": len(context.recipe.evaluated_models(section)),
        "scores": sum(len(splits) for tasks in results.values() for splits in tasks.values()),
    }


def measure(recipe: Recipe, run: Path, section: EvaluateSection, hardware: Hardware, *, out: Path) -> dict[str, Any]:
    """Measure the section's models; writes results.json and its company into ``out``, returns the results."""
    from groundup.corpus import read_documents
    from groundup.evaluation import evaluate
    from groundup.interchange import load_model
    from groundup.tokenizer import Tokenizer

    hardware.apply()
    kinds = {stage.name: stage.kind for stage in recipe.ordered_stages()}
    return evaluate(
        models={
            name: (load_model(run / name / "final", hardware.device), kinds[name] != "pretrain")
            for name in recipe.evaluated_models(section)
        },
        tokenizer=Tokenizer.load(run / "tokenizer"),
        section=section,
        seed=recipe.run.seed,
        validation=(
            document.text for document in read_documents(run / "corpus", "validation") if document.messages is None
        ),
        out=out,
    )


def export(context: Context) -> Metrics:
    """A model to stock layouts."""
    section = context.section(ExportSection)
    name = context.recipe.exported_stage(section)
    metrics: dict[str, Any] = {}
    for layout in section.formats:
        metrics |= export_model(context.recipe, context.run, name, context.out / layout)
    return metrics


def export_model(recipe: Recipe, run: Path, stage: str, out: Path) -> Metrics:
    """Write one stage's model into ``out`` in Hugging Face's layout."""
    from groundup.interchange import export_hf

    return export_hf(run / stage / "final", run / "tokenizer", out, name=recipe.run.name)


def book(context: Context) -> Metrics:
    """The run to a PDF."""
    from groundup.book import build_book

    return build_book(context.section(BookSection), run=context.run, recipe=context.recipe, out=context.out)


ADAPTERS: Mapping[str, Callable[[Context], Metrics]] = {
    "corpus": corpus,
    "tokenizer": tokenizer,
    "pretrain": pretrain,
    "sft": sft,
    "dpo": dpo,
    "evaluate": evaluate,
    "export": export,
    "book": book,
}
