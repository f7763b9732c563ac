"""What the drivers of all training stages share: a model to start from, a plan, samples, final weights."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch

from groundup.hardware import Hardware
from groundup.inference import SamplingParams, generate
from groundup.interchange import load_model, save_model
from groundup.model import Transformer, grow_vocabulary
from groundup.recipe import PretrainSection, SftSection, TokenBatches, TrainSection
from groundup.run import UserError, log, read_json, staged_directory
from groundup.tokenizer import Buckets, Loader, PackedRows, Ramp, Tokenizer, TokenShards, UpdateSizes
from groundup.training.budget import Plan, compile_pays, kept_plan, settle
from groundup.training.failures import plain_words
from groundup.training.loop import Job, Trainer, train
from groundup.training.memory import rows_in_pass
from groundup.training.objective import NextToken, Objective, Rows, Source
from groundup.training.trackers import Tracking

SAMPLE_TOKENS = 80
SAMPLE_TEMPERATURE = 0.7
IMPORT_RECORD = "import.json"
"""Lies beside imported weights; its ``tokens`` are the ids that they know, fewer than rows of a padded table."""
PROBED = 5
"""Updates of each kind whose median time a budget of minutes is worked out from."""
SEARCHED = 1000
"""Updates among which the probe looks for those with a target."""


class Passes(Protocol):
    """Data whose updates can be counted: what a budget of epochs or tokens needs."""

    def updates_in(self, epochs: float) -> float:
        """Whole updates in so many passes over the data."""
        ...

    def padding(self) -> float:
        """The share of the places of ``rows_per_update`` whole rows an update that hold no token."""
        ...


@dataclass(frozen=True)
class Phase:
    """A part of a stage in which updates are alike.

    Attributes:
        share: of the stage's steps.
        rows: in an update, of the full length.
        length: of the rows as they are shown.
        source: updates like these, to be timed.
    """

    share: float
    rows: int
    length: int
    source: Source


def make_plan(
    section: TrainSection,
    model: Transformer,
    data: Passes,
    phases: Sequence[Phase],
    objective: Objective,
    *,
    out: Path,
    fingerprint: str,
    hardware: Hardware,
    seed: int,
    filled_up: bool = False,
    one_shape: bool = True,
    sizes: UpdateSizes | None = None,
    available: Callable[[int], int] = lambda steps: steps,
) -> Plan:
    """Settle the stage's plan (see :func:`settle`); a budget of minutes is measured on throw-away updates.

    Args:
        phases: all parts of the stage; updates of the last one are whole.
        filled_up: whether the source fills its updates up to whole micro-batches.
        one_shape: whether all micro-batches of a phase have the same shape, without which compiling doesn't pay.
        sizes: of the updates, where they are not all alike.
        available: of how many updates a stage can be: so many, or fewer.
    """
    length, rows_per_update = section.sequence_length or model.arch.context_length, phases[-1].rows
    if (kept := kept_plan(out, fingerprint)) is not None:
        return kept
    with plain_words(out.name, out):
        micro, recomputed = rows_in_pass(section, model, rows_per_update, length, hardware, divisor=not filled_up)
    tokens = rows_per_update * length * (1 - data.padding())
    sizes = sizes or UpdateSizes(rows_per_update)

    def compiles(steps: int) -> bool:
        if not (hardware.compile and one_shape):
            return False
        shapes = 1 if filled_up else len(shapes_of(phases, length, micro))
        return compile_pays(section, model.arch, sizes.worth(steps), tokens, hardware.device, shapes)

    def seconds_per_update() -> tuple[float, float]:
        trial = Plan("", 1 << 30, rows_per_update, micro, length, compiles(1 << 30), recomputed=recomputed)
        source = phases[-1].source
        job = Job("probe", "probe", out / ".probe", "", model, objective, source, section, trial, hardware, seed, bool)
        there = int(sizes.worth(available(SEARCHED)))  # of whole ones, and as many of any smaller
        return measure_updates(job, [(phase.share, phase.source) for phase in phases], there)

    return settle(
        out,
        fingerprint,
        section,
        rows_per_update=rows_per_update,
        micro=micro,
        recomputed=recomputed,
        sequence_length=length,
        tokens_per_update=tokens,
        updates_in=data.updates_in,
        seconds_per_update=seconds_per_update,
        compiles=compiles,
        available=available,
        steps_for=sizes.fewest,
    )


def shapes_of(phases: Sequence[Phase], length: int, micro: int) -> set[tuple[int, int]]:
    """(rows, their length) of all micro-batches, those of an update's short rest among them.

    ``micro``: rows of ``length`` in a micro-batch; of shorter ones it has as many places.
    """
    found = set()
    for phase in phases:
        rows, most = (count * length // phase.length for count in (phase.rows, micro))
        found |= {(count, phase.length) for count in (min(rows, most), rows % most) if count}
    return found


def measure_updates(job: Job, phases: Sequence[tuple[float, Source]], available: int) -> tuple[float, float]:
    """(mean over the phases of the median seconds of an update, seconds that all this took); weights are put back.

    ``phases``: (share of the steps, source) of updates of each kind. What an update compiles is compiled here.
    """
    updates = [_with_targets(job, source, available) for _, source in phases]
    before = {name: tensor.detach().clone() for name, tensor in job.model.state_dict().items()}
    begun = time.monotonic()
    trainer = Trainer(job)
    seconds = 0.0
    for (share, _), found in zip(phases, updates, strict=True):
        times = []
        for rows in islice(cycle(found), 1 + PROBED):
            at = time.monotonic()
            trainer.update(rows)
            times.append(time.monotonic() - at)
        seconds += share * median(times[1:])  # the first one compiles
    trainer.metrics.close()
    trainer.samples.close()
    shutil.rmtree(job.out)
    job.model.load_state_dict(before)
    return seconds, time.monotonic() - begun


def _with_targets(job: Job, source: Source, available: int) -> list[Rows]:
    """The first updates that have something to learn: others take no time."""
    candidates = map(source.update, range(max(1, available)))
    found = list(islice((rows for rows in candidates if job.objective.count(rows)), 1 + PROBED))
    if not found:
        raise UserError(
            f"the first {available} updates have no target, so there is nothing to time",
            where=f"[{job.out.parent.name}] minutes",
            expected="data with targets all along, or a budget of steps, tokens or epochs",
        )
    return found


Sampler = Callable[[Transformer, int], list[dict[str, Any]]]
Validator = Callable[[Transformer], dict[str, float]]


def sampler(
    prompts: Sequence[str], encode: Callable[[str], list[int]], tokenizer: Tokenizer, stop: int, seed: int
) -> Sampler | None:
    """A function that continues fixed prompts with fixed seeds, so that samples of different steps compare."""
    if not prompts:
        return None
    params = SamplingParams(max_tokens=SAMPLE_TOKENS, temperature=SAMPLE_TEMPERATURE, seed=seed, stop_ids=(stop,))
    encoded = [encode(prompt) for prompt in prompts]

    def sample(model: Transformer, step: int) -> list[dict[str, Any]]:
        completions = generate(model, encoded, params, tokenizer=tokenizer)
        return [
            {"prompt": prompt, "completion": completion.text, "finish_reason": completion.finish_reason}
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    return sample


def save_final(model: Transformer, out: Path) -> None:
    """Write out/final: the weights and their configuration, whole or not at all."""
    with plain_words(out.name, out), staged_directory(out / "final") as directory:
        save_model(model.to(torch.float32), directory)


class PackedPasses:
    """What a plan asks of its data, for packed rows."""

    def __init__(self, rows: PackedRows, rows_per_update: int) -> None:
        self.rows, self.rows_per_update = rows, rows_per_update

    def updates_in(self, epochs: float) -> float:
        """Raises UserError where the sources' `epochs` are used up before the last pass begins."""
        return self.rows.rows_in(epochs) / self.rows_per_update

    def padding(self) -> float:
        return self.rows.padding(self.rows.epochs.first_filled())


class BucketPasses:
    """What a plan asks of its data, for padded buckets."""

    def __init__(self, buckets: Buckets, rows_per_update: int) -> None:
        self.buckets, self.rows_per_update = buckets, rows_per_update

    def updates_in(self, epochs: float) -> float:
        """Raises UserError where the sources' `epochs` are used up before the last pass begins."""
        return self.buckets.epochs.count_in(epochs)

    def padding(self) -> float:
        epochs = self.buckets.epochs
        filled = epochs.first_filled()
        whole = epochs.count(filled) * self.rows_per_update * self.buckets.sequence_length
        return 1 - self.buckets.tokens(filled) / whole


def load_start(start: Path, run: Path, tokenizer: Tokenizer) -> Transformer:
    """The weights that a stage begins from, with a row for each token that the run's tokenizer has beyond theirs.

    RUN/tokenizer/pieces.json says what those tokens are made of. Rows of an imported table that none of its tokens
    used are the first to be filled. Raises UserError where weights and tokenizer are not of one family.
    """
    model = load_model(start)
    record = start.parent / IMPORT_RECORD
    known = read_json(record)["tokens"] if record.exists() else model.arch.vocabulary_size
    wanted = tokenizer.vocabulary_size
    if wanted <= known:
        return model
    recorded = run / "tokenizer" / "pieces.json"
    pieces = {int(number): ids for number, ids in read_json(recorded).items()} if recorded.exists() else {}
    added = {number: ids for number, ids in pieces.items() if number >= known}
    if sorted(added) != list(range(known, wanted)):
        raise UserError(
            f"the weights know {known} tokens and the tokenizer has {wanted}",
            where=str(start),
            expected="weights trained with this tokenizer, or with the vocabulary that it adopts",
        )
    log(f"{wanted - known} tokens are new to the weights: each begins as the mean of its pieces")
    return grow_vocabulary(model, added, used=known)


def train_on_rows(
    section: PretrainSection | SftSection,
    model: Transformer,
    shards: TokenShards,
    *,
    out: Path,
    seed: int,
    hardware: Hardware,
    fingerprint: str,
    should_stop: Callable[[], bool],
    validate: Validator | None,
    sample: Sampler | None,
    tracking: Tracking | None = None,
) -> dict[str, Any]:
    """Next-token training on the rows of ``shards``, from plan to ``out``/final: all that pretraining and SFT share.

    Returns:
        the metrics of :func:`train`, the share of padding and, of packed rows, how often a document was cut.

    Raises:
        UserError: there is nothing to learn from, a ramp does not fit the rows, or the data are used up before the
            budget is.
        GroundupError: a file of the shards isn't what was written.
    """
    shards.require_sound()
    length = section.sequence_length or model.arch.context_length
    require_ramps_fit(section, length, out.name)
    loader, data, figures = open_rows(section, shards, length, seed)
    objective, ramp = NextToken(), [(step.until, step.length) for step in section.sequence_ramp]
    plan = make_plan(
        section,
        model,
        data,
        phases_of(section, loader, length),
        objective,
        out=out,
        fingerprint=fingerprint,
        hardware=hardware,
        seed=seed,
        one_shape=section.packing != "padded",
        sizes=loader.sizes,
        available=loader.first_updates,
    )
    loader.end = plan.steps
    source = Ramp(loader, ramp, plan.steps) if ramp else loader
    job = Job(
        out.name, section.kind, out, fingerprint, model, objective, source, section, plan, hardware, seed, should_stop,
        validate=validate,
        sample=sample,
        tracking=tracking,
    )  # fmt: skip
    metrics = train(job)
    save_final(model, out)
    return {**figures, **metrics}


def require_ramps_fit(section: TokenBatches, length: int, stage: str) -> None:
    """Raise ``UserError`` where the section's ramps don't fit rows of ``length`` tokens: of an import, whose rows the
    recipe doesn't know."""
    try:
        section.require_ramps_fit(length)
    except ValueError as error:
        raise UserError(str(error), where=f"[{stage}]") from None


def phases_of(section: TokenBatches, loader: Loader | Buckets, length: int) -> list[Phase]:
    """The parts of a stage between the steps of its ramps."""
    found, before = [], 0.0
    borders = {step.until for step in section.sequence_ramp} | {step.until for step in section.batch_ramp} | {1.0}
    for until in sorted(borders):
        tokens = next((s.tokens_per_update for s in section.batch_ramp if s.until >= until), section.tokens_per_update)
        shown = next((s.length for s in section.sequence_ramp if s.until >= until), length)
        rows = max(1, tokens // length)
        source: Source = loader.of_size(tokens if isinstance(loader, Buckets) else rows)
        if shown < length:
            source = Ramp(loader.of_size(rows), [(1.0, shown)], SEARCHED)
        found.append(Phase(until - before, rows, shown, source))
        before = until
    return found


def open_rows(
    section: TokenBatches, shards: TokenShards, length: int, seed: int
) -> tuple[Loader | Buckets, Passes, dict[str, float]]:
    """The updates of ``shards`` by the section's way of packing, what a plan asks of them, and figures of the first
    pass: the share of padding and, of packed rows, how often a document was cut."""
    ramp = [(step.until, step.tokens_per_update) for step in section.batch_ramp]
    rows_per_update = max(1, section.tokens_per_update // length)
    if section.packing == "padded":
        buckets = Buckets(shards, length, section.tokens_per_update, seed, ramp=ramp)
        padding = buckets.padding(buckets.epochs.first_filled())
        return buckets, BucketPasses(buckets, rows_per_update), {"padding": padding}
    packed = PackedRows(shards, length, seed, packing=section.packing)
    passes = PackedPasses(packed, rows_per_update)
    figures = {"padding": passes.padding(), "cuts": packed.cuts(packed.epochs.first_filled())}
    return Loader(packed, rows_per_update, ramp=[(until, size // length) for until, size in ramp]), passes, figures
