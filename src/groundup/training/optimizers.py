"""The optimizer: Muon for the hidden matrices, AdamW for embeddings, head and gains, stepped as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from groundup.recipe import OptimizerTable
from groundup.training.roles import HIDDEN, TABLES, role_of

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic of Jordan et al. 2024 ("Muon"), chosen for the steepest slope at zero."""
NEWTON_SCHULZ_STEPS = 5

TABLE_EXPONENT, MATRIX_EXPONENT = -0.5, -1.0
"""How AdamW's rates follow the width. Matrices: 1 / width (Yang et al. 2022, "Tensor Programs V", arXiv 2203.03466,
table 8). Of tables that paper keeps the rate where they are read and has 1 / width where they score; one table often
does both, and nanochat's rule lies between."""


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values are driven to about 1 (0.7 to 1.2).

    Five steps of X <- aX + b(XXᵀ)X + c(XXᵀ)²X after scaling to spectral norm below 1 (Jordan et al. 2024).

    Args:
        matrices: [..., rows, columns]; a batch of equal shapes is one batched product.
        dtype: what the products are computed in; bfloat16 is enough.

    Returns:
        [..., rows, columns] float32.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype).reshape(-1, *matrices.shape[-2:])
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float().reshape(matrices.shape)


class Muon:
    """Momentum, then orthogonalisation (Jordan et al. 2024), over stacks of equally shaped matrices; each expert of a
    stack of experts is a matrix of its own.

    The momentum rises from 0.85 to its setting over the first 300 steps, which costs nothing and lowers the loss. A
    tall matrix's step is scaled by sqrt(rows / columns).
    """

    WARMUP_STEPS = 300
    WARMUP_FROM = 0.85

    def __init__(self, named: dict[str, nn.Parameter], table: OptimizerTable, dtype: torch.dtype) -> None:
        self.table, self.dtype = table, dtype
        self.stacks: dict[tuple[int, ...], dict[str, nn.Parameter]] = {}
        for name, weight in named.items():
            self.stacks.setdefault(tuple(weight.shape), {})[name] = weight
        self.momentum = {name: torch.zeros_like(weight) for name, weight in named.items()}

    @torch.no_grad()
    def step(self, factor: float, step: int) -> None:
        """Move every matrix that has a gradient.

        ``factor`` scales the learning rate; ``step`` counts from 0 for the momentum warm-up.
        """
        table = self.table
        mix = min(1.0, step / self.WARMUP_STEPS)
        beta = (1 - mix) * min(self.WARMUP_FROM, table.muon_momentum) + mix * table.muon_momentum
        rate = table.muon_lr * factor
        for (*_, rows, columns), named in self.stacks.items():
            moved = {name: weight for name, weight in named.items() if weight.grad is not None}
            if not moved:
                continue
            weights: list[Tensor] = list(moved.values())
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            momenta = [self.momentum[name] for name in moved]
            torch._foreach_lerp_(momenta, gradients, 1 - beta)
            nesterov = torch._foreach_lerp(gradients, momenta, beta)
            updates = list(orthogonalise(torch.stack(nesterov), self.dtype).unbind())
            if table.cautious_decay:
                _decay(weights, updates, rate * table.weight_decay)
            elif table.weight_decay:
                torch._foreach_mul_(weights, 1 - rate * table.weight_decay)
            torch._foreach_add_(weights, updates, alpha=-rate * max(1.0, rows / columns) ** 0.5)

    def tensors(self) -> dict[str, Tensor]:
        return {f"muon.{name}.momentum": tensor for name, tensor in self.momentum.items()}


class Optimizer:
    """Both optimizers as one: a step, and all of the state as named tensors for a checkpoint."""

    def __init__(self, model: nn.Module, table: OptimizerTable, dtype: torch.dtype = torch.float32) -> None:
        named = dict(model.named_parameters())
        self.named = named
        hidden = {n: w for n, w in named.items() if table.muon_lr > 0 and role_of(n, w) in HIDDEN}
        self.muon = Muon(hidden, table, dtype)
        rest = {n: w for n, w in named.items() if n not in hidden}
        groups = []
        for names, rate, decay in _adamw_groups(rest, table, model):
            if names:
                plain, cautious = (0.0, decay) if table.cautious_decay else (decay, 0.0)
                weights = [rest[n] for n in names]
                groups.append({"params": weights, "peak_lr": rate, "weight_decay": plain, "cautious": cautious})
        self.adamw = torch.optim.AdamW(groups, betas=table.betas, eps=table.epsilon, fused=True)
        self._rest = rest

    def step(self, factor: float, step: int) -> None:
        """One update from the gradients, learning rates scaled by ``factor``; then drop the gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = group["peak_lr"] * factor
            if group["cautious"]:
                self._decay_cautiously(group)
        self.muon.step(factor, step)
        self.adamw.step()
        self.drop_gradients()

    @torch.no_grad()
    def _decay_cautiously(self, group: dict[str, Any]) -> None:
        """The decay of AdamW's next step, whose direction is that of the first moment after it."""
        weights = [weight for weight in group["params"] if weight.grad is not None]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        moments = [self.adamw.state[w].get("exp_avg", torch.zeros_like(w)) for w in weights]
        if weights:
            _decay(
                weights, torch._foreach_lerp(moments, gradients, 1 - group["betas"][0]), group["lr"] * group["cautious"]
            )

    def drop_gradients(self) -> None:
        """Forget the gradients; nothing else changes. This alone is what a skipped step does."""
        for weight in self.named.values():
            weight.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The whole state: momenta and moments by parameter name, and AdamW's step counts."""
        state = self.muon.tensors()
        for name, weight in self._rest.items():
            for key, value in self.adamw.state.get(weight, {}).items():
                state[f"adamw.{name}.{key}"] = value
        return state

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over the state that :meth:`tensors` gave; a weight that has never had a gradient has none with AdamW.
        Raises ``KeyError`` where a tensor is missing."""
        for name, momentum in self.muon.momentum.items():
            momentum.copy_(tensors[f"muon.{name}.momentum"])
        keys = ("step", "exp_avg", "exp_avg_sq")
        for name, weight in self._rest.items():
            if not any(f"adamw.{name}.{key}" in tensors for key in keys):
                continue
            state = {key: tensors[f"adamw.{name}.{key}"].to(weight.device) for key in keys}
            self.adamw.state[weight] = state


def _decay(weights: Sequence[Tensor], updates: Sequence[Tensor], share: float) -> None:
    """Shrink by a share the numbers of the weights whose sign is that of the update, which moves them towards zero
    (cautious weight decay, Chen et al. 2025, arXiv 2510.12402, eq. 1)."""
    for weight, update in zip(weights, updates, strict=True):
        weight.mul_(1 - share * (update * weight >= 0))


def width_factor(table: OptimizerTable, model: nn.Module, exponent: float) -> float:
    """What AdamW's rate of a role is multiplied by: (hidden_size / base_width) ** exponent, or 1 without a base."""
    if table.base_width is None:
        return 1.0
    arch: Any = model.arch
    factor: float = (arch.hidden_size / table.base_width) ** exponent
    return factor


def _adamw_groups(
    rest: dict[str, nn.Parameter], table: OptimizerTable, model: nn.Module
) -> Iterable[tuple[list[str], float, float]]:
    """(names, learning rate, weight decay): tables and head; other matrices; gains, biases and scalars, which never
    decay. For how rates follow the width see ``base_width``."""
    roles = {name: role_of(name, weight) for name, weight in rest.items()}
    gains = [name for name, role in roles.items() if role == "gains"]
    tables = [name for name, role in roles.items() if role in TABLES]
    others = [name for name, role in roles.items() if role != "gains" and role not in TABLES]
    yield tables, table.embedding_lr * width_factor(table, model, TABLE_EXPONENT), table.weight_decay
    yield others, table.adamw_lr * width_factor(table, model, MATRIX_EXPONENT), table.weight_decay
    yield gains, table.adamw_lr, 0.0


@torch.no_grad()
def gradient_norm(model: nn.Module) -> Tensor:
    """The Euclidean norm over all gradients, a float32 scalar on the model's device."""
    gradients = [w.grad for w in model.parameters() if w.grad is not None]
    norm: Tensor = torch.stack(torch._foreach_norm(gradients)).norm()
    return norm
