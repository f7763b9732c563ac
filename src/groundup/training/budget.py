"""The plan of a training stage: how many updates, how many rows at a time. Made once, then kept in the run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundup.model import Architecture, flops_per_token
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
    recomputed: int = 0
    """Blocks whose activations the backward pass makes again."""

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


def settle(
    directory: Path,
    fingerprint: str,
    section: TrainSection,
    *,
    rows_per_update: int,
    micro: int,
    recomputed: int = 0,
    sequence_length: int,
    tokens_per_update: float,
    updates_in: Callable[[float], float],
    seconds_per_update: Callable[[], tuple[float, float]],
    compiles: Callable[[int], bool],
    available: Callable[[int], int] = lambda steps: steps,
    steps_for: Callable[[float], int] = math.ceil,
) -> Plan:
    """The plan kept in ``directory``, or a new one, written there before it is returned.

    Args:
        micro, recomputed: rows in a pass, and blocks recomputed (see :func:`~groundup.training.memory.rows_in_pass`).
        tokens_per_update: real tokens in a whole update, padding not counted, on average.
        updates_in: says how many whole updates so many passes over the data take.
        seconds_per_update: measures (seconds of one update, seconds until training can begin); called for a budget
            of minutes alone.
        compiles: whether a stage of so many updates is to be compiled.
        available: of how many updates a stage can be, so many or fewer where sources may be read only so often.
        steps_for: how many updates read as much as so many whole ones: more where some are smaller.

    Raises:
        UserError: the budget of minutes is too small, or the data are used up before the budget is.
        GroundupError: the plan that is kept is damaged.
    """
    plan = kept_plan(directory, fingerprint)
    if plan is not None:
        return plan
    if section.steps is not None:
        steps = section.steps
    elif section.tokens is not None:
        steps = steps_for(section.tokens / tokens_per_update)
    elif section.epochs is not None:
        steps = steps_for(updates_in(section.epochs))
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
    plan = Plan(fingerprint, steps, rows_per_update, micro, sequence_length, compiles(steps), recomputed=recomputed)
    write_json(directory / PLAN, dataclasses.asdict(plan))
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
            f"out of memory at update {step + 1} with a single row of {length} tokens in a pass. Raise "
            "recomputed_blocks, make sequence_length or the model smaller, or take a machine with more memory."
        )
    before = min(plan.micro(length, step), rows)
    while plan.micro(length, step) >= before:
        later = sorted(at for at in plan.halved_at if at > step)
        plan = dataclasses.replace(plan, halved_at=(*(at for at in plan.halved_at if at <= step), step, *later[1:]))
    write_json(directory / PLAN, dataclasses.asdict(plan))
    return plan


def kept_plan(directory: Path, fingerprint: str) -> Plan | None:
    """The plan in ``directory``; None where there is none, or one of other inputs. Raises GroundupError where it is
    damaged."""
    path = directory / PLAN
    if not path.exists():
        return None
    try:
        content = read_json(path)
        plan = Plan(**{**content, "halved_at": tuple(content.get("halved_at", ()))})
    except (ValueError, TypeError, AttributeError) as error:
        raise GroundupError(
            f"{path} is damaged ({error}), and what it says is decided only once. Remove {path.parent}, "
            "and the same command makes this stage anew."
        ) from error
    return plan if plan.fingerprint == fingerprint else None


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
