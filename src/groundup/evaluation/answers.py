"""Asking a model: the fair form for its kind, greedily, and what counts as an answer brought to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.inference import Completion, SamplingParams, generate
from groundup.model import Transformer
from groundup.run import log, progress
from groundup.tokenizer import Tokenizer, encode_chat

MAX_TOKENS = 96
"""Room for an answer: a right one in the embedded world takes about 60 tokens at most, in a vocabulary of
2,048."""


@dataclass(frozen=True)
class Subject:
    """A model under test. ``chats``: it is asked in the chat format; a base model continues plain text.

    One that was trained elsewhere may expect the ids ``begins`` before a plain text, and end it with one of ``ends``.
    """

    name: str
    model: Transformer
    tokenizer: Tokenizer
    chats: bool
    begins: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    def prompt(self, messages: Sequence[dict[str, str]], plain: str) -> list[int]:
        """The ids of whichever form suits the model."""
        if self.chats:
            return encode_chat(self.tokenizer, messages, generation_prompt=True).ids
        return [*self.begins, *self.tokenizer.encode(plain)]


@dataclass(frozen=True)
class Answer:
    """What a model said. ``finished``: it ended the answer by itself, a chat model by <|end|> alone."""

    text: str
    finished: bool


def ask(subject: Subject, prompts: Sequence[Sequence[int]], *, max_tokens: int = MAX_TOKENS) -> list[Answer]:
    """The greedy answer to each prompt, in order.

    A chat model's answer ends at <|end|>, a base model's at the end of the line or of the document. A prompt
    that leaves no room in the model's context gets an empty, unfinished answer, and a line on stderr counts
    them.
    """
    tokenizer = subject.tokenizer
    ends = (tokenizer.end, tokenizer.endoftext) if subject.chats else (tokenizer.endoftext, *subject.ends)
    params = SamplingParams(max_tokens=max_tokens, stop_ids=ends, stop=() if subject.chats else ("\n",))
    fits = [i for i, prompt in enumerate(prompts) if 0 < len(prompt) < subject.model.arch.context_length]
    if len(fits) < len(prompts):
        log(
            f"{subject.name}: {len(prompts) - len(fits)} of {len(prompts)} prompts are longer than the context of "
            f"{subject.model.arch.context_length} tokens; they count as not answered"
        )
    answers = [Answer("", finished=False)] * len(prompts)
    with progress(f"answers of {subject.name}", len(fits), "answers") as bar:
        completions = generate(
            subject.model, [prompts[i] for i in fits], params, tokenizer=tokenizer, on_done=bar.advance
        )
    for i, completion in zip(fits, completions, strict=True):
        answers[i] = Answer(completion.text.strip(), _finished(subject, completion))
    return answers


def _finished(subject: Subject, completion: Completion) -> bool:
    if subject.chats:
        return completion.ids[-1] == subject.tokenizer.end
    return completion.finish_reason == "stop"
