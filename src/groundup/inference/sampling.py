"""From logits to the next token: temperature, truncation, and one random number for each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.run import UserError


@dataclass(frozen=True)
class SamplingParams:
    """How to continue one prompt. The default is greedy: always the likeliest token.

    Raises UserError for a value out of range.
    """

    max_tokens: int = 128
    """most tokens to generate; fewer where the context ends first"""
    temperature: float = 0.0
    """what logits are divided by; 0 is greedy"""
    top_k: int = 0
    """keep the k likeliest tokens; 0 keeps all"""
    top_p: float = 1.0
    """keep the likeliest tokens until their probability reaches p (Holtzman et al. 2020, arXiv 1904.09751)"""
    min_p: float = 0.0
    """drop tokens less likely than min_p times the likeliest (Nguyen et al. 2024, arXiv 2407.01082)"""
    repetition_penalty: float = 1.0
    """divide positive logits of tokens already in prompt or answer by this, multiply negative ones (Keskar et
    al. 2019, arXiv 1909.05858); 1 is none"""
    seed: int = 0
    """of this request's own random numbers; equal requests give equal texts, so vary it for several
    answers"""
    stop_ids: tuple[int, ...] = ()
    """tokens that end the answer"""
    stop: tuple[str, ...] = ()
    """texts that end the answer and are left out of it"""

    def __post_init__(self) -> None:
        checks = (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 (greedy) or above"),
            ("top_k", self.top_k >= 0, "0 (all) or above"),
            ("top_p", 0 < self.top_p <= 1, "above 0, at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0; 1 is none"),
            ("seed", 0 <= self.seed < 2**63, "from 0 to 2^63 - 1"),
            ("stop", all(self.stop), "texts that are not empty"),
        )
        for name, good, expected in checks:
            if not good:
                raise UserError(f"{name} is {getattr(self, name)!r}", where=name, expected=expected)


def truncate(logits: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Minus infinity where a row's top-k, top-p or min-p (each after the one before) leaves a token out.

    The likeliest token always stays; ties at a border are kept or cut in the order of a stable sort.

    Args:
        logits: [B, V] float32, temperature applied.
        top_k: [B] int64 (0 = all); top_p, min_p: [B] float32.
    """
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(logits.shape[-1], device=logits.device)
    limit = torch.where(top_k > 0, top_k, logits.shape[-1])
    ordered = ordered.masked_fill(rank >= limit[:, None], float("-inf"))
    before = ordered.softmax(-1).cumsum(-1).roll(1, -1)  # probability of all likelier tokens
    before[:, 0] = 0.0
    ordered = ordered.masked_fill((before >= top_p[:, None]) & (rank > 0) & (top_p < 1)[:, None], float("-inf"))
    floor = ordered[:, :1] + min_p.log()[:, None]  # p < min_p · p_max, in logarithms
    ordered = ordered.masked_fill(ordered < floor, float("-inf"))
    return torch.empty_like(logits).scatter_(-1, index, ordered)


def draw(logits: Tensor, noise: Tensor) -> Tensor:
    """One token a row from softmax(logits), by inverting the cumulative distribution.

    Args:
        logits: [B, V] float32.
        noise: [B] float64, uniform in [0, 1).

    Returns:
        [B] int64; never a token of probability 0.
    """
    cumulative = logits.double().softmax(-1).cumsum(-1)
    target = noise[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


class Sampler:
    """The samplers of the rows of a batch, as tensors, so that a step has no loop over rows.

    The t-th token of a request uses the t-th number of the request's own generator, drawn ahead.
    """

    def __init__(
        self, params: Sequence[SamplingParams], prompts: Sequence[Sequence[int]], steps: int, vocabulary: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        def column(name: str, dtype: torch.dtype) -> Tensor:
            return torch.tensor([getattr(each, name) for each in params], dtype=dtype, device=device)

        self.temperature = column("temperature", torch.float32)
        self.top_k, self.top_p = column("top_k", torch.int64), column("top_p", torch.float32)
        self.min_p, self.penalty = column("min_p", torch.float32), column("repetition_penalty", torch.float32)
        self.samples = any(each.temperature > 0 for each in params)
        self.truncates = any(each.top_k or each.top_p < 1 or each.min_p for each in params)
        self.noise = _noise(params, steps).to(device) if self.samples else None
        self.seen = None
        if any(each.repetition_penalty != 1 for each in params):
            seen = torch.zeros(len(params), vocabulary, dtype=torch.bool)
            for row, prompt in enumerate(prompts):
                seen[row, list(prompt)] = True
            self.seen = seen.to(device)

    def __call__(self, logits: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The next tokens [B] int64 and their log-probabilities [B] float32, for logits [B, V].

        The log-probability is that of the distribution drawn from, after penalty, temperature and truncation;
        with temperature 0 it is that of the model itself, at temperature 1 and untruncated.
        """
        logits = logits.float()
        if self.seen is not None:
            changed = torch.where(logits > 0, logits / self.penalty[:, None], logits * self.penalty[:, None])
            logits = torch.where(self.seen, changed, logits)
        tokens = logits.argmax(-1)
        if self.noise is not None:
            greedy = self.temperature == 0
            logits = logits / torch.where(greedy, 1.0, self.temperature)[:, None]
            if self.truncates:
                cut = truncate(logits, self.top_k, self.top_p, self.min_p)
                logits = torch.where(greedy[:, None], logits, cut)
            tokens = torch.where(greedy, tokens, draw(logits, self.noise[:, step]))
        logprobs = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
        if self.seen is not None:
            self.seen[torch.arange(len(tokens), device=tokens.device), tokens] = True
        return tokens, logprobs

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these [n] (int64)."""
        for name in ("temperature", "top_k", "top_p", "min_p", "penalty", "noise", "seen"):
            tensor = getattr(self, name)
            if tensor is not None:
                setattr(self, name, tensor[rows])


def _noise(params: Sequence[SamplingParams], steps: int) -> Tensor:
    """Uniform numbers [B, steps] float64, each row from the generator of its own seed; on the CPU, so that
    every device samples alike."""
    rows = [
        torch.rand(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(each.seed)) for each in params
    ]
    return torch.stack(rows)
