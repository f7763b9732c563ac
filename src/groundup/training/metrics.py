"""What a logged step says of itself: norms by role, speed and utilisation, memory, and how far into the data it is.

Every key of metrics.jsonl, with its unit, is in docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from groundup.hardware import Peak, peak_resident
from groundup.model import Transformer, palm_flops_per_token
from groundup.run import human
from groundup.tokenizer import Ramp
from groundup.training.failures import is_out_of_memory
from groundup.training.journal import Journal
from groundup.training.objective import Rows, Source
from groundup.training.roles import Role, by_role
from groundup.training.trackers import Trackers

SHOWN_WAIT = 0.01
"""Share of the time spent waiting for rows from which the bar says so."""
Numbers = dict[str, float]


class Metrics:
    """metrics.jsonl, and the trackers that get its lines too.

    A number that is not finite is left out of its line: JSON has none such, and ``skipped`` counts the update.
    """

    def __init__(self, path: Path) -> None:
        self.journal = Journal(path)
        self.trackers: Trackers | None = None
        self.forgotten: dict[str, int] = {}
        """The last step of each key in the lines that :meth:`rewind` cut off."""

    def write(self, record: dict[str, Any]) -> None:
        """Append a line; it has a ``step``."""
        record = {key: value for key, value in record.items() if not isinstance(value, float) or math.isfinite(value)}
        self.journal.write(record)
        if self.trackers is not None:
            self.trackers.log(record)

    def position(self) -> int:
        """Bytes written so far, all of them on the disk when this returns."""
        return self.journal.position()

    def rewind(self, position: int) -> None:
        """Forget every line after ``position``, but for what trackers had been sent of it."""
        self.forgotten = {key: line["step"] for line in self.journal.after(position) if "step" in line for key in line}
        self.journal.rewind(position)

    def close(self) -> None:
        self.journal.close()


@dataclass
class Window:
    """What is counted from one line of metrics.jsonl to the next; seconds are those of updates, waiting apart.

    ``palm_flops`` is None where the model is none that the PaLM convention speaks of.
    """

    tokens: int = 0
    flops: float = 0.0
    palm_flops: float | None = 0.0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, tokens: int, flops: float, palm_flops: float | None, seconds: float, waited: float) -> None:
        """Count one update."""
        self.tokens += tokens
        self.flops += flops
        self.palm_flops = None if self.palm_flops is None or palm_flops is None else self.palm_flops + palm_flops
        self.seconds += seconds
        self.waited += waited

    def rate(self, amount: float) -> float:
        """``amount`` a second."""
        return amount / max(self.seconds, 1e-9)

    @property
    def data_wait(self) -> float:
        """The share of the time that was spent waiting for rows."""
        return self.waited / max(self.seconds + self.waited, 1e-9)

    def speed(self, peak: Peak | None) -> Numbers:
        """The rates of this window; utilisation where there is a peak to measure it against."""
        found = {
            "tokens_per_second": self.rate(self.tokens),
            "data_wait": self.data_wait,
            "gflops": self.rate(self.flops) / 1e9,
        }
        if peak is not None:
            found["mfu"] = found["gflops"] / peak.gflops
            if self.palm_flops is not None:
                found["mfu_palm"] = self.rate(self.palm_flops) / 1e9 / peak.gflops
        return found

    def note(self, loss: float | None) -> str:
        """What the bar shows; None where the last update had nothing to learn."""
        waits = f"  {self.data_wait:.0%} waiting for data" if self.data_wait > SHOWN_WAIT else ""
        said = "no targets" if loss is None else f"loss {loss:.3f}"
        return f"{said}  {human(self.rate(self.tokens))} tok/s{waits}"


def palm_flops(model: nn.Module, rows: Rows) -> float | None:
    """Training FLOPs of rows by the convention of PaLM, padding not counted; None for an encoder-decoder."""
    if not isinstance(model, Transformer):
        return None
    return rows.tokens * palm_flops_per_token(model.arch, rows.length)


class Norms:
    """Euclidean norms of gradients, weights and updates, by role (``roles.py``).

    They are taken on logged steps alone, from numbers that training has anyway, and change none of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.roles = by_role(model.named_parameters())

    def gradients(self) -> Numbers:
        """``grad_norm/ROLE`` of the gradients that there are, before any clipping."""
        held = {role: [w.grad for w in weights if w.grad is not None] for role, weights in self.roles.items()}
        return _norms("grad_norm", held)

    def hold(self) -> Callable[[], Numbers]:
        """Keep a copy of the weights until the function that is returned has been called, after the update.

        That function gives ``weight_norm/ROLE`` (after the update), ``update_norm/ROLE`` (of what was added to the
        weights, weight decay included) and ``update_ratio/ROLE``, the second by the first.

        The copy is of all weights, 4 bytes each, and lives as long as the optimizer's step. The forward pass's
        activations are gone by then, so that it raises the peak of memory only where they take less. Where a GPU has
        no room for it, it is in the host's memory.
        """
        with torch.no_grad():
            before = {role: _copies(weights) for role, weights in self.roles.items()}

        @torch.no_grad()
        def after() -> Numbers:
            changed = {role: _differences(before.pop(role), weights) for role, weights in self.roles.items()}
            sizes, steps = _norms("weight_norm", self.roles), _norms("update_norm", changed)
            ratios = {
                f"update_ratio/{role}": steps[f"update_norm/{role}"] / sizes[f"weight_norm/{role}"]
                for role in self.roles
                if sizes[f"weight_norm/{role}"] > 0
            }
            return {**sizes, **steps, **ratios}

        return after


def _copies(weights: Sequence[Tensor]) -> list[Tensor]:
    try:
        return [weight.detach().clone() for weight in weights]
    except RuntimeError as error:
        if not is_out_of_memory(error) or weights[0].device.type == "cpu":
            raise
    return [weight.detach().to("cpu") for weight in weights]


def _differences(before: list[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """before - weights, in the memory of ``before`` where that is on the same device, else where ``before`` is."""
    if before[0].device == weights[0].device:
        torch._foreach_sub_(before, [weight.detach() for weight in weights])
        return before
    return [old.sub_(weight.detach().to(old.device)) for old, weight in zip(before, weights, strict=True)]


@torch.no_grad()
def _norms(name: str, tensors: dict[Role, list[Tensor]] | dict[Role, list[nn.Parameter]]) -> Numbers:
    """``name/ROLE``, the norm over all tensors of a role; one transfer to the host for all roles together."""
    held = {role: list(group) for role, group in tensors.items() if group}
    if not held:
        return {}
    norms = [torch.stack(torch._foreach_norm(group)).float().norm() for group in held.values()]
    values = torch.stack([norm.to(norms[0].device) for norm in norms]).tolist()
    return {f"{name}/{role}": value for role, value in zip(held, values, strict=True)}


def memory(device: str) -> dict[str, int]:
    """The most memory so far, in bytes: resident in RAM, and on a GPU allocated by tensors and reserved for them."""
    found = {"peak_memory": peak_resident()}
    if device == "cuda":
        found["peak_gpu_memory"] = torch.cuda.max_memory_allocated()
        found["peak_gpu_reserved"] = torch.cuda.max_memory_reserved()
    return found


@runtime_checkable
class Passing(Protocol):
    """A source that knows how often its data have been gone through."""

    def passes(self, step: int) -> float:
        """Passes over the data in the first ``step`` updates; 1.25 is one and a quarter."""
        ...


def epoch(source: Source, step: int) -> Numbers:
    """``epoch`` after so many updates; nothing where the source does not count its passes."""
    counting = source.loader if isinstance(source, Ramp) else source  # a ramp shows its loader's rows, cut shorter
    return {"epoch": counting.passes(step)} if isinstance(counting, Passing) else {}
