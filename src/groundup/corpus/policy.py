"""The steps of the recipe that look at one document at a time, in their order, made once in a worker.

What a step needs is imported where it is made: a recipe that names none needn't load the libraries of all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from groundup.corpus.columns import as_numpy, flags, strings
from groundup.corpus.documents import Batch, Outcome
from groundup.corpus.plan import Plan, finished_folder
from groundup.corpus.sizes import as_texts
from groundup.recipe import CorpusSection, DecontaminateSection, PersonalDataSection
from groundup.recipe.classifier import ClassifierSection
from groundup.recipe.language import LanguageSection

if TYPE_CHECKING:
    from groundup.corpus.classifier import Classifier
    from groundup.corpus.decontaminate import Contamination, Targets
    from groundup.corpus.filters import Filter

CONTAMINATION = "contamination"
PERSONAL_DATA = "personal_data"


class Step(Protocol):
    """One step: gives a batch back with columns added or changed, and says which of its rows break which rule.

    `edits` counts what was changed since it was last cleared.
    """

    name: str
    rules: tuple[str, ...]
    edits: Counter[str]

    def __call__(self, batch: Batch) -> tuple[Batch, Outcome | None]: ...


class Policy:
    """All steps of a plan between cleaning and deduplication."""

    _known: tuple[Path, Policy] | None = None

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)

    @property
    def filters(self) -> tuple[Step, ...]:
        """The steps that judge documents, less those that replace or look for something in them."""
        return tuple(step for step in self.steps if isinstance(step, _Filtering | _Scoring))

    def take_contamination(self) -> dict[str, Any] | None:
        """What was found of the tests since this was last asked, as `Contamination.dump`; None where none is sought."""
        for step in self.steps:
            if isinstance(step, _Decontaminating):
                return step.take().dump()
        return None

    @classmethod
    def of(cls, plan: Plan) -> Policy:
        """The policy of a plan; made once in a process."""
        if cls._known is None or cls._known[0] != plan.work:
            cls._known = (plan.work, Policy(list(_steps(plan))))
        return cls._known[1]


def step_names(section: CorpusSection) -> list[str]:
    """The names of the steps that a policy has, in their order."""
    names = [name for name in type(section.filters).model_fields if getattr(section.filters, name) is not None]
    names += [PERSONAL_DATA] if section.personal_data is not None else []
    return names + ([CONTAMINATION] if section.decontaminate is not None else [])


def prepare_policy(plan: Plan, tests: Iterable[tuple[str, str]]) -> None:
    """What all workers share and has to be made first: the classifier's weights and the tests' n-grams."""
    section = plan.section
    if section.filters.classifier is not None and not plan.place("classifier", 0).is_dir():
        from groundup.corpus.classifier import train_classifier

        classifier = train_classifier(section.filters.classifier, plan.seed)
        with finished_folder(plan.place("classifier", 0)) as folder:
            classifier.save(folder)
    if section.decontaminate is not None and not plan.place("targets", 0).is_dir():
        from groundup.corpus.decontaminate import Targets

        targets = Targets.of_section(section.decontaminate, tests)
        with finished_folder(plan.place("targets", 0)) as folder:
            targets.save(folder)


def _steps(plan: Plan) -> Iterator[Step]:
    section = plan.section
    if any(getattr(section.filters, name) is not None for name in type(section.filters).model_fields):
        from groundup.corpus.filters import build_filters

        for each in build_filters(section.filters):
            yield _Filtering(each, section.filters.language)
    if section.filters.classifier is not None:
        from groundup.corpus.classifier import Classifier

        yield _Scoring(Classifier.load(plan.place("classifier", 0)), section.filters.classifier)
    if section.personal_data is not None:
        yield _Redacting(section.personal_data)
    if section.decontaminate is not None:
        from groundup.corpus.decontaminate import Targets

        yield _Decontaminating(Targets.load(plan.place("targets", 0)), section.decontaminate)


class _Filtering:
    """A filter of documents. Chats, which are learned whole and are no running text, pass."""

    def __init__(self, filter: Filter, language: LanguageSection | None) -> None:
        self.filter, self.name, self.rules = filter, filter.name, filter.rules
        self.language = language if filter.name == "language" else None
        self.edits: Counter[str] = Counter()

    def __call__(self, batch: Batch) -> tuple[Batch, Outcome | None]:
        if self.language is not None:
            from groundup.corpus.language import with_languages

            batch = with_languages(batch, self.language.sample_characters)
        return batch, _spare_chats(batch, self.filter(batch))


class _Scoring:
    """The quality classifier: a column, and a filter on it."""

    def __init__(self, classifier: Classifier, section: ClassifierSection) -> None:
        from groundup.corpus.classifier import ClassifierFilter

        self.filter = ClassifierFilter(section, classifier)
        self.name, self.rules = self.filter.name, self.filter.rules
        self.edits: Counter[str] = Counter()

    def __call__(self, batch: Batch) -> tuple[Batch, Outcome | None]:
        batch = self.filter.with_quality(batch)
        return batch, _spare_chats(batch, self.filter(batch))


class _Redacting:
    """Personal data become placeholders, in chats message by message."""

    name = PERSONAL_DATA
    rules: tuple[str, ...] = ()

    def __init__(self, section: PersonalDataSection) -> None:
        self.section = section
        self.edits: Counter[str] = Counter()

    def __call__(self, batch: Batch) -> tuple[Batch, Outcome | None]:
        texts = self._redact(batch.texts)
        chats = batch.columns["messages"].to_pylist()
        if any(chat is not None for chat in chats):
            whole = texts.to_pylist()
            for row, chat in enumerate(chats):
                if chat is not None:
                    messages = json.loads(chat)
                    contents = as_texts([message["content"] for message in messages])
                    for message, content in zip(messages, self._redact(contents, count=False).to_pylist(), strict=True):
                        message["content"] = content
                    chats[row] = json.dumps(messages, ensure_ascii=False)
                    whole[row] = "\n".join(message["content"] for message in messages)
            texts = as_texts(whole)
            batch = batch.with_columns(messages=strings(chats))
        nobody = np.full(len(batch), -1, np.int16)
        return batch, Outcome(nobody, np.full(len(batch), np.nan), texts)

    def _redact(self, texts: pa.LargeStringArray, *, count: bool = True) -> pa.LargeStringArray:
        from groundup.corpus.personal import redact

        found = redact(texts, self.section.kinds, self.section.placeholder, self.section.private_addresses)
        if count:
            self.edits.update({kind: number for kind, number in found.counts.items() if number})
        return found.texts


class _Decontaminating:
    """Texts of tests are looked for, and removed as the section says; a chat that has one goes as a whole."""

    name = CONTAMINATION

    def __init__(self, targets: Targets, section: DecontaminateSection) -> None:
        self.targets, self.section, self.rules = targets, section, targets.tasks
        self.found = self._empty()
        self.edits: Counter[str] = Counter()

    def __call__(self, batch: Batch) -> tuple[Batch, Outcome | None]:
        from groundup.corpus.decontaminate import decontaminate

        outcome, hits = decontaminate(batch.texts, self.targets, self.section.remove)
        self.found.add(self.targets, hits, batch.texts, batch.columns["file"], batch.columns["record"])
        if outcome.texts is not None:
            chats = as_numpy(batch.columns["messages"].is_valid())
            if chats.any():
                whole, _ = decontaminate(batch.texts, self.targets, "document")
                outcome.failed[chats], outcome.value[chats] = whole.failed[chats], whole.value[chats]
            hit = np.unique(hits.documents)
            self.edits["documents shortened"] += int((outcome.failed[hit] < 0).sum())
        return batch, outcome

    def take(self) -> Contamination:
        """What was found since this was last asked."""
        found, self.found = self.found, self._empty()
        return found

    @staticmethod
    def _empty() -> Contamination:
        from groundup.corpus.decontaminate import Contamination

        return Contamination()


def _spare_chats(batch: Batch, outcome: Outcome) -> Outcome:
    """The outcome with every chat passing unchanged."""
    chats = as_numpy(batch.columns["messages"].is_valid())
    if not chats.any():
        return outcome
    texts = outcome.texts
    if texts is not None:
        import pyarrow.compute as pc

        texts = pc.if_else(flags(chats), batch.texts, texts)
    return Outcome(np.where(chats, np.int16(-1), outcome.failed), outcome.value, texts)
