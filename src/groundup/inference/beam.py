"""Beam search over an encoder-decoder: the likeliest translations, and not just the likeliest next words."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.model import EncoderDecoder, Memory
from groundup.run import UserError


@dataclass(frozen=True)
class Hypothesis:
    """A translation that was found."""

    ids: tuple[int, ...]
    """without begin mark; the end mark is the last, unless the length ran out"""
    logprob: float
    """natural logarithm of its probability, the end mark's included"""
    score: float
    """what hypotheses are ranked by: ``logprob`` over the length penalty"""
    finished: bool


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6)^α (Wu et al. 2016, arXiv 1609.08144, eq. 14); the end mark counts. α = 0 is none."""
    return float(((5 + length) / 6) ** alpha)


@torch.inference_mode()
def beam_search(
    model: EncoderDecoder,
    sources: Sequence[Sequence[int]],
    *,
    begin: int,
    end: int,
    beam: int = 4,
    alpha: float = 0.6,
    n_best: int = 1,
    extra: int = 50,
    never: Sequence[int] = (),
    batch_size: int = 64,
    on_done: Callable[[int], None] | None = None,
) -> list[list[Hypothesis]]:
    """The best translations of each source, best first.

    At every length the ``beam`` likeliest beginnings are kept. One that ends among them is a hypothesis, and its place
    stays empty from then on: so the likeliest beginning is never given up for the ends of unlikely ones, which come
    early where a model is sure of its words. A source is done when no place is left, or when no beginning can still
    overtake the ``n_best`` hypotheses. A beam of 1 is greedy search. A result doesn't depend on what else is in the
    batch, but for rounding.

    Args:
        model: in eval mode.
        sources: ids, the end mark included, at least one each.
        begin: the id that a target begins with; end: the one that ends it.
        beam: how many beginnings are kept.
        alpha: exponent of the length penalty; 0 ranks by probability, which favours the short.
        n_best: hypotheses returned of each source, at most ``beam``.
        extra: how much longer than its source a translation may be, the end mark counted (section 6.1 of Vaswani et
            al. 2017), within the model's context. One that has not ended by then is returned only for want of others.
        never: ids that are not generated.
        batch_size: sources at a time; similar lengths go together.
        on_done: called with the number of sources that were just finished.

    Raises:
        UserError: a source is empty or longer than the model's context.
        ValueError: for ``n_best`` above ``beam``.
    """
    if not 1 <= n_best <= beam:
        raise ValueError(f"n_best = {n_best} of a beam of {beam}")
    context, rules = model.arch.context_length, _Rules(begin, end, beam, alpha, n_best, tuple(never))
    _require_fit(sources, context)
    order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    found: dict[int, list[Hypothesis]] = {}
    for at in range(0, len(order), batch_size):
        chosen = order[at : at + batch_size]
        limits = [min(context, len(sources[i]) + extra) for i in chosen]
        search = _Search(model, [sources[i] for i in chosen], limits, rules)
        found.update(zip(chosen, search.run(), strict=True))
        if on_done is not None:
            on_done(len(chosen))
    return [found[i] for i in range(len(sources))]


def _require_fit(sources: Sequence[Sequence[int]], context: int) -> None:
    for source in sources:
        if not 1 <= len(source) <= context:
            raise UserError(
                f"a sentence of {len(source)} words, its end mark included",
                expected=f"1 to {context}, the context of the model",
                mend="shorten or split it",
            )


@dataclass(frozen=True)
class _Rules:
    """What :func:`beam_search` was asked for."""

    begin: int
    end: int
    beam: int
    alpha: float
    n_best: int
    never: tuple[int, ...]


class _Sentence:
    """The hypotheses of one source: those that ended, best kept."""

    def __init__(self, limit: int, rules: _Rules) -> None:
        self.limit, self.beam, self.alpha, self.n_best = limit, rules.beam, rules.alpha, rules.n_best
        self.ended: list[Hypothesis] = []
        self.cut: list[Hypothesis] = []

    def add(self, ids: Sequence[int], logprob: float, *, finished: bool) -> None:
        score = logprob / length_penalty(len(ids), self.alpha)
        (self.ended if finished else self.cut).append(Hypothesis(tuple(ids), logprob, score, finished))

    def done(self, best_alive: float) -> bool:
        """Whether nothing better can come: not of the best beginning, at no further cost and of the greatest length."""
        if len(self.ended) >= self.beam:
            return True
        if len(self.ended) < self.n_best:
            return False
        worst = heapq.nlargest(self.n_best, (hypothesis.score for hypothesis in self.ended))[-1]
        return best_alive / length_penalty(self.limit, self.alpha) <= worst

    def best(self) -> list[Hypothesis]:
        ranked = sorted(self.ended, key=lambda hypothesis: -hypothesis.score)
        ranked += sorted(self.cut, key=lambda hypothesis: -hypothesis.score)
        return ranked[: self.n_best]


class _Search:
    """One batch: B sources, the first rows of each its K beginnings, likeliest first."""

    def __init__(
        self,
        model: EncoderDecoder,
        sources: Sequence[Sequence[int]],
        limits: Sequence[int],
        rules: _Rules,
    ) -> None:
        self.model, self.end, self.beam, self.never = model, rules.end, rules.beam, list(rules.never)
        self.device = model.head.weight.device
        self.sentences = [_Sentence(limit, rules) for limit in limits]
        width = max(map(len, sources))
        padded = [[*source, *[model.arch.pad] * (width - len(source))] for source in sources]
        self.memory: Memory = model.encode(torch.tensor(padded, device=self.device))
        self.memory.keep(torch.arange(len(sources), device=self.device).repeat_interleave(self.beam))
        self.going = list(range(len(sources)))
        shape = (len(sources), self.beam)
        self.ids = torch.full((*shape, 1), rules.begin, dtype=torch.int64, device=self.device)
        # At first all beginnings of a source are the same: only one of them counts.
        self.logprobs = torch.full(shape, float("-inf"), dtype=torch.float64, device=self.device)
        self.logprobs[:, 0] = 0.0

    def run(self) -> list[list[Hypothesis]]:
        while self.going:
            self.step()
        return [sentence.best() for sentence in self.sentences]

    def step(self) -> None:
        """Lengthen every beginning by one word, and let go of the sources that are done."""
        count = len(self.going)
        totals = self.next_logprobs()  # [B, K, V]
        vocabulary = totals.shape[2]
        # Among the 2 K likeliest there are K that do not end, since each beginning ends in one way.
        top, index = totals.flatten(1).topk(min(2 * self.beam, self.beam * vocabulary), dim=1)
        parents, words = index // vocabulary, index % vocabulary
        ends = words == self.end
        self.take_ended(top, parents, ends)
        self.logprobs, places = top.masked_fill(ends, float("-inf")).topk(self.beam, dim=1)
        ranks = torch.arange(self.beam, device=self.device)
        self.logprobs = self.logprobs.masked_fill(ranks >= self.places_left()[:, None], float("-inf"))
        parents, words = parents.gather(1, places), words.gather(1, places)
        rows = parents + torch.arange(count, device=self.device)[:, None] * self.beam
        self.ids = torch.cat((self.ids.flatten(0, 1)[rows], words[..., None]), dim=2)
        left = self.not_done()
        keep = torch.tensor(left, dtype=torch.int64, device=self.device)
        self.memory.keep(rows[keep].flatten(), same_sources=len(left) == count)
        self.ids, self.logprobs = self.ids[keep], self.logprobs[keep]
        self.going = [self.going[place] for place in left]

    def next_logprobs(self) -> Tensor:
        """Log-probabilities of every beginning lengthened by every word, [B, K, V] float64."""
        count = len(self.going)
        hidden = self.model.decode(self.ids[:, :, -1].reshape(-1, 1), self.memory)
        logits = self.model.logits(hidden[:, -1]).double()
        logits[:, self.never] = float("-inf")
        return self.logprobs[..., None] + logits.log_softmax(-1).view(count, self.beam, -1)

    def take_ended(self, top: Tensor, parents: Tensor, ends: Tensor) -> None:
        """Record the beginnings that end, if they are among as many of the likeliest as there are places."""
        ranks = torch.arange(top.shape[1], device=self.device)
        among = ends & top.isfinite() & (ranks < self.places_left()[:, None])
        for place, rank in among.nonzero().tolist():
            ids = self.ids[place, parents[place, rank], 1:].tolist()
            logprob = float(top[place, rank])
            self.sentences[self.going[place]].add([*ids, self.end], logprob, finished=True)

    def places_left(self) -> Tensor:
        """How many beginnings of each source are still kept, [B]."""
        left = [self.beam - len(self.sentences[number].ended) for number in self.going]
        return torch.tensor(left, device=self.device)

    def not_done(self) -> list[int]:
        """Places of the batch that go on. Beginnings that have reached their limit are recorded as cut."""
        length = self.ids.shape[2] - 1
        left = []
        for place, (number, logprobs) in enumerate(zip(self.going, self.logprobs.tolist(), strict=True)):
            sentence = self.sentences[number]
            if sentence.done(logprobs[0]):
                continue
            if length < sentence.limit:
                left.append(place)
                continue
            for ids, logprob in zip(self.ids[place, :, 1:].tolist(), logprobs, strict=True):
                if logprob > float("-inf"):
                    sentence.add(ids, logprob, finished=False)
        return left
