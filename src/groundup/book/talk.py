"""What the models say, generated while the book is made: greedily or from fixed seeds, on held-out texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.book.text import excerpt
from groundup.corpus import read_documents
from groundup.evaluation.answers import Subject, ask
from groundup.evaluation.items import Item
from groundup.inference import SamplingParams, generate
from groundup.model import Transformer
from groundup.run import UserError
from groundup.storyworld import KINDS, UNKNOWN, questions, requests, unknown_questions
from groundup.tokenizer import Tokenizer, TokenShards

Facts = dict[str, Any]
CONTINUED = 3
CONTINUED_TOKENS = 100
TEMPERATURE = 0.8
TOP_P = 0.95


def questions_answered(
    chats: Mapping[str, bool], opened: Callable[[str], Transformer], tool: Tokenizer, seed: int
) -> list[Facts]:
    """The first test question of each kind, one that is left open, an unkind and a kind request; all models' answers.

    They are the first items of the evaluation's iid split: nobody picked them.

    Args:
        chats: names of the models, and whether each is asked in the chat format.
        opened: loads a model by its name; one at a time is held.
    """
    asked = [*questions(seed, "iid", len(KINDS)), *unknown_questions(seed, "iid", 1)]
    items = [
        Item(each.id, "iid", each.kind, "unanswerable" if each.kind == UNKNOWN else "answerable", each.story_id, each)
        for each in asked
    ]
    wanted = requests(seed, 40)
    for kind in ("harmful", "harmless"):
        items += [Item(r.id, "iid", kind, kind, r.id, r) for r in wanted if r.kind == kind][:1]
    rows: list[Facts] = [
        {
            "kind": item.kind,
            "story": getattr(item.subject, "story", ""),
            "question": item.words,
            "truth": getattr(item.subject, "answer", ""),
            "answers": [],
        }
        for item in items
    ]
    for name, chatting in chats.items():
        subject = Subject(name, opened(name), tool, chatting)
        answers = ask(subject, [subject.prompt(item.messages, item.plain_prompt) for item in items])
        for item, row, answer in zip(items, rows, answers, strict=True):
            verdict = item.judge(answer.text, answer.finished)[1]
            row["answers"].append(
                {
                    "model": name,
                    "text": excerpt(answer.text, 240)[0],
                    "finished": answer.finished,
                    "right": all(verdict.values()),
                }
            )
    return rows


def conversations_answered(model: Transformer, tool: Tokenizer, data: Path) -> list[Facts]:
    """Held-out conversations of the user's own data: the first question, the model's answer, the answer in the data."""
    try:
        shards = TokenShards(data / "validation")
    except UserError:
        return []
    found = []
    for number in range(min(len(shards), CONTINUED)):
        ids = [int(token) for token in shards.doc(number)]
        if tool.assistant not in ids:
            continue
        begin = ids.index(tool.assistant) + 1
        end = ids.index(tool.end, begin) if tool.end in ids[begin:] else len(ids)
        if begin < model.arch.context_length:
            found.append((ids[:begin], ids[begin:end]))
    if not found:
        return []
    params = SamplingParams(max_tokens=CONTINUED_TOKENS, stop_ids=(tool.end, tool.endoftext))
    answers = generate(model, [prompt for prompt, _ in found], params, tokenizer=tool)
    return [
        {
            "prompt": excerpt(tool.decode(prompt, special=True).replace("<|end|>", "<|end|>\n"), 1500)[0],
            "answer": answer.text,
            "truth": tool.decode(truth),
        }
        for (prompt, truth), answer in zip(found, answers, strict=True)
    ]


def texts_continued(run: Path, model: Transformer, tool: Tokenizer, seed: int) -> list[Facts]:
    """Beginnings of validation documents, how the model goes on, and how they really go on."""
    found: list[tuple[list[int], list[int]]] = []
    try:
        documents = list(islice(read_documents(run / "corpus", "validation"), 40))
    except UserError:
        return []
    for document in documents:
        ids = tool.encode(document.text)
        begin = min(48, len(ids) // 2, model.arch.context_length // 2)
        if begin >= 8 and len(found) < CONTINUED:
            found.append((ids[:begin], ids[begin : begin + CONTINUED_TOKENS]))
    if not found:
        return []
    params = SamplingParams(
        max_tokens=CONTINUED_TOKENS, temperature=TEMPERATURE, top_p=TOP_P, seed=seed, stop_ids=(tool.endoftext,)
    )
    prompts = [[tool.endoftext, *beginning] for beginning, _ in found]
    answers = generate(model, prompts, params, tokenizer=tool)
    return [
        {
            "prompt": tool.decode(beginning),
            "answer": answer.text,
            "truth": tool.decode(truth),
            "temperature": TEMPERATURE,
            "top_p": TOP_P,
        }
        for (beginning, truth), answer in zip(found, answers, strict=True)
    ]
