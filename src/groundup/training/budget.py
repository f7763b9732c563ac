"""The plan of a training stage: how many updates, how many rows at a time. Made once, then kept in the run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundup.hardware import Hardware
from groundup.model import Architecture, flops_per_token, parameter_count
from groundup.recipe import TrainSection
from groundup.run import GroundupError, UserError, read_json, write_json

PLAN = "plan.json"
CPU_TOKENS = 4096
"""Tokens in a micro-batch on a CPU: enough to fill the matrix products, few enough to stay near the caches."""
COMPILE_FLOPS = {"cpu": 1e13, "cuda": 1e16}
"""Training FLOPs from which compiling for one shape pays: about 100 s of uncompiled work on two
CPU cores, a minute on a GPU."""
COMPILE_MINUTES = 2.0
ROUNDING = 0.01
"""Share of the updates by which a budget may exceed the data: epochs differ a little in their rows."""
MEMORY_SHARE = 0.5
"""Share of a GPU's memory that the activations of a micro-batch may take by the estimate."""


@dataclass(frozen=True)
class Plan:
    """What was decided before the first update and is never decided again, but for want of memory (:func:`halve`)."""

    fingerprint: str
    steps: int
    rows_per_update: int
    micro_rows: int
    sequence_length: int
    compiled: bool = False
    halved_at: tuple[int, ...] = ()
    """Updates (from 0) at which memory was not enough and the micro-batch was halved, for good; they don't descend."""

    def micro(self, length: int, step: int) -> int:
        """Rows in one pass of update ``step`` (from 0); where its rows have a lesser ``length``, as many places."""
        whole = self.micro_rows * self.sequence_length // length
        return max(1, whole >> sum(at <= step for at in self.halved_at))


def compile_pays(
    section: TrainSection, arch: Architecture, steps: float, tokens_per_update: float, device: str, shapes: int = 1
) -> bool:
    """Whether a stage is long enough to win back the time that compiling for so many ``shapes`` takes.

    Decided from the work alone, and not by a clock, so that the same recipe decides the same.
    """
    if section.minutes is not None:
        return section.minutes >= shapes * COMPILE_MINUTES
    length = section.sequence_length or arch.context_length
    return steps * tokens_per_update * flops_per_token(arch, length) >= shapes * COMPILE_FLOPS.get(device, math.inf)


def activation_bytes(arch: Architecture, rows: int, length: int) -> float:
    """Bytes of activations that a forward pass keeps for the backward, roughly.

    34 · hidden bytes a token and layer in 16 bit (Korthikanti et al. 2022, arXiv 2205.05198, eq. 1, without the
    attention scores, which SDPA does not keep), and three float32 copies of the logits.
    """
    tokens = rows * length
    return tokens * (arch.layers * 34.0 * arch.hidden_size + 12.0 * arch.vocabulary_size)


def micro_rows(
    section: TrainSection, arch: Architecture, rows: int, length: int, hardware: Hardware, *, divisor: bool = True
) -> int:
    """Rows in one forward pass, as set by the recipe or as memory allows.

    ``divisor``: of ``rows``, so that all micro-batches have one shape; not needed where updates are filled up.
    """
    if isinstance(section.micro_batch, int):
        most = section.micro_batch
    elif hardware.device == "cuda":
        import torch

        free = torch.cuda.mem_get_info()[0] - 16 * parameter_count(arch).total
        most = int(MEMORY_SHARE * free / activation_bytes(arch, 1, length))
    else:
        most = CPU_TOKENS // length
    most = max(1, min(most, rows))
    if not divisor:
        return most
    return max(divisor for divisor in range(1, most + 1) if rows % divisor == 0)


def settle(
    directory: Path,
    fingerprint: str,
    section: TrainSection,
    *,
    rows_per_update: int,
    micro: int,
    sequence_length: int,
    tokens_per_update: float,
    updates_in: Callable[[float], float],
    seconds_per_update: Callable[[], tuple[float, float]],
    compiles: Callable[[float], bool],
    available: Callable[[int], int] = lambda steps: steps,
) -> Plan:
    """The plan kept in ``directory``, or a new one, written there before it is returned.

    Args:
        tokens_per_update: real tokens in an update, padding not counted, on average.
        updates_in: says how many updates so many passes over the data take.
        seconds_per_update: measures (seconds of one update, seconds until training can begin); called for a budget
            of minutes alone.
        compiles: whether a stage of so many updates is to be compiled.
        available: how many of the first so many updates there are: fewer where sources may be read only so often.

    Raises:
        UserError: the budget of minutes is too small, or the data are used up before the budget is.
        GroundupError: the plan that is kept is damaged.
    """
    path = directory / PLAN
    plan = _kept(path)
    if plan is not None and plan.fingerprint == fingerprint:
        return plan
    if section.steps is not None:
        steps = section.steps
    elif section.tokens is not None:
        steps = math.ceil(section.tokens / tokens_per_update)
    elif section.epochs is not None:
        steps = math.ceil(updates_in(section.epochs))
    elif section.minutes is not None:
        each, first = seconds_per_update()
        steps = int((60 * section.minutes - first) / each)
        if steps < 10:
            raise UserError(
                f"a budget of {section.minutes} minutes is only {max(steps, 0)} updates on this machine "
                f"({each:.2f} s each, {first:.0f} s until the first)",
                expected="time for at least 10",
                mend="give more minutes, or make the model or tokens_per_update smaller",
            )
    else:
        raise ValueError("a training section without a budget")
    steps = _within(max(1, steps), available, section)
    plan = Plan(fingerprint, steps, rows_per_update, micro, sequence_length, compiles(steps))
    write_json(path, dataclasses.asdict(plan))
    return plan


def halve(directory: Path, plan: Plan, step: int, rows: int, length: int) -> Plan:
    """The plan with a smaller micro-batch from update ``step`` on, whose ``rows`` of ``length`` places did not fit;
    written to ``directory`` before it is returned.

    The tokens of an update stay, and its gradient but for rounding. A process that goes on from an earlier checkpoint
    uses the former size up to this update and the smaller one from there on, so it reaches the same bits. Where memory
    fails it sooner than that, the halving is moved forward and its bits from there on are its own.

    Raises:
        GroundupError: one row alone does not fit.
    """
    if min(plan.micro(length, step), rows) == 1:
        raise GroundupError(
            f"out of memory at update {step + 1} with a single row of {length} tokens in a pass. Make "
            "sequence_length or the model smaller, or take a machine with more memory."
        )
    before = min(plan.micro(length, step), rows)
    while plan.micro(length, step) >= before:
        later = sorted(at for at in plan.halved_at if at > step)
        plan = dataclasses.replace(plan, halved_at=(*(at for at in plan.halved_at if at <= step), step, *later[1:]))
    write_json(directory / PLAN, dataclasses.asdict(plan))
    return plan


def _kept(path: Path) -> Plan | None:
    """The plan in a file; None where there is none. Raises GroundupError where it can't be read as one."""
    if not path.exists():
        return None
    try:
        content = read_json(path)
        return Plan(**{**content, "halved_at": tuple(content.get("halved_at", ()))})
    except (ValueError, TypeError, AttributeError) as error:
        raise GroundupError(
            f"{path} is damaged ({error}), and what it says is decided only once. Remove {path.parent}, "
            "and the same command makes this stage anew."
        ) from error


def _within(steps: int, available: Callable[[int], int], section: TrainSection) -> int:
    """The steps, less those that rounding took beyond the end of the data."""
    there = available(steps)
    excess = steps - there
    if not there or excess > max(1, ROUNDING * steps) or (excess and section.steps is not None):
        raise UserError(
            f"the budget is {steps} updates, and the corpus is used up after {there}",
            expected="training that ends before its sources' `epochs` are over",
            mend="lower the budget, raise `epochs` in corpus.sources, or add text",
        )
    return there
