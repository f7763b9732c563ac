"""What each idea of the model room buys at small scale: every option of [model] alone, and a few together.

    python benchmarks/ablation.py --quick --json
    python benchmarks/ablation.py --write docs/ablations.md

What is measured and how to read it stands in benchmarks/README.md.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from ablation_page import page, table
from common import Report, arguments, bench_folder, real_data, say

FORMAT = 2  # of the data and results that are kept; others are made anew
RUNG, PLAIN = "ladder-1m", {"embedding_scale": False, "kv_heads": 4}  # what all options are compared with
VOCABULARY = 2048
TOKENS_PER_UPDATE = 4096
SEEDS = (1, 2, 3)
TOKENS, QUICK_TOKENS = 614_400, 102_400  # a run reads: 150 updates, 25 updates
QUICK = ("plain", "learned", "gqa", "no-qk-norm", "relu", "layernorm", "bigram", "value-embeddings")
TIMED = 8  # pairs of updates whose CPU time gives tokens a second
T_975 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Option:
    """One idea, switched on alone."""

    name: str
    group: str
    about: str
    model: dict[str, Any] = field(default_factory=dict)


OPTIONS = (
    Option("plain", "", "Qwen3 layout: rotary, QK-norm, SwiGLU, RMSNorm first, tied"),
    Option("learned", "positions", "learned table (GPT-2)", {"positions": "learned"}),
    Option("sinusoidal", "positions", "fixed table (Attention Is All You Need)", {"positions": "sinusoidal"}),
    Option("sinusoidal-scaled", "positions", "fixed table, and embeddings times sqrt(128), as in that paper",
           {"positions": "sinusoidal", "embedding_scale": True}),
    Option("alibi", "positions", "ALiBi", {"positions": "alibi"}),
    Option("no-positions", "positions", "none", {"positions": "none"}),
    Option("rope-theta-1e6", "positions", "rotary base 1,000,000 for 10,000", {"rope_theta": 1e6}),
    Option("gqa", "attention", "2 key-value heads for 4 queries", {"kv_heads": 2}),
    Option("mqa", "attention", "1 key-value head", {"kv_heads": 1}),
    Option("mla", "attention", "latent attention, without QK-norm: 64 + 16 numbers cached a token and layer for 256",
           {"qk_norm": "none", "latent": {"kv_rank": 64, "rotary_dim": 16}}),
    Option("window-64", "attention", "window of 64 tokens in 3 layers of 4", {"window": 64, "window_pattern": "SSSL"}),
    Option("no-qk-norm", "attention", "queries and keys not normalised", {"qk_norm": "none"}),
    Option("qk-norm-width", "attention", "normalised over the whole width (OLMo-2)", {"qk_norm": "width"}),
    Option("qkv-biases", "attention", "biases of queries, keys and values (Qwen 2)", {"biases": "qkv"}),
    Option("attention-softcap", "attention", "scores below 20 (soft cap)", {"attention_softcap": 20.0}),
    Option("sinks", "attention", "attention sinks", {"attention_sinks": True}),
    Option("lookup-start", "attention", "heads begin as look-up", {"attention_start": "lookup"}),
    Option("relu", "feed-forward", "ReLU, as many parameters", {"feed_forward": "relu", "intermediate_size": 528}),
    Option("gelu", "feed-forward", "GELU, as many parameters", {"feed_forward": "gelu", "intermediate_size": 528}),
    Option("squared-relu", "feed-forward", "squared ReLU, as many parameters",
           {"feed_forward": "squared_relu", "intermediate_size": 528}),
    Option("geglu", "feed-forward", "GeGLU", {"feed_forward": "geglu"}),
    Option("experts-8", "feed-forward", "8 experts, 2 a token, as many active parameters",
           {"experts": {"count": 8, "per_token": 2, "intermediate_size": 176}}),
    Option("experts-8-shared", "feed-forward", "8 experts, 1 a token, and a shared one, as many active parameters",
           {"experts": {"count": 8, "per_token": 1, "shared": 1, "intermediate_size": 176}}),
    Option("layernorm", "blocks", "LayerNorm", {"norm": "layer"}),
    Option("post-norm", "blocks", "norm after the sum (the original)", {"norm_placement": "post"}),
    Option("sandwich", "blocks", "norms before and after (Gemma 2)", {"norm_placement": "sandwich"}),
    Option("output-norm", "blocks", "norm of what is added (OLMo-2)", {"norm_placement": "output"}),
    Option("no-gains", "blocks", "norms without gains", {"norm_gains": False}),
    Option("biases", "blocks", "biases everywhere", {"biases": "all"}),
    Option("dropout-0.1", "blocks", "dropout 0.1", {"dropout": 0.1}),
    Option("scaled-start", "blocks", "residual matrices begin at random, not at 0", {"residual_start": "scaled"}),
    Option("residual-scalars", "blocks", "learned scalars of the residual stream", {"residual_scalars": True}),
    Option("x0-skip", "blocks", "embedding added again in each block", {"x0_skip": True}),
    Option("untied", "embeddings", "a head of its own", {"tied_embeddings": False}),
    Option("embedding-norm", "embeddings", "embeddings normalised", {"embedding_norm": True}),
    Option("embedding-scale", "embeddings", "embeddings times sqrt(128)", {"embedding_scale": True}),
    Option("value-embeddings", "embeddings", "value embeddings in every other layer", {"value_embeddings": True}),
    Option("bigram", "embeddings", "embeddings of pairs, 10,240 rows", {"bigram_rows": 5 * VOCABULARY}),
    Option("logit-softcap", "head", "logits below 15 (soft cap)", {"logit_softcap": 15.0}),
    Option("predict-ahead", "head", "one more token predicted (training only)", {"predict_ahead": 1}),
    Option("start-width", "start", "embeddings begin at 1 / sqrt(128), not at 0.02", {"initializer_range": 0.0884}),
    Option("embedding-scale-untied", "two", "embeddings times sqrt(128), and a head of its own",
           {"embedding_scale": True, "tied_embeddings": False}),
    Option("embedding-scale-bigram", "two", "embeddings times sqrt(128), and embeddings of pairs",
           {"embedding_scale": True, "bigram_rows": 5 * VOCABULARY}),
)  # fmt: skip


def data() -> Path:
    """A run directory with the tokenizer and shards of the Wikipedia articles, made once."""
    folder = bench_folder() / "ablation" / f"data-{FORMAT}"
    recipe = f"""
[corpus]
sources = ["{real_data() / "wikipedia"}"]
[tokenizer]
vocabulary_size = {VOCABULARY}
[model]
preset = "{RUNG}"
[pretrain]
steps = 1
"""
    file = folder.with_suffix(".toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(recipe)
    command = [sys.executable, "-m", "groundup", "build", str(file), "--out", str(folder), "--until", "tokenizer"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def job(option: Option, seed: int, tokens: int, folder: Path) -> dict[str, Any]:
    """Train one model in this process; what it reached and what it cost."""
    from groundup.hardware import Hardware
    from groundup.model import parameter_count
    from groundup.recipe import ModelSection, PretrainSection
    from groundup.training import pretrain

    section = PretrainSection.model_validate(
        {"steps": tokens // TOKENS_PER_UPDATE, "tokens_per_update": TOKENS_PER_UPDATE, "log_every": 1,
         "validate_every": 0, "checkpoint_every": 0}
    )  # fmt: skip
    model = ModelSection.model_validate({"preset": RUNG, **PLAIN, **option.model})
    hardware = Hardware(device="cpu", precision="fp32", compile=False, threads=1, matrix_gflops={})
    out = Path(tempfile.mkdtemp(prefix="groundup-ablation-"))
    try:
        found = pretrain(
            section, model, run=folder, out=out, start=None, seed=seed, hardware=hardware, fingerprint="ablation",
            should_stop=lambda: False,
        )  # fmt: skip
        from groundup.interchange import load_architecture

        count = parameter_count(load_architecture(out / "final"))
    finally:
        shutil.rmtree(out)
    return {
        "bits_per_byte": found["bits_per_byte"],
        "skipped": found["skipped"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6,
        "parameters": count.total,
        "active": count.active,
    }


def timing(option: Option, folder: Path) -> dict[str, Any]:
    """Updates of the plain model and of an option by turns, in one process, on one core: CPU seconds and ratios.

    Neighbours on the machine slow both sides of a pair alike, which the ratio leaves out.
    """
    updates = [trainer_of(each, folder) for each in (OPTIONS[0], option)]
    pairs = []
    for step in range(1 + TIMED):
        seconds = [0.0, 0.0]
        for side in (0, 1) if step % 2 else (1, 0):
            trainer, loader = updates[side]
            batch = loader.update(step)
            begun = time.process_time()
            trainer.update(batch)
            seconds[side] = time.process_time() - begun
        pairs.append(seconds)
    ratios = sorted(plain / own for plain, own in pairs[1:])
    return {
        "tokens_per_second": TOKENS_PER_UPDATE / min(own for _, own in pairs[1:]),
        "speed": median(ratios),
        "speed_low": ratios[len(ratios) // 4],
        "speed_high": ratios[-1 - len(ratios) // 4],
    }


def trainer_of(option: Option, folder: Path) -> tuple[Any, Any]:
    """A trainer of a fresh model, and the loader of its batches."""
    from groundup.hardware import Hardware
    from groundup.model import Architecture, fresh_model
    from groundup.recipe import ModelSection, PretrainSection
    from groundup.tokenizer import Loader, PackedRows, TokenShards
    from groundup.training import Job, NextToken
    from groundup.training.budget import Plan
    from groundup.training.loop import Trainer

    section = PretrainSection.model_validate({"steps": 100, "tokens_per_update": TOKENS_PER_UPDATE})
    shape = ModelSection.model_validate({"preset": RUNG, **PLAIN, **option.model})
    model = fresh_model(Architecture.from_section(shape, VOCABULARY), 1)
    length = model.arch.context_length
    count = TOKENS_PER_UPDATE // length
    loader = Loader(PackedRows(TokenShards(folder / "tokenizer" / "shards" / "train"), length, 1), count)
    hardware = Hardware(device="cpu", precision="fp32", compile=False, threads=1, matrix_gflops={})
    out = Path(tempfile.mkdtemp(prefix="groundup-ablation-"))
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    plan = Plan("", 1 << 20, count, count, length)
    return Trainer(
        Job("timing", "pretrain", out, "", model, NextToken(), loader, section, plan, hardware, 1, bool)
    ), loader


def digest() -> str:
    """Of the code that a result depends on: what was measured with another is measured anew."""
    import groundup

    root = Path(groundup.__file__).parent
    files = sorted(
        path for room in ("model", "training", "recipe", "tokenizer") for path in (root / room).rglob("*")
        if path.suffix in (".py", ".toml")
    )  # fmt: skip
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


class Kept:
    """What was measured with this code, in a file, so that a run that was stopped goes on where it was."""

    def __init__(self, tokens: int) -> None:
        self.path = bench_folder() / "ablation" / f"results-{FORMAT}-{tokens}.jsonl"
        self.code = digest()
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = [json.loads(line) for line in lines]
        self.rows = {self.key(row["model"], row["seed"]): row for row in found if row["code"] == self.code}

    @staticmethod
    def key(model: dict[str, Any], seed: int | None) -> str:
        return json.dumps([model, seed], sort_keys=True)

    def add(self, option: Option, seed: int | None, found: dict[str, Any]) -> None:
        row = {"option": option.name, "model": option.model, "seed": seed, "code": self.code, **found}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows[self.key(option.model, seed)] = row


def in_process(*task: object) -> dict[str, Any]:
    """What a process of its own, with one thread, finds."""
    command = [sys.executable, __file__, *map(str, task)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, task))}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def results(
    options: list[Option], seeds: tuple[int, ...], tokens: int, workers: int
) -> dict[tuple[str, int | None], dict[str, Any]]:
    """Every option trained with every seed, as many at a time as there are cores; then all are timed.

    By the option's name and the seed, which is None for what was timed.
    """
    folder, kept = data(), Kept(tokens)

    def train(task: tuple[Option, int]) -> None:
        option, seed = task
        found = in_process("--job", option.name, seed, tokens, folder)
        kept.add(option, seed, found)
        say(f"ablation: {len(kept.rows)}: {option.name}, seed {seed}: {found['bits_per_byte']:.4f}")

    wanted = [(option, seed) for seed in seeds for option in options]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(train, [(o, s) for o, s in wanted if kept.key(o.model, s) not in kept.rows]))

    def time_(option: Option) -> None:
        found = in_process("--time", option.name, folder)
        kept.add(option, None, found)
        say(f"ablation: {option.name}: {found['speed']:.2f} times the speed")

    with ThreadPoolExecutor(workers) as pool:  # after all training, so that each has a core to itself
        list(pool.map(time_, [option for option in options if kept.key(option.model, None) not in kept.rows]))
    return {(o.name, s): kept.rows[kept.key(o.model, s)] for o in options for s in (*seeds, None)}


def interval(differences: list[float]) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval (Student's t) of paired differences."""
    half = T_975[len(differences) - 1] * stdev(differences) / math.sqrt(len(differences))
    return fmean(differences), half


def rows(
    options: list[Option], seeds: tuple[int, ...], found: dict[tuple[str, int | None], Any]
) -> Iterator[dict[str, Any]]:
    """A row of the table for each option: what it is better or worse by than the plain model of the same seed."""
    base = [found["plain", seed] for seed in seeds]
    for option in options:
        runs = [found[option.name, seed] for seed in seeds]
        difference, half = interval([a["bits_per_byte"] - b["bits_per_byte"] for a, b in zip(runs, base, strict=True)])
        timed = found[option.name, None]
        yield {
            "option": option.name,
            "group": option.group,
            "about": option.about,
            "model": option.model,
            "n": len(seeds),
            "bits_per_byte": round(fmean(run["bits_per_byte"] for run in runs), 4),
            "difference": round(difference, 4),
            "half_width": round(half, 4),
            "tokens_per_second": round(timed["tokens_per_second"]),
            **{name: round(timed[name], 3) for name in ("speed", "speed_low", "speed_high")},
            "peak_mb": round(median(run["peak_mb"] for run in runs)),
            "parameters": runs[0]["parameters"],
            "active": runs[0]["active"],
            "skipped": sum(run["skipped"] for run in runs),
        }  # fmt: skip


def main() -> int:
    if len(sys.argv) == 6 and sys.argv[1] == "--job":
        chosen = next(option for option in OPTIONS if option.name == sys.argv[2])
        print(json.dumps(job(chosen, int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))))
        return 0
    if len(sys.argv) == 4 and sys.argv[1] == "--time":
        chosen = next(option for option in OPTIONS if option.name == sys.argv[2])
        print(json.dumps(timing(chosen, Path(sys.argv[3]))))
        return 0
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--options", nargs="+", metavar="NAME", help="only these, and the plain model")
    parser.add_argument("--tokens", type=int, help=f"tokens a run reads (default {TOKENS:,})")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="runs of each option, at least 3")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page with the table")
    given = parser.parse_args()
    if not 3 <= given.seeds <= len(T_975) + 1:
        parser.error(f"--seeds: 3 to {len(T_975) + 1}, not {given.seeds}")
    names = given.options or (QUICK if given.quick else [option.name for option in OPTIONS])
    unknown = sorted(set(names) - {option.name for option in OPTIONS})
    if unknown:
        parser.error(f"--options: no {', '.join(unknown)}; there are {', '.join(option.name for option in OPTIONS)}")
    options = [option for option in OPTIONS if option.name in {"plain", *names}]
    tokens = given.tokens or (QUICK_TOKENS if given.quick else TOKENS)
    seeds = tuple(range(1, given.seeds + 1))
    report = Report("ablation")

    def part() -> None:
        found = results(options, seeds, tokens, max(1, int(report.machine["cores"])))
        report.rows += list(rows(options, seeds, found))

    report.run("options", part)
    if report.rows:
        print(table(report.rows))
        if given.write:
            given.write.write_text(page(report.rows, tokens, TOKENS_PER_UPDATE, report.machine, given.write))
    for row in report.rows:
        report.ratios[f"{row['option']}_speed"] = row["speed"]
    return report.end(given.json)


if __name__ == "__main__":
    sys.exit(main())
