"""The whole recipe, and the order of its stages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from groundup.recipe.base import Section, written_fields
from groundup.recipe.book import BookSection
from groundup.recipe.corpus import CorpusSection
from groundup.recipe.dpo import DpoSection
from groundup.recipe.errors import nearest
from groundup.recipe.evaluate import EvaluateSection
from groundup.recipe.expect import parse_expectation
from groundup.recipe.export import ExportSection
from groundup.recipe.hardware import HardwareSection
from groundup.recipe.importing import ImportSection, foreign_fields
from groundup.recipe.ladder import LadderSection, rung_model
from groundup.recipe.model import ModelSection
from groundup.recipe.pretrain import PretrainSection
from groundup.recipe.run import RunSection
from groundup.recipe.seq2seq import Seq2SeqSection
from groundup.recipe.sft import SftSection
from groundup.recipe.tokenizer import TokenizerSection
from groundup.recipe.training import EngineSection, TokenBatches

StageSection = Annotated[
    PretrainSection
    | LadderSection
    | SftSection
    | DpoSection
    | Seq2SeqSection
    | EvaluateSection
    | ExportSection
    | BookSection,
    Field(discriminator="kind"),
]
AnySection = (
    ImportSection
    | CorpusSection
    | TokenizerSection
    | PretrainSection
    | LadderSection
    | SftSection
    | DpoSection
    | Seq2SeqSection
    | EvaluateSection
    | ExportSection
    | BookSection
)
# Stages of the same rank run in the order they are written; the ranks are the way data flows.
KINDS = ("import", "corpus", "tokenizer", "ladder", "pretrain", "sft", "dpo", "seq2seq", "evaluate", "export", "book")
# Those that make a decoder-only model, which is what all but translation is about; and all that train, in place.
DECODER_KINDS = ("import", "pretrain", "sft", "dpo")
TRAINING_KINDS = ("ladder", "pretrain", "sft", "dpo", "seq2seq")


@dataclass(frozen=True)
class Stage:
    """One stage of a build: its name (and directory), kind, section, and the stage it starts from."""

    name: str
    kind: str
    section: AnySection
    start: str | None


class Recipe(Section):
    """Everything a build is made from. A stage runs if its section is present."""

    # `import` is a word of Python's own: the attribute is `import_`, the section is not.
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    run: RunSection = Field(default=RunSection(), description="Name and seed.")
    import_: ImportSection | None = Field(
        default=None, alias="import", description="The checkpoint of others that is gone on from."
    )
    corpus: CorpusSection | None = Field(default=None, description="Which texts the model learns from.")
    tokenizer: TokenizerSection | None = Field(default=None, description="How text becomes ids.")
    model: ModelSection = Field(default=ModelSection(), description="The shape of the transformer.")
    ladder: LadderSection | None = Field(
        default=None, description="Models of several sizes, and what they say about a larger one."
    )
    pretrain: PretrainSection | None = Field(default=None, description="Learning to continue text.")
    sft: SftSection | None = Field(default=None, description="Learning to answer.")
    dpo: DpoSection | None = Field(default=None, description="Learning what is preferred.")
    seq2seq: Seq2SeqSection | None = Field(default=None, description="Learning to translate, apart from the rest.")
    stages: dict[str, StageSection] = Field(
        default={},
        description="Further stages, each `[stages.NAME]` with its `kind`, so that a kind may occur often.",
    )
    evaluate: EvaluateSection | None = Field(default=None, description="Measuring what was learned.")
    export: ExportSection | None = Field(default=None, description="The model for other programs.")
    book: BookSection | None = Field(default=None, description="The PDF that explains the run.")
    hardware: HardwareSection = Field(default=HardwareSection(), description="What the run computes on.")
    expect: dict[str, str] = Field(
        default={},
        description='Scores the build must reach, as `"sft/storyworld_qa/iid" = ">= 0.60"`; '
        "a build that misses one exits 3.",
    )

    @model_validator(mode="after")
    def _holds_together(self) -> Recipe:
        for name in self.stages:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in written_fields(Recipe):
                raise ValueError(
                    f"[stages.{name}]: a stage's name is lower-case letters, digits and _, not a section's"
                )
        stages = self._declared()
        names = [stage.name for stage in stages]
        kinds = {stage.name: stage.kind for stage in stages}
        for stage in stages:
            for reference in self.inputs(stage):
                if reference not in kinds:
                    hint = nearest(reference, names)
                    raise ValueError(
                        f"[{stage.name}] needs stage {reference!r}, which this recipe lacks"
                        + (f"; {hint}" if hint else "")
                    )
            self._check_reference_kinds(stage, kinds)
            self._check_tasks(stage)
            self._check_rungs(stage)
            self._check_ramps(stage)
        self._check_import()
        self.ordered_stages()
        for key, condition in self.expect.items():
            expectation = parse_expectation(key, condition)
            if expectation.model not in names and not expectation.model.startswith("baseline_"):
                hint = nearest(expectation.model, names)
                raise ValueError(f"[expect] {key!r}: no stage {expectation.model!r}" + (f"; {hint}" if hint else ""))
        if self.expect and not {"evaluate", "seq2seq"} & set(kinds.values()):
            raise ValueError("[expect] needs an [evaluate] section (or [seq2seq]), which measures the scores")
        return self

    def _check_reference_kinds(self, stage: Stage, kinds: dict[str, str]) -> None:
        """A stage that starts from, measures or exports another needs that one to be a training stage."""
        section = stage.section
        if isinstance(section, EvaluateSection):
            references = self.evaluated_models(section)
        elif isinstance(section, ExportSection):
            references = (self.exported_stage(section),)
        else:
            references = (stage.start,) if stage.start else ()
        for reference in references:
            if kinds[reference] not in DECODER_KINDS:
                raise ValueError(f"[{stage.name}] needs a trained model, which stage {reference!r} doesn't make")

    def _check_import(self) -> None:
        """What of a recipe contradicts an imported checkpoint."""
        if self.import_ is None:
            return
        if self.tokenizer is None:
            raise ValueError("[import] brings a vocabulary: [tokenizer] is missing")
        if given := foreign_fields(self.tokenizer):
            raise ValueError(
                f"[tokenizer] {', '.join(given)} can't be given beside [import], which brings its vocabulary; "
                "`import.tokenizer` names one that is elsewhere"
            )
        if self.book is not None:
            raise ValueError("[book] tells how a model was made from the ground up; that of an import it can't tell")

    def _check_tasks(self, stage: Stage) -> None:
        """What an evaluate stage measures must be there."""
        if not isinstance(stage.section, EvaluateSection):
            return
        if "bits_per_byte" in stage.section.tasks and self.corpus is None:
            raise ValueError(
                f"[{stage.name}] bits_per_byte is measured on documents that [corpus] holds out, and there is none"
            )
        if "answers" in stage.section.tasks and not self.tuning_stages():
            raise ValueError(
                f"[{stage.name}] answers is measured on conversations that [sft] holds out, and there is none"
            )

    def _check_rungs(self, stage: Stage) -> None:
        """Every rung of a ladder must make a model, and its documents be there."""
        if not isinstance(stage.section, LadderSection):
            return
        for rung in stage.section.rungs:
            try:
                rung_model(self.model, rung)
            except ValueError as error:
                raise ValueError(f"[{stage.name}] {error}") from error

    def _check_ramps(self, stage: Stage) -> None:
        """A stage's ramps must fit its rows, where their length is known before an import is read."""
        section = stage.section
        if isinstance(section, TokenBatches) and self.import_ is None:
            try:
                section.require_ramps_fit(section.sequence_length or self.model.context_length)
            except ValueError as error:
                raise ValueError(f"[{stage.name}] {error}") from error

    def _declared(self) -> list[Stage]:
        """Every stage, in the order of the sections."""
        named: list[tuple[str, Any]] = [
            (name, getattr(self, "import_" if name == "import" else name)) for name in KINDS
        ]
        named += self.stages.items()
        return [
            Stage(name, section.kind, section, getattr(section, "start", None))
            for name, section in named
            if section is not None
        ]

    def trained_stages(self) -> list[str]:
        """Names of the stages that make a decoder, in the order they run; the last is the finished model."""
        waiting = [stage for stage in self._declared() if stage.kind in DECODER_KINDS]
        waiting.sort(key=lambda stage: KINDS.index(stage.kind))
        ordered: list[str] = []
        while waiting:
            left = {stage.name for stage in waiting}
            # In a circle none is ready; ordered_stages says so, here any order will do.
            ready = next((stage for stage in waiting if stage.start not in left), waiting[0])
            ordered.append(ready.name)
            waiting.remove(ready)
        return ordered

    def tuning_stages(self) -> list[Stage]:
        """The stages that learn from conversations, of each of which some are held out."""
        return [stage for stage in self._declared() if isinstance(stage.section, SftSection)]

    def evaluated_models(self, section: EvaluateSection) -> tuple[str, ...]:
        """The stages an evaluate section measures, with its default resolved."""
        return section.models or tuple(self.trained_stages())

    def sought_tasks(self, section: CorpusSection) -> EvaluateSection | None:
        """The evaluate section whose tests the corpus is searched for; None where it is not."""
        wanted = section.decontaminate is not None and section.decontaminate.tasks
        return self.evaluate if wanted else None

    def exported_stage(self, section: ExportSection) -> str:
        """The stage an export section takes, with its default resolved; "pretrain" where nothing trains."""
        return section.stage or (self.trained_stages() or ["pretrain"])[-1]

    def inputs(self, stage: Stage) -> list[str]:
        """Names of the stages that ``stage`` reads."""
        section = stage.section
        if isinstance(section, ImportSection | CorpusSection | Seq2SeqSection):
            return []
        imported = ["import"] if self.import_ is not None else []
        corpus = ["corpus"] if self.corpus is not None or not imported else []  # tuning an import does without
        if isinstance(section, TokenizerSection):
            return corpus + imported
        if isinstance(section, EngineSection):
            # Tuning stages make their own data; only pretraining reads the corpus itself.
            reading = isinstance(section, PretrainSection | LadderSection)
            reads = ["corpus", "tokenizer"] if reading else ["tokenizer"]
            return reads + ([stage.start] if stage.start else [])
        if isinstance(section, EvaluateSection):
            return [*corpus, "tokenizer", *self.evaluated_models(section)]
        if isinstance(section, ExportSection):
            return ["tokenizer", self.exported_stage(section)]
        return [other.name for other in self._declared() if other.kind != "book"]

    def ordered_stages(self) -> list[Stage]:
        """The stages in an order in which each comes after all it reads.

        Raises ValueError where stages start from one another in a circle.
        """
        waiting = sorted(self._declared(), key=lambda stage: KINDS.index(stage.kind))
        ordered: list[Stage] = []
        while waiting:
            done = {stage.name for stage in ordered}
            ready = [stage for stage in waiting if done.issuperset(self.inputs(stage))]
            if not ready:
                names = ", ".join(stage.name for stage in waiting)
                raise ValueError(f"these stages start from one another in a circle: {names}")
            ordered.append(ready[0])
            waiting.remove(ready[0])
        return ordered
