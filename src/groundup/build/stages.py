"""One small adapter for each kind of stage: what the room needs, from what the build has.

An adapter takes a ``Context``, writes into ``context.out`` and returns the stage's metrics. Rooms are
imported inside, so that a command which runs no stage loads none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from groundup.build.exporting import EXPORTED, export_model, tell_replaced
from groundup.build.importing import SOURCE, import_source
from groundup.build.models import OpenModels, foreign, held_out_conversations
from groundup.hardware import Hardware, corpus_processes
from groundup.recipe import (
    BookSection,
    CorpusSection,
    DpoSection,
    EvaluateSection,
    ExportSection,
    ImportSection,
    LadderSection,
    PretrainSection,
    Recipe,
    Seq2SeqSection,
    SftSection,
    Stage,
    TokenizerSection,
    TrainSection,
)
from groundup.run import log

if TYPE_CHECKING:
    from groundup.training import Tracking

Metrics = Mapping[str, Any]
_Section = TypeVar("_Section")
_Training = TypeVar("_Training", bound=TrainSection)


@dataclass(frozen=True)
class Context:
    """What a stage is made from. ``out`` is where it writes; ``stop`` says whether a signal came; ``settle_peak`` adds
    to the hardware what utilisation is measured against, which may take a second or two."""

    recipe: Recipe
    run: Path
    stage: Stage
    out: Path
    hardware: Hardware
    fingerprint: str
    fingerprints: Mapping[str, str]
    stop: Callable[[], bool]
    settle_peak: Callable[[Hardware], Hardware]

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

    def training_section(self, kind: type[_Training]) -> _Training:
        """The section of a training stage, its rows no longer than the context of an import that it goes on from:
        a recipe for checkpoints of all kinds can't know how long that is."""
        section = self.section(kind)
        if self.recipe.import_ is None or self.start is None or section.sequence_length is None:
            return section
        from groundup.interchange import load_architecture

        context = load_architecture(self.start).context_length
        if section.sequence_length <= context:
            return section
        log(f"rows of {section.sequence_length:,} tokens are cut to the model's context of {context:,}")
        changes: dict[str, Any] = {"sequence_length": context}
        if isinstance(section.micro_batch, int):  # about as many tokens at a time as before
            changes["micro_batch"] = section.micro_batch * (section.sequence_length // context)
        return section.model_copy(update=changes)

    def ready_to_train(self) -> Hardware:
        """The hardware with its peak, PyTorch set to its threads."""
        hardware = self.settle_peak(self.hardware)
        hardware.apply()
        return hardware

    @property
    def tracking(self) -> Tracking | None:
        """The trackers that are told of training; None where the recipe names none."""
        from groundup.training import Tracking

        run = self.recipe.run
        if not run.trackers:
            return None
        return Tracking(run.trackers, run.tracking, run.name, self.run, self.recipe.model_dump(mode="json"))

    @property
    def work(self) -> Path:
        """Scratch folder that outlives a kill; the build removes it when the stage is done."""
        return self.run / f".{self.stage.name}.work"

    @property
    def start(self) -> Path | None:
        """Directory of the weights the stage begins from; None for fresh ones."""
        return self.run / self.stage.start / "final" if self.stage.start else None


def import_(context: Context) -> Metrics:
    """A checkpoint of others to weights and a vocabulary of the run."""
    return import_source(context.section(ImportSection), context.recipe.model, context.out)


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
    """Documents to a vocabulary and token shards; of an import its vocabulary, and shards where there is a corpus."""
    from groundup.tokenizer import build_tokenizer, write_vocabulary

    section = context.section(TokenizerSection)
    if context.recipe.import_ is not None:
        section = section.model_copy(update={"adopt": str(context.run / "import" / SOURCE)})
    if context.recipe.corpus is None:
        return write_vocabulary(section, context.out)
    return build_tokenizer(
        section,
        context.run / "corpus",
        context.out,
        work=context.work,
        workers=corpus_processes(context.recipe.hardware.processes),
        identity=context.fingerprint,
    )


def pretrain(context: Context) -> Metrics:
    """Token shards to a base model."""
    from groundup.training import pretrain

    return _trained(context, partial(pretrain, context.training_section(PretrainSection), context.recipe.model))


def ladder(context: Context) -> Metrics:
    """Token shards to models of several sizes, and a law of their losses."""
    from groundup.planning import ladder

    return ladder(context.section(LadderSection), context.recipe.model, run=context.run, **_engine(context))


def sft(context: Context) -> Metrics:
    """Conversations to a model that answers."""
    from groundup.posttraining import sft

    return _trained(context, partial(sft, context.training_section(SftSection)))


def dpo(context: Context) -> Metrics:
    """Preference pairs to a model that answers as is preferred."""
    from groundup.posttraining import dpo

    return _trained(context, partial(dpo, context.training_section(DpoSection)))


def _trained(context: Context, train: Callable[..., Metrics]) -> Metrics:
    """Train a decoder with what all kinds of training ask for."""
    return train(run=context.run, start=context.start, **_engine(context))


def _engine(context: Context) -> dict[str, Any]:
    """What everything that trains is told."""
    return {
        "out": context.out,
        "seed": context.seed,
        "hardware": context.ready_to_train(),
        "fingerprint": context.fingerprint,
        "should_stop": context.stop,
        "tracking": context.tracking,
    }


def seq2seq(context: Context) -> Metrics:
    """Sentence pairs to a translator, and its results.json."""
    from groundup.training import seq2seq

    return seq2seq(context.section(Seq2SeqSection), **_engine(context))


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
    from groundup.evaluation import ANSWERS, evaluate
    from groundup.tokenizer import Tokenizer

    hardware.apply()
    names = recipe.evaluated_models(section)
    documents = read_documents(run / "corpus", "validation") if recipe.corpus is not None else ()
    return evaluate(
        models=OpenModels(run, recipe, names, hardware.device),
        tokenizer=Tokenizer.load(run / "tokenizer"),
        section=section,
        seed=recipe.run.seed,
        validation=(document.text for document in documents if document.messages is None),
        out=out,
        conversations=held_out_conversations(recipe) if ANSWERS in section.tasks else (),
        foreign=foreign(run, names),
    )


def export(context: Context) -> Metrics:
    """A model to stock layouts."""
    section = context.section(ExportSection)
    name = context.recipe.exported_stage(section)
    tell_replaced(context.run, context.stage, name)
    metrics: dict[str, Any] = {}
    for layout in section.formats:
        metrics |= export_model(context.recipe, context.run, name, context.out / EXPORTED[layout], layout, section)
    return metrics


def book(context: Context) -> Metrics:
    """The run to a PDF."""
    from groundup.book import build_book

    return build_book(context.section(BookSection), run=context.run, recipe=context.recipe, out=context.out)


ADAPTERS: Mapping[str, Callable[[Context], Metrics]] = {
    "import": import_,
    "corpus": corpus,
    "tokenizer": tokenizer,
    "ladder": ladder,
    "pretrain": pretrain,
    "sft": sft,
    "dpo": dpo,
    "seq2seq": seq2seq,
    "evaluate": evaluate,
    "export": export,
    "book": book,
}
