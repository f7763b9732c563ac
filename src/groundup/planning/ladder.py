"""The ladder: rung after rung is trained and measured, and each next loss is written down before it is known.

    for each rung:  law of the rungs before -> prediction.json -> training -> result.json -> outcome.json
    at the end:     law of all rungs -> ladder.json

Each file appears whole, in this order, and what is there is never made again: a killed ladder carries on at the rung
and the update it was at, and a prediction stays as it was written.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup.hardware import Hardware
from groundup.model import Architecture, Transformer, flops_per_token, fresh_model, parameter_count
from groundup.planning.scaling import UNKNOWNS, Estimate, LawFit, fit_huber, fit_law
from groundup.recipe import LadderSection, ModelSection, PretrainSection, Rung, rung_model
from groundup.run import UserError, fingerprint, log, now, read_json, write_json
from groundup.tokenizer import Tokenizer, TokenShards
from groundup.training import Tracking, open_rows, prepare, require_ramps_fit, sampler, train_on_rows, validator

Facts = dict[str, Any]
LADDER = "ladder.json"
FURTHER = 4.0
"""The forecast is for this much more compute than the last rung's, where `[model]` is no larger than that rung."""


@dataclass(frozen=True)
class Cost:
    """What it takes to train a model of a ladder's section.

    Attributes:
        multiplying: parameters that multiply a token's activations, the head's among them.
        tokens: that a run reads.
        compute: training FLOPs of a run, attention included (see ``flops_per_token``).
    """

    multiplying: int
    tokens: int
    compute: float


@dataclass(frozen=True)
class Size(Cost):
    """A rung with its cost."""

    rung: Rung
    arch: Architecture

    @property
    def name(self) -> str:
        return self.rung.label


def ladder(
    section: LadderSection,
    model_section: ModelSection,
    *,
    run: Path,
    out: Path,
    seed: int,
    hardware: Hardware,
    fingerprint: str,
    should_stop: Callable[[], bool],
    tracking: Tracking | None = None,
) -> Facts:
    """Train every rung on RUN/tokenizer/shards/train, each loss but the first three's foretold.

    Writes ``out``/rungs/NAME/ (checkpoints, metrics.jsonl, final, result.json; of foretold rungs prediction.json and
    outcome.json) and ``out``/ladder.json.

    Returns:
        the law, and the last rung's prediction and outcome; tokens and seconds of all runs.

    Raises:
        UserError: too little text for the largest rung, none to validate with, rungs that don't grow, or a rung that
            has begun and whose prediction is gone.
        Interrupted: ``should_stop`` said so; a checkpoint has been saved.
    """
    climb = Climb(section, model_section, run, out, seed, hardware, fingerprint, should_stop, tracking)
    climb.require_data()
    for place in range(len(climb.sizes)):
        climb.climb(place)
    return climb.finish()


def cost_of(section: LadderSection, arch: Architecture) -> Cost:
    """What a model of this shape costs in rows of the ladder's length."""
    multiplying = round(flops_per_token(arch, 0) / 6)
    tokens = round(section.tokens_per_parameter * multiplying)
    compute = tokens * flops_per_token(arch, section.sequence_length or arch.context_length)
    return Cost(multiplying, tokens, compute)


def size_of(section: LadderSection, model: ModelSection, rung: Rung, vocabulary_size: int) -> Size:
    """A rung of `[model]`'s kind, and its cost."""
    arch = Architecture.from_section(rung_model(model, rung), vocabulary_size)
    return Size(**asdict(cost_of(section, arch)), rung=rung, arch=arch)


def training_section(section: LadderSection, size: Size) -> PretrainSection:
    """The section of a rung's pretraining: the ladder's, with the rung's tokens as its budget."""
    shared = PretrainSection.model_fields.keys() & LadderSection.model_fields.keys() - {"kind"}
    values = section.model_dump(include=set(shared))
    if size.rung.optimizer is not None:
        values["optimizer"] = size.rung.optimizer.model_dump()
    return PretrainSection.model_validate({**values, "tokens": size.tokens})


def rung_seed(seed: int, number: int) -> int:
    """The seed of a rung's run, counted from 0: the run's own for the first."""
    return seed if not number else zlib.crc32(f"{seed}/ladder/{number}".encode()) >> 1


def run_directory(out: Path, name: str, number: int) -> Path:
    """Where a rung's run lies: ``out``/rungs/NAME, and NAME.seed2 and so on for further seeds."""
    return out / "rungs" / (name if not number else f"{name}.seed{number + 1}")


class Climb:
    """A ladder being climbed: its sizes, and what has been measured so far."""

    def __init__(
        self,
        section: LadderSection,
        model_section: ModelSection,
        run: Path,
        out: Path,
        seed: int,
        hardware: Hardware,
        identity: str,
        should_stop: Callable[[], bool],
        tracking: Tracking | None = None,
    ) -> None:
        self.section, self.model_section, self.out, self.seed = section, model_section, out, seed
        self.hardware, self.identity, self.should_stop, self.tracking = hardware, identity, should_stop, tracking
        self.shards = run / "tokenizer" / "shards"
        self.tokenizer = Tokenizer.load(run / "tokenizer")
        vocabulary = self.tokenizer.vocabulary_size
        self.sizes = [size_of(section, model_section, rung, vocabulary) for rung in section.rungs]
        self.length = section.sequence_length or model_section.context_length
        self.measured: list[list[Facts]] = []
        for before, after in zip(self.sizes, self.sizes[1:], strict=False):
            if after.compute <= before.compute:
                raise UserError(
                    f"rung {after.name!r} takes {after.compute:.3g} FLOPs, no more than {before.name!r} before it "
                    f"with {before.compute:.3g}",
                    where=f"[{out.name}] rungs",
                    expected="rungs from the smallest to the largest",
                )

    def require_data(self) -> None:
        """Raise UserError now, not at the last rung, where there is too little text for it, or none to measure on."""
        self.measure()
        largest = max(self.sizes, key=lambda size: size.tokens)
        section = training_section(self.section, largest)
        require_ramps_fit(section, self.length, self.out.name)
        loader, passes, _ = open_rows(section, TokenShards(self.shards / "train"), self.length, self.seed)
        each = max(1, section.tokens_per_update // self.length) * self.length * (1 - passes.padding())
        tokens = passes.updates_in(1.0) * each
        there = loader.first_updates(loader.sizes.fewest(largest.tokens / each) + 1)
        most = min(self.section.max_epochs * tokens, loader.sizes.worth(there) * each)
        if largest.tokens > most:
            raise UserError(
                f"rung {largest.name!r} reads {largest.tokens:,} tokens ({self.section.tokens_per_parameter:g} for "
                f"each of {largest.multiplying:,} parameters), and the corpus has {round(tokens):,}",
                where=f"[{self.out.name}] rungs",
                expected=f"{round(most):,} tokens at most: {self.section.max_epochs:g} passes, or what the sources' "
                "`epochs` allow",
                mend="add text, lower tokens_per_parameter, leave the largest rung out, or raise max_epochs",
            )

    def climb(self, place: int) -> None:
        """One rung: foretell, train, compare."""
        size = self.sizes[place]
        prediction = self.foretell(place)
        self.measured.append([self.train(size, number) for number in range(size.rung.seeds)])
        if prediction is not None:
            self.compare(size, prediction)

    def fit(self, count: int) -> LawFit:
        """The law of the first rungs."""
        losses = [[result["bits_per_byte"] for result in results] for results in self.measured[:count]]
        return fit_law([size.compute for size in self.sizes[:count]], losses)

    def foretell(self, place: int) -> Facts | None:
        """The prediction for a rung, written before its training begins; None where rungs are too few for a law."""
        if place < UNKNOWNS:
            return None
        size = self.sizes[place]
        path = run_directory(self.out, size.name, 0) / "prediction.json"
        known = self.known(path)
        if known is not None:
            return known
        if path.with_name("plan.json").exists():
            raise UserError(
                f"rung {size.name!r} has begun, and what was foretold of it is gone",
                where=str(path),
                expected="predictions that are older than their outcomes",
                mend=f"remove {path.parent}, so that the rung is foretold and trained anew",
            )
        fit = self.fit(place)
        prediction = {
            "rung": size.name,
            **self.estimate(fit, size.compute, place),
            "tokens": size.tokens,
            "law": asdict(fit.law),
            "exponent": asdict(fit.exponent),
            "floor": asdict(fit.floor),
            "sigma": fit.sigma,
            "degrees": fit.degrees,
            "from": [
                {"rung": below.name, "compute": below.compute, "bits_per_byte": [run["bits_per_byte"] for run in runs]}
                for below, runs in zip(self.sizes[:place], self.measured, strict=True)
            ],
            "written": now(),
            "fingerprint": self.identity,
        }
        write_json(path, prediction)
        log(f"{size.name}: foretold {_words(prediction)} bits per byte, from {place} rungs")
        return prediction

    def estimate(self, fit: LawFit, compute: float, count: int) -> Facts:
        """The law's loss for so much compute, its interval, and what Huber's fit of the same runs says."""
        estimate: Estimate = fit.predict(compute)
        runs = [
            (size.compute, result["bits_per_byte"])
            for size, results in zip(self.sizes[:count], self.measured, strict=False)
            for result in results
        ]
        second = fit_huber([each for each, _ in runs], [loss for _, loss in runs])(compute)
        return {"compute": compute, "unit": "bits per byte", "level": 0.95, **asdict(estimate), "huber": second}

    def train(self, size: Size, number: int) -> Facts:
        """One run of a rung: from fresh weights to its result, which is read where it is there."""
        out = run_directory(self.out, size.name, number)
        known = self.known(out / "result.json")
        if known is not None:
            return known
        prepare(self.hardware)  # forgets what was compiled for other rungs
        seed = rung_seed(self.seed, number)
        section = training_section(self.section, size)
        model = fresh_model(size.arch, seed).to(self.hardware.device)
        metrics = train_on_rows(
            section,
            model,
            TokenShards(self.shards / "train"),
            out=out,
            seed=seed,
            hardware=self.hardware,
            fingerprint=fingerprint({"ladder": self.identity, "rung": size.name, "run": number}),
            should_stop=self.should_stop,
            tracking=self.tracking,
            validate=validator(self.shards / "validation", self.tokenizer, self.length, self.hardware.device),
            sample=sampler(
                section.sample_prompts, self.tokenizer.encode, self.tokenizer, self.tokenizer.endoftext, seed
            ),
        )
        result = {
            "rung": size.name,
            "seed": seed,
            "layers": size.arch.layers,
            "hidden_size": size.arch.hidden_size,
            "parameters": parameter_count(size.arch).total,
            "multiplying": size.multiplying,
            "compute": size.compute,
            **{name: metrics[name] for name in ("tokens", "steps", "seconds", "tokens_per_second")},
            **self.measure()(model.eval()),
            "fingerprint": self.identity,
        }
        write_json(out / "result.json", result)
        log(f"{out.name}: {result['bits_per_byte']:.4f} bits per byte after {size.compute:.3g} FLOPs")
        return result

    def measure(self) -> Callable[[Transformer], dict[str, float]]:
        """What measures a model on the validation documents, the same for all rungs. Raises UserError without any."""
        directory, tokens = self.shards / "validation", self.section.validation_tokens
        measure = validator(directory, self.tokenizer, self.length, self.hardware.device, tokens=tokens)
        if measure is None:
            raise UserError(
                "there is no validation text to measure the rungs on",
                where=str(directory),
                mend="raise corpus.validation_fraction, or add text",
            )
        return measure

    def compare(self, size: Size, prediction: Facts) -> None:
        """Record what came of a prediction."""
        found = self.mean(len(self.measured) - 1)
        low, high = prediction["low"], prediction["high"]
        path = run_directory(self.out, size.name, 0) / "outcome.json"
        outcome = {
            "rung": size.name,
            "value": found,
            "predicted": prediction["value"],
            "low": low,
            "high": high,
            "inside": None if low is None else bool(low <= found <= high),
            "error": found / prediction["value"] - 1,
            "written": now(),
            "fingerprint": self.identity,
        }
        if self.known(path) is None:
            write_json(path, outcome)
            said = {True: "inside the interval", False: "outside the interval", None: "no interval"}[outcome["inside"]]
            log(f"{size.name}: measured {found:.4f}, foretold {_words(prediction)}: {said}")

    def mean(self, place: int) -> float:
        """The mean loss of a rung's runs."""
        losses = [result["bits_per_byte"] for result in self.measured[place]]
        return float(sum(losses) / len(losses))

    def known(self, path: Path) -> Facts | None:
        """The content of a file of this very ladder; None where there is none."""
        try:
            content: Facts = read_json(path)
        except (FileNotFoundError, ValueError):
            return None
        return content if content.get("fingerprint") == self.identity else None

    def finish(self) -> Facts:
        """Write the law of all rungs; return the stage's metrics."""
        fit = self.fit(len(self.sizes))
        rungs = [self.record(size, results) for size, results in zip(self.sizes, self.measured, strict=True)]
        forecast = self.forecast(fit)
        content = {
            "unit": "bits per byte",
            "level": 0.95,
            "tokens_per_parameter": self.section.tokens_per_parameter,
            "law": asdict(fit.law),
            "exponent": asdict(fit.exponent),
            "floor": asdict(fit.floor),
            "sigma": fit.sigma,
            "degrees": fit.degrees,
            "rungs": rungs,
            "forecast": forecast,
        }
        write_json(self.out / LADDER, content)
        log(f"{self.out.name}: L = {_law(fit)}; {forecast['compute']:.3g} FLOPs would reach {_words(forecast)}")
        runs = [result for results in self.measured for result in results]
        last = rungs[-1]["outcome"]
        return {
            "bits_per_byte": last["value"],
            "predicted": last["predicted"],
            "low": last["low"],
            "high": last["high"],
            "inside": last["inside"],
            "exponent": fit.law.exponent,
            "floor": fit.law.floor,
            "rungs": len(rungs),
            "runs": len(runs),
            "tokens": sum(result["tokens"] for result in runs),
            "seconds": sum(result["seconds"] for result in runs),
        }

    def record(self, size: Size, results: Sequence[Facts]) -> Facts:
        """A rung as ladder.json has it."""
        directory = run_directory(self.out, size.name, 0)
        first = results[0]
        shared = ("layers", "hidden_size", "parameters", "multiplying", "compute", "tokens", "steps")
        return {
            "rung": size.name,
            **{name: first[name] for name in shared},
            "bits_per_byte": [result["bits_per_byte"] for result in results],
            "seconds": [result["seconds"] for result in results],
            "prediction": self.known(directory / "prediction.json"),
            "outcome": self.known(directory / "outcome.json"),
        }

    def forecast(self, fit: LawFit) -> Facts:
        """What the law of all rungs says of a model that was not trained: `[model]`, or so much more compute."""
        arch = Architecture.from_section(self.model_section, self.tokenizer.vocabulary_size)
        cost = cost_of(self.section, arch)
        if cost.compute > 1.01 * self.sizes[-1].compute:
            return {**asdict(cost), **self.estimate(fit, cost.compute, len(self.sizes))}
        further = self.estimate(fit, FURTHER * self.sizes[-1].compute, len(self.sizes))
        return {"multiplying": None, "tokens": None, **further}


def _words(estimate: Facts) -> str:
    value = f"{estimate['value']:.4f}"
    if estimate["low"] is None:
        return value
    return f"{value} ({estimate['low']:.4f} to {estimate['high']:.4f})"


def _law(fit: LawFit) -> str:
    law = fit.law
    return f"{law.floor:.4f} + {law.scale:.4f} (C / {law.reference:.3g})^-{law.exponent:.4f} bits per byte"
