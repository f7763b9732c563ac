"""Bits per byte of what the assistant says in conversations that no stage learned from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.evaluation.answers import Subject
from groundup.evaluation.likelihood import Row, row_logprobs
from groundup.model import IGNORE
from groundup.run import Interval, bootstrap_ratio, log, progress
from groundup.tokenizer import EncodedChat, Tokenizer, encode_chat

ANSWERS = "answers"
HELD_OUT = "held_out"
"""The task's name, and that of its split."""
MAX_CONVERSATIONS = 500
"""Conversations that are measured at most."""


@dataclass(frozen=True)
class HeldOut:
    """A conversation, as `groundup.tokenizer.encode_chat` takes it."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def answer_bits(subject: Subject, conversations: Sequence[HeldOut], *, seed: int) -> Interval | None:
    """Σ nats / (ln 2 · Σ bytes) over what the assistant says, with a bootstrap interval by conversation.

    A chat model reads a conversation in the chat format. A base model, which knows no such format, reads plain lines,
    ``User: …`` and ``Assistant: …``, and is scored on the same words. A conversation is read up to the model's context.
    Tokens that end a message count 0 bytes and 0 nats. None where there are not two conversations to score, of which
    alone no interval can be told.
    """
    sizes = subject.tokenizer.token_bytes()
    rows: list[Row] = []
    lengths: list[int] = []
    for conversation in conversations:
        row, length = _row(subject, conversation, sizes)
        if length:
            rows.append(row)
            lengths.append(length)
    if len(rows) < 2:
        log(f"{subject.name}: answers needs two held-out conversations at least, and there are {len(rows)}")
        return None
    with progress(f"held-out answers to {subject.name}", len(rows), "chats") as bar:
        logprobs = row_logprobs(subject.model, rows, bar.advance)
    return bootstrap_ratio([-logprob / math.log(2) for logprob in logprobs], lengths, seed=seed)


def _row(subject: Subject, conversation: HeldOut, sizes: Sequence[int]) -> tuple[Row, int]:
    """A conversation's row, and the bytes that are scored in it."""
    chat = encode_chat(subject.tokenizer, conversation.messages, tools=conversation.tools)
    ids, said = (chat.ids, chat.loss_mask) if subject.chats else _plain(subject, chat)
    room = subject.model.arch.context_length + 1
    scored = [place for place in range(1, min(room, len(ids))) if said[place] and sizes[ids[place]]]
    targets = [IGNORE] * (min(room, len(ids)) - 1)
    for place in scored:
        targets[place - 1] = ids[place]
    length = sum(sizes[ids[place]] for place in scored)
    if not subject.chats:  # the space before an answer is no part of it
        length -= sum(not said[place - 1] for place in scored)
    return (ids[: room - 1][: len(targets)], targets), length


def _plain(subject: Subject, chat: EncodedChat) -> tuple[list[int], list[bool]]:
    """A chat as lines "User: Hi" and "Assistant: Hello": ids, and for each whether it is scored.

    What stands between two scored answers is encoded as one text, as a reader would meet it.
    """
    ids, said = list(subject.begins), [False] * len(subject.begins)
    between = ""
    for number, (role, text, learned) in enumerate(_messages(subject.tokenizer, chat)):
        between += ("\n" if number else "") + f"{role}:"
        if not learned:
            between += f" {text}"
            continue
        for part, scored in ((between, False), (f" {text}", True)):
            encoded = subject.tokenizer.encode(part)
            ids += encoded
            said += [scored] * len(encoded)
        between = ""
    return ids, said


def _messages(tokenizer: Tokenizer, chat: EncodedChat) -> Iterator[tuple[str, str, bool]]:
    """The role, the text, and whether it is learned, of each message; no text holds the id that ends one."""
    roles = {
        tokenizer.system: "System", tokenizer.user: "User", tokenizer.assistant: "Assistant", tokenizer.tool: "Tool",
    }  # fmt: skip
    begin = 0
    for place, number in enumerate(chat.ids):
        if number == tokenizer.end:
            yield roles[chat.ids[begin]], tokenizer.decode(chat.ids[begin + 1 : place]), chat.loss_mask[place]
            begin = place + 1
