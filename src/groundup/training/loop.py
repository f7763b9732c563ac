"""The one training loop. Pretraining, SFT, DPO and translation differ in their rows and their objective, not here.

    rows of update n -> micro-batches -> summed losses / one count -> gradients -> guard -> optimizer -> checkpoint

Update n is a function of the weights, the optimizer and n alone, so a process that dies at any moment is replaced
by one that reads the last checkpoint and reaches the same bits.
"""

from __future__ import annotations

import gc
import math
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.hardware import Hardware
from groundup.model import train_in_fp8
from groundup.recipe import TrainSection
from groundup.run import Interrupted, log, progress
from groundup.tokenizer import Prefetch
from groundup.training.budget import Plan, halve
from groundup.training.checkpoint import Buffers, Snapshot, Writer, newest_sound
from groundup.training.compute import autocast, compiled, held_garbage, product_dtype
from groundup.training.failures import is_out_of_memory, plain_words, release_memory
from groundup.training.guard import Guard
from groundup.training.journal import Journal, read_journal
from groundup.training.memory import recompute
from groundup.training.metrics import Metrics, Norms, Window, epoch, memory, palm_flops
from groundup.training.objective import Objective, Rows, Source, micro_batches
from groundup.training.optimizers import Optimizer, gradient_norm
from groundup.training.schedule import lr_factor
from groundup.training.trackers import Trackers, Tracking
from groundup.training.watchdog import Watchdog


@dataclass(frozen=True)
class Job:
    """Everything the loop needs to know about a training stage. Of the model only the objective knows more."""

    stage: str
    kind: str
    out: Path
    fingerprint: str
    model: nn.Module
    objective: Objective
    source: Source
    section: TrainSection
    plan: Plan
    hardware: Hardware
    seed: int
    should_stop: Callable[[], bool]
    validate: Callable[[Any], dict[str, float]] | None = None
    sample: Callable[[Any, int], list[dict[str, Any]]] | None = None
    tracking: Tracking | None = None


@dataclass
class Progress:
    """What the loop counts. It is part of every checkpoint."""

    step: int = 0
    tokens: int = 0
    rows: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    without_targets: int = 0
    last: dict[str, float] = field(default_factory=dict)


class Trainer:
    """The state of one training stage and the steps that change it."""

    def __init__(self, job: Job) -> None:
        self.job, self.plan = job, job.plan
        self.model = job.model.to(job.hardware.device).train()
        if job.hardware.precision == "fp8":
            train_in_fp8(self.model)
        recompute(self.model, job.plan.recomputed)
        self.optimizer = Optimizer(self.model, job.section.optimizer, product_dtype(job.hardware))
        self.loss = compiled(job.objective.loss) if job.plan.compiled else job.objective.loss
        self.guard = Guard()
        self.weight_buffers, self.state_buffers = Buffers(), Buffers()
        self.done = Progress()
        job.out.mkdir(parents=True, exist_ok=True)
        self.norms = Norms(self.model)
        self.metrics = Metrics(job.out / "metrics.jsonl")
        self.samples = Journal(job.out / "samples.jsonl")
        self.data_start = 0.0

    @property
    def logs(self) -> bool:
        """Whether the update made last has a line of metrics.jsonl."""
        step = self.done.step
        return step % self.job.section.log_every == 0 or step in (1, self.job.plan.steps)

    def flops(self, rows: Rows) -> float:
        """Training FLOPs of an update, padding not counted."""
        return self.job.objective.flops(self.model, rows)

    def gradients(self, rows: Rows) -> tuple[float, dict[str, float]]:
        """Leave the update's gradient in the weights; return its loss, and ``grad_norm`` and the objective's other
        means.

        Every micro-batch is divided by the count of the whole update, so their number does not matter. Of no rows at
        all the loss and the gradient are 0. The numbers leave the device together, when all work is under way.
        """
        job, total = self.job, self.job.objective.count(rows)
        if not len(rows):
            for weight in self.model.parameters():
                weight.grad = torch.zeros_like(weight)
            return 0.0, {"grad_norm": 0.0}
        sums: dict[str, Tensor] = {}
        micro = self.plan.micro(rows.length, self.done.step - 1)
        for batch in micro_batches(rows, micro, job.hardware.device):
            with autocast(job.hardware):
                loss, reported = self.loss(self.model, batch)
            torch.autograd.backward(loss / max(total, 1))
            for name, value in {"loss": loss, **reported}.items():
                value = value.detach().float()
                sums[name] = sums[name] + value if name in sums else value
        norm, *values = torch.stack([gradient_norm(self.model), *sums.values()]).tolist()
        means = {name: value / max(total, 1) for name, value in zip(sums, values, strict=True)}
        return means.pop("loss"), {**means, "grad_norm": norm}

    def fitting_gradients(self, rows: Rows) -> tuple[float, dict[str, float]]:
        """:meth:`gradients`; where memory is not enough, again from the beginning with a smaller micro-batch.

        Raises:
            GroundupError: a single row does not fit.
        """
        job, step = self.job, self.done.step - 1
        while True:
            # Dropout is drawn anew for each update, whatever was drawn before: by an earlier stage, another process,
            # or this update's beginning.
            torch.manual_seed(zlib.crc32(f"{job.seed}/{job.stage}/{step}".encode()))
            try:
                return self.gradients(rows)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Only here, where the error is gone, is nothing of its pass held any more.
            self.optimizer.drop_gradients()
            self.plan = halve(job.out, self.plan, step, len(rows), rows.length)
            if self.plan.compiled:  # graphs of the former shapes are of no use
                torch.compiler.reset()
                self.loss = compiled(job.objective.loss)
            release_memory()
            micro = self.plan.micro(rows.length, step)
            log(f"step {step + 1}: out of memory; from here on {micro} rows in a pass, as many tokens in an update")

    def update(self, rows: Rows) -> dict[str, float]:
        """One update of the weights, or none if the guard refuses it or it has no target. Returns what to report."""
        job, step = self.job, self.done.step
        factor = lr_factor(step, job.plan.steps, job.section.schedule)
        self.done.step += 1
        self.done.tokens += rows.tokens
        self.done.rows += len(rows)
        if not job.objective.count(rows):  # a norm of 0 would teach the guard that every other one is a spike
            self.done.without_targets += 1
            return {"lr": factor, **self.counts()}
        loss, means = self.fitting_gradients(rows)
        norm, report = means["grad_norm"], self.norms.gradients() if self.logs else {}
        accepted = self.guard.accepts(loss, norm, step)
        if accepted:
            clip = job.section.optimizer.grad_clip
            if clip is not None and norm > clip:
                torch._foreach_mul_([w.grad for w in self.model.parameters() if w.grad is not None], clip / norm)
            moved = self.norms.hold() if self.logs else dict
            self.optimizer.step(factor, step)
            report |= moved()
        else:
            self.optimizer.drop_gradients()
            log(f"step {step + 1}: update skipped, {self.guard.reason}: loss {loss:.4g}, gradient norm {norm:.4g}")
        return {"loss": loss, **means, "lr": factor, **report, **self.counts()}

    def counts(self) -> dict[str, int]:
        """Updates that changed nothing so far, refused by the guard and without a target; whole rows in a pass."""
        micro = self.plan.micro(self.plan.sequence_length, self.done.step - 1)
        return {"skipped": self.guard.skipped, "without_targets": self.done.without_targets, "micro_rows": micro}

    def snapshot(self) -> Snapshot:
        """Copies of everything a resumed process needs, in the memory of the copies before."""
        trainer = {
            "tokens": self.done.tokens,
            "rows": self.done.rows,
            "seconds": self.done.seconds,
            "waited": self.done.waited,
            "without_targets": self.done.without_targets,
            "last": dict(self.done.last),
            "guard": self.guard.state(),
            "metrics_position": self.metrics.position(),
            "samples_position": self.samples.position(),
        }
        weights = self.weight_buffers.copies(dict(self.model.named_parameters()))
        return Snapshot(self.done.step, weights, self.state_buffers.copies(self.optimizer.tensors()), trainer)

    def restore(self, snapshot: Snapshot) -> None:
        """Become what the snapshot was."""
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                weight.copy_(snapshot.model[name])
        self.optimizer.load(snapshot.optimizer)
        trainer = snapshot.trainer
        self.done = Progress(
            snapshot.step,
            trainer["tokens"],
            trainer.get("rows", 0),
            trainer["seconds"],
            trainer.get("waited", 0.0),
            trainer.get("without_targets", 0),
            trainer["last"],
        )
        self.guard.restore(trainer["guard"])
        self.metrics.rewind(trainer["metrics_position"])
        self.samples.rewind(trainer["samples_position"])


def train(job: Job) -> dict[str, Any]:
    """Train to the end of the plan, from the newest sound checkpoint where there is one.

    Returns:
        metrics of the stage: steps, tokens, seconds, the last loss and validation, updates skipped,
        ``without_targets``, updates with nothing to learn, which count as steps and change nothing, and
        ``data_wait``, the share of the steps' time spent waiting for rows (that for the first update counts apart,
        as ``data_start`` seconds).

    Raises:
        Interrupted: ``job.should_stop`` said so; a checkpoint has been saved.
        GroundupError: the guard gave up, or memory or disk are too small.
    """
    with plain_words(job.stage, job.out), ExitStack() as closing:
        root = job.out / "checkpoints"
        root.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(job)
        closing.callback(trainer.metrics.close)
        closing.callback(trainer.samples.close)
        found = newest_sound(root, job.fingerprint)
        if found is not None:
            trainer.restore(found)
            log(f"{job.stage}: going on from step {found.step} of {job.plan.steps}")
        else:
            trainer.metrics.rewind(0)
            trainer.samples.rewind(0)
        if job.tracking is not None:
            lines = read_journal(job.out / "metrics.jsonl")
            begun = Trackers.begin(job.tracking, job.out, trainer.done.step, lines, trainer.metrics.forgotten)
            trainer.metrics.trackers = closing.enter_context(begun)
        identity = {"stage": job.stage, "kind": job.kind, "fingerprint": job.fingerprint}
        writer = Writer(root, **identity, keep=job.section.keep_checkpoints)
        closing.callback(writer.close)
        watchdog = Watchdog(job.out / "stacks.txt")
        closing.callback(watchdog.close)
        closing.enter_context(held_garbage())
        _run(trainer, writer, watchdog, resumed=found is not None)
    done = trainer.done
    return {
        "steps": done.step,
        "tokens": done.tokens,
        "seconds": done.seconds,
        "tokens_per_second": done.tokens / max(done.seconds, 1e-9),
        **trainer.counts(),
        "data_wait": done.waited / max(done.seconds + done.waited, 1e-9),
        "data_start": trainer.data_start,
        **done.last,
    }


def _run(trainer: Trainer, writer: Writer, watchdog: Watchdog, resumed: bool) -> None:
    job, done = trainer.job, trainer.done
    section, steps = job.section, job.plan.steps
    saved_at = time.monotonic()
    watchdog.begins(done.step + 1)
    if resumed:
        _observe(trainer)  # a checkpoint is saved before what follows its step
    with Prefetch(job.source, done.step, steps) as updates, progress(job.stage, total=steps, unit="step") as bar:
        bar.update(done.step)
        window, waited = Window(), 0.0
        for rows in updates:
            begun = time.monotonic()
            report = trainer.update(rows)
            elapsed, wait = time.monotonic() - begun, updates.waited - waited
            trainer.data_start, waited = updates.started, updates.waited
            done.seconds += elapsed
            done.waited += wait
            window.add(rows.tokens, trainer.flops(rows), palm_flops(trainer.model, rows), elapsed, wait)
            bar.update(done.step)
            if trainer.logs:
                _log_step(trainer, report, window)
                bar.note(window.note(report.get("loss")))
                window = Window()
            stop = job.should_stop()
            overdue = time.monotonic() - saved_at > 60 * section.checkpoint_minutes
            due = section.checkpoint_every and done.step % section.checkpoint_every == 0
            if stop or overdue or due or _observation_due(trainer) or done.step == steps:
                writer.save(trainer.snapshot)
                gc.collect()
                saved_at = time.monotonic()
            if stop and done.step < steps:
                writer.wait()
                raise Interrupted(f"{job.stage}: stopped at step {done.step} of {steps}; a checkpoint is saved")
            _observe(trainer)
            writer.check()
            watchdog.begins(done.step + 1)


def _log_step(trainer: Trainer, report: dict[str, float], window: Window) -> None:
    done = trainer.done
    record = {
        "step": done.step,
        "tokens": done.tokens,
        "rows": done.rows,
        **epoch(trainer.job.source, done.step),
        **report,
        **window.speed(trainer.job.hardware.peak),
        "seconds": done.seconds,
        **memory(trainer.job.hardware.device),
    }
    trainer.metrics.write(record)
    if math.isfinite(report.get("loss", math.nan)):  # a refused update may have none
        done.last["loss"] = report["loss"]


def _due(every: int, step: int, steps: int) -> bool:
    return step == steps or (every > 0 and step % every == 0)


def _observation_due(trainer: Trainer) -> bool:
    job, step = trainer.job, trainer.done.step
    validates = job.validate is not None and _due(job.section.validate_every, step, job.plan.steps)
    return validates or (job.sample is not None and _due(job.section.sample_every, step, job.plan.steps))


def _observe(trainer: Trainer) -> None:
    """Validation and samples that are due at this step. They change no weight and draw from no shared generator."""
    job, done = trainer.job, trainer.done
    trainer.model.eval()
    try:
        if job.validate is not None and _due(job.section.validate_every, done.step, job.plan.steps):
            measured = job.validate(trainer.model)
            trainer.metrics.write({"step": done.step, "tokens": done.tokens, "seconds": done.seconds, **measured})
            done.last.update({name: value for name, value in measured.items() if math.isfinite(value)})
        if job.sample is not None and _due(job.section.sample_every, done.step, job.plan.steps):
            for record in job.sample(trainer.model, done.step):
                trainer.samples.write({"step": done.step, "tokens": done.tokens, **record})
    finally:
        trainer.model.train()
