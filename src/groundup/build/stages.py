"""One small adapter for each kind of stage: what the room needs, from what the build has.

An adapter takes a ``Context``, writes into ``context.out`` and returns the stage's metrics. Rooms are
imported inside, so that a command which runs no stage loads none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from groundup.hardware import Hardware
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

    def weights(self, name: str) -> Path:
        """Directory of a training stage's finished weights."""
        return self.run / name / "final"

    @property
    def start(self) -> Path | None:
        """Directory of the weights the stage begins from; None for fresh ones."""
        return self.weights(self.stage.start) if self.stage.start else None


def corpus(context: Context) -> Metrics:
    """Sources to documents."""
    from groundup.corpus import build_corpus

    return build_corpus(context.section(CorpusSection), seed=context.seed, out=context.out)


def tokenizer(context: Context) -> Metrics:
    """Documents to a vocabulary and token shards."""
    from groundup.tokenizer import build_tokenizer

    return build_tokenizer(context.section(TokenizerSection), context.run / "corpus", context.out)


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
    results = measure(context.recipe, context.run, context.section(EvaluateSection), context.hardware, out=context.out)
    return {"models": sum(not name.startswith("baseline_") for name in results), "questions": _asked(results)}


def measure(recipe: Recipe, run: Path, section: EvaluateSection, hardware: Hardware, *, out: Path) -> dict[str, Any]:
    """Measure the section's models; writes out/results.json and returns it."""
    from groundup.evaluation import evaluate

    hardware.apply()
    kinds = {stage.name: stage.kind for stage in recipe.ordered_stages()}
    names = recipe.evaluated_models(section)
    return evaluate(
        section,
        models={name: run / name / "final" for name in names},
        chat={name: kinds[name] != "pretrain" for name in names},
        tokenizer_dir=run / "tokenizer",
        corpus_dir=run / "corpus",
        seed=recipe.run.seed,
        hardware=hardware,
        out=out,
    )


def _asked(results: Mapping[str, Any]) -> int:
    """Scores in the results, over all models, tasks and splits."""
    return sum(len(splits) for tasks in results.values() for splits in tasks.values())


def export(context: Context) -> Metrics:
    """A model to stock layouts."""
    section = context.section(ExportSection)
    return export_formats(
        section,
        context.weights(context.recipe.exported_stage(section)),
        context.run / "tokenizer",
        context.out,
    )


def export_formats(section: ExportSection, weights: Path, tokenizer_dir: Path, out: Path) -> Metrics:
    """Write each format of the section below ``out``."""
    from groundup.interchange import export_hf

    metrics: dict[str, Any] = {}
    for name in section.formats:
        metrics |= export_hf(weights, tokenizer_dir, out / name)
    return metrics


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
