"""Batched generation with a key-value cache.

A batch is prompts of similar length, padded on the left so that all rows share one column for the next token.
One pass reads the prompts; then each step feeds one token a row. Rows that end are dropped from the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from groundup.inference.cache import KVCache
from groundup.inference.sampling import Sampler, SamplingParams
from groundup.inference.text import TextStream
from groundup.model import Transformer
from groundup.run import UserError
from groundup.tokenizer import Tokenizer

COMPACT_BELOW = 0.75
"""The cache is copied without its ended rows once fewer than this share of them are still going: a copy costs
about as much as a step, so not for every row that ends."""


@dataclass(frozen=True)
class Completion:
    """How a prompt went on."""

    ids: list[int]
    """the generated tokens, the stop token included where one ended the answer"""
    text: str
    """their text up to the stop; empty where no tokenizer was given"""
    logprobs: list[float]
    """for each of ``ids`` the log-probability of the distribution it was drawn from (see ``Sampler``)"""
    finish_reason: Literal["stop", "length"]


class Decoding:
    """A batch under way: the model, its cache, and the rows' places."""

    def __init__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        params: Sequence[SamplingParams],
        steps: int,
        allowed: int,
    ) -> None:
        self.model, self.allowed, self.steps = model, allowed, 0
        weight = model.head_weight
        self.device = weight.device
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        self.width = int(lengths.max())
        self.first = self.width - lengths  # [B] column of each row's first token
        self.cache = KVCache(model.arch, len(prompts), self.width + steps - 1, dtype=weight.dtype, device=self.device)
        self.sampler = Sampler(params, prompts, steps, model.arch.vocabulary_size, self.device)
        padded = [[0] * (self.width - len(prompt)) + list(prompt) for prompt in prompts]
        self.ids = torch.tensor(padded, device=self.device)

    @torch.inference_mode()
    def step(self) -> tuple[Tensor, Tensor]:
        """The next token of each row and its log-probability, [B] int64 and [B] float32."""
        begin = self.cache.length
        columns = torch.arange(begin, begin + self.ids.shape[1], device=self.device)
        positions = (columns[None] - self.first[:, None]).clamp(min=0)
        hidden = self.model(self.ids, positions=positions, mask=self._mask(columns), cache=self.cache)
        self.cache.advance(self.ids.shape[1])
        logits = self.model.logits(hidden[:, -1]).float()  # [B, V]: the head is applied to the last column only
        logits[:, self.allowed :] = float("-inf")
        tokens, logprobs = self.sampler(logits, self.steps)
        self.ids, self.steps = tokens[:, None], self.steps + 1
        return tokens, logprobs

    def _mask(self, columns: Tensor) -> Tensor:
        """bool [B, 1, T, S]: each place sees its row's tokens up to itself. Padding sees itself, so that its
        (never read) output stays finite."""
        keys = torch.arange(int(columns[-1]) + 1, device=self.device)
        seen = (keys <= columns[:, None]) & (keys >= self.first[:, None, None])
        return (seen | (keys == columns[:, None]))[:, None]

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        index = torch.tensor(rows, device=self.device)
        self.cache.keep(index)
        self.sampler.keep(index)
        self.first, self.ids = self.first[index], self.ids[index]


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | Sequence[SamplingParams],
    *,
    tokenizer: Tokenizer | None = None,
    batch_size: int = 64,
    on_done: Callable[[int], None] | None = None,
) -> list[Completion]:
    """Continue each prompt; completions come in the order of the prompts.

    Arithmetic has the dtype and device of the model's weights. Equal prompts with equal parameters give equal
    texts: for several answers to one prompt give each its own ``seed``.

    Args:
        model: in eval mode.
        prompts: token ids, at least one each.
        params: for all, or one for each prompt.
        tokenizer: needed for stop strings and for ``Completion.text``; ids beyond it are never generated.
        batch_size: prompts at a time; similar lengths go together.
        on_done: called with the number of prompts that were just finished.

    Raises:
        UserError: for an empty prompt, or one that leaves no room for an answer in the model's context.
        ValueError: for stop strings without a tokenizer, or params of another number than prompts.
    """
    every = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
    if len(every) != len(prompts):
        raise ValueError(f"{len(every)} params for {len(prompts)} prompts")
    rooms = [_room(model, prompt, each, tokenizer) for prompt, each in zip(prompts, every, strict=True)]
    # Longest first: a batch that is too large for the memory shows at once.
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    completions: dict[int, Completion] = {}
    for begin in range(0, len(order), batch_size):
        chosen = order[begin : begin + batch_size]
        finished = _generate_batch(
            model,
            [prompts[i] for i in chosen],
            [every[i] for i in chosen],
            [rooms[i] for i in chosen],
            tokenizer,
        )
        completions.update(zip(chosen, finished, strict=True))
        if on_done is not None:
            on_done(len(chosen))
    return [completions[i] for i in range(len(prompts))]


def stream(
    model: Transformer, tokenizer: Tokenizer, prompt_ids: Sequence[int], params: SamplingParams
) -> Iterator[str]:
    """Continue one prompt and give its text piece by piece: the pieces together are ``generate``'s text.

    Characters come whole, and what may become a stop string is held back until it is decided.

    Raises UserError as :func:`generate` does, before the first piece.
    """
    room = _room(model, prompt_ids, params, tokenizer)
    decoding = Decoding(model, [prompt_ids], [params], room, _allowed(model, tokenizer))
    return _pieces(decoding, tokenizer, params, room)


def _pieces(decoding: Decoding, tokenizer: Tokenizer, params: SamplingParams, room: int) -> Iterator[str]:
    text = TextStream(params.stop)
    for number in range(1, room + 1):
        token = int(decoding.step()[0])
        last = token in params.stop_ids or number == room
        piece = text.feed(b"" if token in params.stop_ids else tokenizer.token(token), last=last)
        if piece:
            yield piece
        if last or text.stopped:
            return


def _room(model: Transformer, prompt: Sequence[int], params: SamplingParams, tokenizer: Tokenizer | None) -> int:
    """How many tokens may follow the prompt: max_tokens, or fewer where the context ends first."""
    context = model.arch.context_length
    if not prompt:
        raise UserError("an empty prompt", expected="at least one token")
    if len(prompt) >= context:
        raise UserError(
            f"the prompt has {len(prompt)} tokens, and the model's context is {context}",
            expected=f"at most {context - 1} tokens, to leave room for an answer",
            mend="shorten the prompt",
        )
    if params.stop and tokenizer is None:
        raise ValueError("stop strings need the tokenizer")
    return min(params.max_tokens, context - len(prompt))


def _allowed(model: Transformer, tokenizer: Tokenizer | None) -> int:
    """Ids that may be generated: those that both the model and the tokenizer know."""
    size = model.arch.vocabulary_size
    return size if tokenizer is None else min(size, tokenizer.vocabulary_size)


def _generate_batch(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    rooms: Sequence[int],
    tokenizer: Tokenizer | None,
) -> list[Completion]:
    """Continue the prompts of one batch to the end of the last."""
    rows = [_Row(each, room, tokenizer) for each, room in zip(params, rooms, strict=True)]
    decoding = Decoding(model, prompts, params, max(rooms), _allowed(model, tokenizer))
    going = list(rows)  # the rows of the batch as it is now, ended ones still in it
    while True:
        tokens, logprobs = decoding.step()
        for row, token, logprob in zip(going, tokens.tolist(), logprobs.tolist(), strict=True):
            row.add(token, logprob)
        alive = [place for place, row in enumerate(going) if not row.reason]
        if not alive:
            return [row.completion() for row in rows]
        if len(alive) < COMPACT_BELOW * len(going):
            decoding.keep(alive)
            going = [going[place] for place in alive]


class _Row:
    """The answer to one prompt as it grows. ``reason`` is empty until it ends; then nothing more is added."""

    def __init__(self, params: SamplingParams, room: int, tokenizer: Tokenizer | None) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.reason: Literal["", "stop", "length"] = ""
        self._stop_ids, self._room, self._tokenizer = frozenset(params.stop_ids), room, tokenizer
        self._stops = TextStream(params.stop) if params.stop else None

    def add(self, token: int, logprob: float) -> None:
        """Take one more token, unless the row has ended."""
        if self.reason:
            return
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token in self._stop_ids:
            self.reason = "stop"
        elif self._stops is not None and self._tokenizer is not None:
            self._stops.feed(self._tokenizer.token(token))
            if self._stops.stopped:
                self.reason = "stop"
        if not self.reason and len(self.ids) >= self._room:
            self.reason = "length"

    def completion(self) -> Completion:
        """The finished answer."""
        if self._stops is not None:
            self._stops.feed(b"", last=True)
            text = self._stops.text
        elif self._tokenizer is not None:
            shown = self.ids[:-1] if self.ids[-1] in self._stop_ids else self.ids
            text = self._tokenizer.decode(shown)
        else:
            text = ""
        return Completion(self.ids, text, self.logprobs, self.reason or "length")
