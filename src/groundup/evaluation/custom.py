"""A user's own tasks: a JSONL file of multiple-choice or exact-match items."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.evaluation.answers import MAX_TOKENS, Subject, ask
from groundup.evaluation.likelihood import Row, row_logprobs
from groundup.evaluation.scores import leaf
from groundup.model import IGNORE
from groundup.run import UserError, progress, wilson

FORMS = '{"query": text, "choices": [texts], "gold": number or text} or {"prompt": text, "answer": text}'
SPLIT = "all"


@dataclass(frozen=True)
class CustomItem:
    """One line: with ``choices`` the likeliest must be number ``gold``; without, the completion must be
    ``answer``."""

    id: str
    where: str
    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    gold: int = -1


def load_items(path: Path) -> list[CustomItem]:
    """Read a JSONL file of tasks; empty lines are skipped.

    Raises UserError naming file and line for a line that is neither form, and for a file without items.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read the tasks: {error}", where=str(path)) from error
    items = [_item(line, f"{path}:{number}", number) for number, line in enumerate(lines, 1) if line.strip()]
    if not items:
        raise UserError("a file of tasks without a task", where=str(path), expected=f"lines of {FORMS}")
    return items


def _item(line: str, where: str, number: int) -> CustomItem:
    """One line of the file."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"no JSON: {error}", where=where, expected=FORMS) from error
    if not isinstance(record, Mapping):
        raise UserError(f"not an object but {record!r}", where=where, expected=FORMS)
    if "query" in record:
        choices = record.get("choices")
        if not isinstance(choices, list) or len(choices) < 2 or not all(_is_text(each) for each in choices):
            raise UserError(f"choices is {choices!r}", where=where, expected="two texts or more, none empty")
        query = _text(record, "query", where)
        gold = _gold(record.get("gold"), choices, where)
        return CustomItem(f"{number}", where, query, choices[gold], tuple(choices), gold)
    if "prompt" in record:
        return CustomItem(f"{number}", where, _text(record, "prompt", where), _text(record, "answer", where))
    raise UserError(f"a task with the keys {', '.join(record) or 'none'}", where=where, expected=FORMS)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not _is_text(value):
        raise UserError(f"{key} is {value!r}", where=where, expected="a text that is not empty")
    return str(value)


def _gold(gold: Any, choices: Sequence[str], where: str) -> int:
    """The number of the right choice, given as its number from 0 or as its text."""
    if isinstance(gold, str) and choices.count(gold) == 1:
        return choices.index(gold)
    if isinstance(gold, int) and not isinstance(gold, bool) and 0 <= gold < len(choices):
        return gold
    raise UserError(
        f"gold is {gold!r}", where=where, expected=f"a number from 0 to {len(choices) - 1}, or one of the choices"
    )


def run_items(subject: Subject, items: Sequence[CustomItem]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score a model on a file's items.

    Multiple choice: the choice of the highest log-likelihood per byte must be the gold one. Exact match: the
    greedy completion, without white space around it, must be the answer.

    Returns:
        {split: leaf} and a record of each item for items.jsonl.

    Raises:
        UserError: naming file and line, for an item that is longer than the model's context.
    """
    chosen, said = _choose(subject, items), _complete(subject, items)
    records = [
        {
            "id": item.id,
            "split": SPLIT,
            "kind": "choice" if item.choices else "exact",
            "prompt": item.prompt,
            "fact": item.answer,
            **(chosen.get(item.id) or said[item.id]),
        }
        for item in items
    ]
    right = sum(record["verdict"]["correct"] for record in records)
    kinds = {record["kind"] for record in records}
    metric = {"choice": "accuracy_per_byte", "exact": "exact_match"}[kinds.pop()] if len(kinds) == 1 else "accuracy"
    return {SPLIT: leaf(wilson(right, len(records)), metric)}, records


def _choose(subject: Subject, items: Sequence[CustomItem]) -> dict[str, dict[str, Any]]:
    """The choice each multiple-choice item gets, by item."""
    places = [(item, choice) for item in items for choice in item.choices]
    rows = [_choice_row(subject, item, choice) for item, choice in places]
    with progress(f"choices of {subject.name}", len(rows), "choices") as bar:
        logprobs = row_logprobs(subject.model, rows, bar.advance)
    per_byte: dict[str, list[float]] = {}
    for (item, choice), logprob in zip(places, logprobs, strict=True):
        per_byte.setdefault(item.id, []).append(logprob / len(choice.encode()))
    outcomes = {}
    for item in items:
        if item.choices:
            scores = per_byte[item.id]
            best = max(range(len(scores)), key=scores.__getitem__)
            verdict = {"correct": best == item.gold, "logprob_per_byte": scores}
            outcomes[item.id] = {"completion": item.choices[best], "finished": True, "verdict": verdict}
    return outcomes


def _choice_row(subject: Subject, item: CustomItem, choice: str) -> Row:
    """Query and choice as a row in which the choice is scored.

    For a base model both are one text, with a space between them where the query ends without one; it is cut
    where the query's own tokens end (white space at the query's end goes with the choice).
    """
    if subject.chats:
        context = subject.prompt([{"role": "user", "content": item.prompt}], item.prompt)
        ids = context + subject.tokenizer.encode(choice)
    else:
        query = item.prompt.rstrip()
        context = subject.prompt([], query)
        ids = subject.prompt([], query + (item.prompt[len(query) :] or " ") + choice)
    if len(ids) - 1 > subject.model.arch.context_length:
        raise _too_long(subject, item, len(ids))
    targets = [IGNORE] * (len(context) - 1) + ids[len(context) :]
    return ids[:-1], targets


def _complete(subject: Subject, items: Sequence[CustomItem]) -> dict[str, dict[str, Any]]:
    """The completion each exact-match item gets, by item."""
    open_items = [item for item in items if not item.choices]
    prompts = [subject.prompt([{"role": "user", "content": item.prompt}], item.prompt) for item in open_items]
    for item, prompt in zip(open_items, prompts, strict=True):
        if len(prompt) >= subject.model.arch.context_length:
            raise _too_long(subject, item, len(prompt))
    wanted = [len(subject.tokenizer.encode(item.answer)) for item in open_items]
    answers = ask(subject, prompts, max_tokens=max([MAX_TOKENS, *(size + 8 for size in wanted)]))
    return {
        item.id: {
            "completion": answer.text,
            "finished": answer.finished,
            "verdict": {"correct": answer.finished and answer.text == item.answer.strip()},
        }
        for item, answer in zip(open_items, answers, strict=True)
    }


def _too_long(subject: Subject, item: CustomItem, size: int) -> UserError:
    return UserError(
        f"the task has {size} tokens; the context of {subject.name} is {subject.model.arch.context_length}",
        where=item.where,
        mend="shorten it",
    )
