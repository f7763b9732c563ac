"""What each idea of the model room buys at small scale: every option of [model] alone against the default.

    python benchmarks/ablation.py --quick --json
    python benchmarks/ablation.py --write docs/ablations.md

What is measured and how to read it stands in benchmarks/README.md.
"""

from __future__ import annotations

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

FORMAT = 1  # of the data and results that are kept; others are made anew
RUNG = "ladder-1m"
VOCABULARY = 2048
TOKENS_PER_UPDATE = 4096
SEEDS = (1, 2, 3)
TOKENS, QUICK_TOKENS = 409_600, 102_400  # a run reads: 100 updates, 25 updates
QUICK = ("default", "learned", "gqa", "no-qk-norm", "relu", "layernorm", "bigram", "value-embeddings")
TIMED = 5  # updates whose CPU time gives tokens a second
T_975 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Option:
    """One idea, switched on alone."""

    name: str
    group: str
    about: str
    model: dict[str, Any] = field(default_factory=dict)


OPTIONS = (
    Option("default", "", "Qwen3 layout: rotary, QK-norm, SwiGLU, RMSNorm first, tied"),
    Option("learned", "positions", "learned table (GPT-2)", {"positions": "learned"}),
    Option("sinusoidal", "positions", "fixed table (Attention Is All You Need)", {"positions": "sinusoidal"}),
    Option("alibi", "positions", "ALiBi", {"positions": "alibi"}),
    Option("no-positions", "positions", "none", {"positions": "none"}),
    Option("rope-theta-1e6", "positions", "rotary base 1,000,000 for 10,000", {"rope_theta": 1e6}),
    Option("gqa", "attention", "2 key-value heads for 4 queries", {"kv_heads": 2}),
    Option("mqa", "attention", "1 key-value head", {"kv_heads": 1}),
    Option("mla", "attention", "latent attention: 64 + 16 numbers cached a token and layer for 256",
           {"qk_norm": "none", "latent": {"kv_rank": 64, "rotary_dim": 16}}),
    Option("window-64", "attention", "window of 64 tokens in 3 layers of 4", {"window": 64, "window_pattern": "SSSL"}),
    Option("no-qk-norm", "attention", "queries and keys not normalised", {"qk_norm": "none"}),
    Option("qk-norm-width", "attention", "normalised over the whole width (OLMo-2)", {"qk_norm": "width"}),
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
    model = ModelSection.model_validate({"preset": RUNG, **option.model})
    hardware = Hardware(device="cpu", precision="fp32", compile=False, threads=1, matrix_gflops={})
    out = Path(tempfile.mkdtemp(prefix="groundup-ablation-"))
    try:
        found = pretrain(
            section, model, run=folder, out=out, start=None, seed=seed, hardware=hardware, fingerprint="ablation",
            should_stop=lambda: False,
        )  # fmt: skip
        seconds = update_seconds(section, out, seed, folder, hardware)
        from groundup.interchange import load_architecture

        count = parameter_count(load_architecture(out / "final"))
    finally:
        shutil.rmtree(out)
    return {
        "bits_per_byte": found["bits_per_byte"],
        "skipped": found["skipped"],
        "tokens_per_second": TOKENS_PER_UPDATE / seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6,
        "parameters": count.total,
        "active": count.active,
    }


def update_seconds(section: Any, out: Path, seed: int, folder: Path, hardware: Any) -> float:
    """CPU seconds of an update of the trained model, the least of a few: what else the machine does slows the rest."""
    from groundup.interchange import load_model
    from groundup.tokenizer import Loader, PackedRows, TokenShards
    from groundup.training import Job, NextToken
    from groundup.training.budget import Plan
    from groundup.training.loop import Trainer

    model = load_model(out / "final")
    length = model.arch.context_length
    rows = TOKENS_PER_UPDATE // length
    loader = Loader(PackedRows(TokenShards(folder / "tokenizer" / "shards" / "train"), length, seed), rows)
    plan = Plan("", 1 << 20, rows, rows, length)
    trainer = Trainer(
        Job("timing", "pretrain", out / "timing", "", model, NextToken(), loader, section, plan, hardware, seed, bool)
    )
    seconds = []
    for step in range(1 + TIMED):
        batch = loader.update(step)
        begun = time.process_time()
        trainer.update(batch)
        seconds.append(time.process_time() - begun)
    trainer.metrics.close()
    trainer.samples.close()
    return min(seconds[1:])


def results(options: list[Option], seeds: tuple[int, ...], tokens: int, workers: int) -> dict[tuple[str, int], Any]:
    """Every option with every seed, each in a process of its own; what was measured before is not measured again."""
    folder = data()
    kept = bench_folder() / "ablation" / f"results-{FORMAT}-{tokens}.jsonl"
    known = {}
    if kept.exists():
        for line in kept.read_text().splitlines():
            row = json.loads(line)
            known[(row["option"], json.dumps(row["model"], sort_keys=True), row["seed"])] = row
    wanted = [(option, seed) for seed in seeds for option in options]
    todo = [(o, s) for o, s in wanted if (o.name, json.dumps(o.model, sort_keys=True), s) not in known]

    def run(task: tuple[Option, int]) -> None:
        option, seed = task
        command = [sys.executable, __file__, "--job", option.name, str(seed), str(tokens), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise RuntimeError(f"{option.name}, seed {seed}: {done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        row = {"option": option.name, "model": option.model, "seed": seed, **found}
        with kept.open("a") as file:
            file.write(json.dumps(row) + "\n")
        known[(option.name, json.dumps(option.model, sort_keys=True), seed)] = row
        say(f"ablation: {len(known)}: {option.name}, seed {seed}: {found['bits_per_byte']:.4f}")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, todo))
    return {(o.name, s): known[(o.name, json.dumps(o.model, sort_keys=True), s)] for o, s in wanted}


def interval(differences: list[float]) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval (Student's t) of paired differences."""
    half = T_975[len(differences) - 1] * stdev(differences) / math.sqrt(len(differences))
    return fmean(differences), half


def rows(options: list[Option], seeds: tuple[int, ...], found: dict[tuple[str, int], Any]) -> Iterator[dict[str, Any]]:
    """A row of the table for each option: what it is better or worse by than the default of the same seed."""
    base = [found["default", seed] for seed in seeds]
    for option in options:
        runs = [found[option.name, seed] for seed in seeds]
        difference, half = interval([a["bits_per_byte"] - b["bits_per_byte"] for a, b in zip(runs, base, strict=True)])
        speeds = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(runs, base, strict=True)]
        yield {
            "option": option.name,
            "group": option.group,
            "about": option.about,
            "model": option.model,
            "n": len(seeds),
            "bits_per_byte": round(fmean(run["bits_per_byte"] for run in runs), 4),
            "difference": round(difference, 4),
            "half_width": round(half, 4),
            "tokens_per_second": round(median(run["tokens_per_second"] for run in runs)),
            "speed": round(median(speeds), 3),
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
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--options", nargs="+", metavar="NAME", help="only these, and the default")
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
    options = [option for option in OPTIONS if option.name in {"default", *names}]
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
    if given.json:
        content = {"name": report.name, "machine": report.machine, "rows": report.rows, "ratios": report.ratios}
        print(json.dumps(content | {"left_out": report.left_out, "failed": report.failed}))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
