"""The evaluation stage: all models on the same items, then the baselines, then the differences."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from groundup.evaluation.answers import Subject, ask
from groundup.evaluation.bits import bits_per_byte_of, sample_documents
from groundup.evaluation.conversations import ANSWERS, HELD_OUT, HeldOut, answer_bits
from groundup.evaluation.custom import CustomItem, load_items, run_items
from groundup.evaluation.items import STORYWORLD_TASKS, Item, baselines, storyworld_items
from groundup.evaluation.scores import compare, leaf, task_results
from groundup.model import Transformer
from groundup.recipe import EvaluateSection
from groundup.run import UserError, log, write_json, write_text
from groundup.tokenizer import Tokenizer

BITS = "bits_per_byte"
TASKS = (BITS, ANSWERS, *STORYWORLD_TASKS)
"""The tasks that come with the package; any other is a JSONL file."""


@dataclass(frozen=True)
class Foreign:
    """What is particular to a model that was trained elsewhere: its vocabulary, the ids that it expects before a plain
    text, and those by which it ends one."""

    tokenizer: Tokenizer
    begins: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


Results = dict[str, dict[str, dict[str, dict[str, Any]]]]
"""{model: {task: {split: {value, low, high, n, metric}}}}"""


def evaluate(
    *,
    models: Mapping[str, tuple[Transformer, bool]],
    tokenizer: Tokenizer,
    section: EvaluateSection,
    seed: int,
    validation: Iterable[str],
    out: Path,
    conversations: Sequence[HeldOut] = (),
    foreign: Mapping[str, Foreign] = MappingProxyType({}),
) -> Results:
    """Measure models and write out/results.json, out/comparisons.json and out/items.jsonl.

    Args:
        models: by stage, in the order of the stages: the model in eval mode, and whether it chats (else it is
            a base model, which continues plain text). Each is asked for once, when its turn comes.
        section: which tasks, and how many questions a split.
        seed: of the test items, the baselines and the bootstraps.
        validation: the texts of validation documents, read only for bits per byte; a bounded sample of them
        is used.
        conversations: what no model learned from, read only for the task "answers".
        foreign: of the models that were trained elsewhere, what is particular to them.

    Returns:
        the content of results.json, baselines last.

    Raises:
        UserError: for a task that is neither known nor a file, and for a bad line in such a file.
    """
    custom = {name: load_items(path) for name, path in _task_files(section.tasks).items()}
    tasks = [task for task in STORYWORLD_TASKS if task in section.tasks]
    items = storyworld_items(tasks, seed=seed, count=section.questions)
    documents = sample_documents(validation, tokenizer, seed=seed) if BITS in section.tasks else []
    if BITS in section.tasks and not documents:
        log("no validation documents: bits per byte is not measured (raise corpus.validation_fraction)")
    if ANSWERS in section.tasks and not conversations:
        log("no conversation is held out: answers is not measured (of 64 conversations about one is)")
    results: Results = {}
    records: list[dict[str, Any]] = []
    scores: dict[str, dict[str, dict[str, bool]]] = {}
    for name in models:
        subject = _subject(name, *models[name], tokenizer, foreign.get(name))
        results[name] = _predicted(subject, tokenizer, documents, conversations, seed)
        if items:
            scores[name] = _judge(subject, items, records)
            results[name] |= task_results(tasks, items, scores[name])
        results[name] |= _run_custom(subject, custom, records)
        del subject  # before the next model is loaded
    if items:
        results |= _baseline_results(tasks, items, seed)
    comparisons = {
        f"{before} -> {after}": compare(tasks, items, scores[before], scores[after], seed=seed)
        for before, after in itertools.pairwise(scores)
    }
    out = Path(out)
    write_text(out / "items.jsonl", "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    write_json(out / "comparisons.json", comparisons)
    write_json(out / "results.json", results)
    return results


def _subject(name: str, model: Transformer, chats: bool, tokenizer: Tokenizer, foreign: Foreign | None) -> Subject:
    if foreign is None:
        return Subject(name, model, tokenizer, chats)
    return Subject(name, model, foreign.tokenizer, chats, foreign.begins, foreign.ends)


def _predicted(
    subject: Subject,
    tokenizer: Tokenizer,
    documents: Sequence[list[int]],
    conversations: Sequence[HeldOut],
    seed: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """How well a model predicts texts: documents, given as ids of ``tokenizer``, and what assistants say."""
    results = {}
    if documents:
        if subject.tokenizer.fingerprint != tokenizer.fingerprint:
            documents = subject.tokenizer.encode_batch([tokenizer.decode(ids) for ids in documents])
        interval = bits_per_byte_of(subject.model, subject.tokenizer, documents, seed=seed, begins=subject.begins)
        results[BITS] = {"validation": leaf(interval, BITS)}
    if conversations:
        answers = answer_bits(subject, conversations, seed=seed)
        if answers is not None:
            results[ANSWERS] = {HELD_OUT: leaf(answers, BITS)}
    return results


def task_texts(section: EvaluateSection, *, seed: int) -> Iterator[tuple[str, str]]:
    """(task, text) of every test item that `section` will ask, for the corpus to be searched for them.

    An item's text is its prompt, and with it the right answer.
    """
    for name, path in _task_files(section.tasks).items():
        for custom in load_items(path):
            yield name, f"{custom.prompt} {custom.answer}"
    tasks = [task for task in STORYWORLD_TASKS if task in section.tasks]
    for item in storyworld_items(tasks, seed=seed, count=section.questions):
        yield "storyworld", item.plain_prompt


def _task_files(tasks: Iterable[str]) -> dict[str, Path]:
    """The tasks that are files, by their names without the ending."""
    files: dict[str, Path] = {}
    for task in tasks:
        if task in TASKS:
            continue
        path = Path(task)
        if path.suffix != ".jsonl":
            nearest = difflib.get_close_matches(task, TASKS, n=1)
            raise UserError(
                f"unknown task {task!r}",
                where="evaluate.tasks",
                expected=f"{', '.join(TASKS)}, or a .jsonl file",
                mend=f"did you mean {nearest[0]!r}?" if nearest else None,
            )
        if path.stem in TASKS or path.stem in files:
            raise UserError(f"two tasks are called {path.stem!r}", where=task, mend="rename the file")
        files[path.stem] = path
    return files


def _judge(subject: Subject, items: Sequence[Item], records: list[dict[str, Any]]) -> dict[str, dict[str, bool]]:
    """Ask a model every item once; its scores by item and task. Adds a record of each to ``records``."""
    prompts = [subject.prompt(item.messages, item.plain_prompt) for item in items]
    scores: dict[str, dict[str, bool]] = {}
    for item, answer in zip(items, ask(subject, prompts), strict=True):
        verdict, scores[item.id] = item.judge(answer.text, answer.finished)
        records.append(
            {
                "model": subject.name,
                "id": item.id,
                "task": "storyworld",
                "split": item.split,
                "kind": item.kind,
                "prompt": item.words,
                "fact": getattr(item.subject, "fact", None),
                "completion": answer.text,
                "finished": answer.finished,
                "verdict": verdict,
                "scores": scores[item.id],
            }
        )
    return scores


def _run_custom(
    subject: Subject, custom: Mapping[str, Sequence[CustomItem]], records: list[dict[str, Any]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """The results of a model on the user's own tasks; adds a record of each item to ``records``."""
    results = {}
    for name, items in custom.items():
        results[name], said = run_items(subject, items)
        records += [{"model": subject.name, "task": name, **record} for record in said]
    return results


def _baseline_results(tasks: Sequence[str], items: Sequence[Item], seed: int) -> Results:
    """What answers without a model score before the same judge."""
    results: Results = {}
    for name, answer in baselines(seed).items():
        scores = {}
        for item in items:
            text = answer(item)
            if text is not None:
                scores[item.id] = item.judge(text, True)[1]
        results[name] = task_results(tasks, items, scores)
    return results
