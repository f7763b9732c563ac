"""What the drivers of all training stages share: a model to start from, a plan, samples, final weights."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from groundup.hardware import Hardware
from groundup.inference import SamplingParams, generate
from groundup.interchange import load_model, save_model
from groundup.model import Transformer, grow_vocabulary
from groundup.recipe import PretrainSection, SftSection, TrainSection
from groundup.run import UserError, log, read_json, staged_directory
from groundup.tokenizer import Buckets, Loader, PackedRows, Ramp, Tokenizer, TokenShards
from groundup.training.budget import Plan, compile_pays, settle
from groundup.training.budget import micro_rows as rows_for
from groundup.training.loop import Job, Trainer, train
from groundup.training.objective import NextToken, Objective, Source

SAMPLE_TOKENS = 80
SAMPLE_TEMPERATURE = 0.7


class Epochs(Protocol):
    """Rows whose number in an epoch is known: what a budget of epochs or tokens needs."""

    def rows(self, epoch: int) -> int: ...

    def padding(self, epoch: int = 0) -> float: ...


def make_plan(
    section: TrainSection,
    model: Transformer,
    rows: Epochs,
    source_of: Callable[[int], Source],
    objective: Objective,
    *,
    rows_per_update: int,
    out: Path,
    fingerprint: str,
    hardware: Hardware,
    seed: int,
    filled_up: bool = False,
    one_shape: bool = True,
    available: Callable[[int], int] = lambda steps: steps,
) -> Plan:
    """Settle the stage's plan (see :func:`settle`); a budget of minutes is measured on throw-away updates.

    Args:
        filled_up: whether the source fills its updates up to whole micro-batches.
        one_shape: whether all micro-batches have the same shape, without which compiling doesn't pay.
        available: how many of the first so many updates there are.
    """
    length = section.sequence_length or model.arch.context_length
    micro = rows_for(section, model.arch, rows_per_update, length, hardware, divisor=not filled_up)
    tokens = rows_per_update * length * (1 - rows.padding(0))

    def compiles(steps: float) -> bool:
        wanted = hardware.compile and one_shape
        return wanted and compile_pays(section, model.arch, steps, tokens, hardware.device)

    def seconds_per_update() -> tuple[float, float]:
        trial = Plan("", 1 << 30, rows_per_update, micro, length, compiles(math.inf))
        return _measure(section, model, source_of(rows_per_update), objective, trial, out, hardware, seed)

    return settle(
        out,
        fingerprint,
        section,
        rows_per_update=rows_per_update,
        micro=micro,
        sequence_length=length,
        tokens_per_update=tokens,
        updates_per_epoch=rows.rows(0) / rows_per_update,
        seconds_per_update=seconds_per_update,
        compiles=compiles,
        available=available,
    )


def _measure(
    section: TrainSection,
    model: Transformer,
    source: Source,
    objective: Objective,
    plan: Plan,
    out: Path,
    hardware: Hardware,
    seed: int,
    repeats: int = 5,
) -> tuple[float, float]:
    """(median seconds of an update, seconds until the first was done), with the weights put back afterwards."""
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    scratch = out / ".probe"
    job = Job("probe", "probe", scratch, "", model, objective, source, section, plan, hardware, seed, lambda: False)
    begun = time.monotonic()
    trainer = Trainer(job)
    trainer.update(source.update(0))
    first = time.monotonic() - begun
    times = []
    for step in range(1, 1 + repeats):
        begun = time.monotonic()
        trainer.update(source.update(step))
        times.append(time.monotonic() - begun)
    trainer.metrics.close()
    trainer.samples.close()
    shutil.rmtree(scratch)
    model.load_state_dict(before)
    return sorted(times)[repeats // 2], first


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
    with staged_directory(out / "final") as directory:
        save_model(model.to(torch.float32), directory)


class BucketEpochs:
    """What a plan asks of rows, for padded buckets: their updates, each counted as ``rows_per_update`` whole rows."""

    def __init__(self, buckets: Buckets, rows_per_update: int) -> None:
        self.buckets, self.rows_per_update = buckets, rows_per_update

    def rows(self, epoch: int) -> int:
        """As many as make the epoch's number of updates."""
        return self.buckets.epochs.count(epoch) * self.rows_per_update

    def padding(self, epoch: int = 0) -> float:
        """The share of those rows' places without a token."""
        return 1 - self.buckets.tokens(epoch) / max(1, self.rows(epoch) * self.buckets.sequence_length)


def load_start(start: Path, run: Path, tokenizer: Tokenizer) -> Transformer:
    """The weights that a stage begins from, with a row for each token that the run's tokenizer has beyond theirs.

    RUN/tokenizer/pieces.json says what those tokens are made of. Raises UserError where weights and tokenizer are not
    of one family.
    """
    model = load_model(start)
    known, wanted = model.arch.vocabulary_size, tokenizer.vocabulary_size
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
    return grow_vocabulary(model, added)


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
) -> dict[str, Any]:
    """Next-token training on the rows of ``shards``, from plan to ``out``/final: all that pretraining and SFT share.

    Returns:
        the metrics of :func:`train`, the share of padding and, of packed rows, how often a document was cut.

    Raises:
        UserError: there is nothing to learn from, ``sequence_ramp`` does not fit the rows, or the data are used up
            before the budget is.
        GroundupError: a file of the shards isn't what was written.
    """
    shards.require_sound()
    objective = NextToken()
    length = section.sequence_length or model.arch.context_length
    for step in section.sequence_ramp:
        if step.length >= length or length % step.length:
            raise UserError(
                f"rows of {length} tokens can't be shown as rows of {step.length}",
                where=f"[{out.name}] sequence_ramp",
                expected=f"lengths that divide {length} and are less",
            )
    rows_per_update = max(1, section.tokens_per_update // length)
    loader: Loader | Buckets
    rows: Epochs
    if section.packing == "padded":
        loader = buckets = Buckets(shards, length, section.tokens_per_update, seed)
        rows, figures = BucketEpochs(buckets, rows_per_update), {"padding": buckets.padding()}
    else:
        rows = packed = PackedRows(shards, length, seed, packing=section.packing)
        loader, figures = Loader(packed, rows_per_update), {"padding": packed.padding(), "cuts": packed.cuts()}
    plan = make_plan(
        section,
        model,
        rows,
        lambda _: loader,
        objective,
        rows_per_update=rows_per_update,
        out=out,
        fingerprint=fingerprint,
        hardware=hardware,
        seed=seed,
        one_shape=section.packing != "padded",
        available=loader.first_updates,
    )
    ramp = [(step.until, step.length) for step in section.sequence_ramp]
    job = Job(
        stage=out.name,
        kind=section.kind,
        out=out,
        fingerprint=fingerprint,
        model=model,
        objective=objective,
        source=Ramp(loader, ramp, plan.steps) if ramp else loader,
        section=section,
        plan=plan,
        hardware=hardware,
        seed=seed,
        should_stop=should_stop,
        validate=validate,
        sample=sample,
    )
    metrics = train(job)
    save_final(model, out)
    return {**figures, **metrics}
